"""Split conformal prediction: from the scores of good pictures to a threshold with a guarantee. Numbers only.

Let n good pictures and a new one come from the same line, so that any order of their n + 1 scores is equally likely.
Then the rank of the new score among them is uniform, and the new picture is flagged, because its p-value is at most
the rate asked for, with a probability of at most that rate; equal scores only lower it. Nothing is supposed about how
scores are distributed, and n need not be large. Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random
World" (2005); for anomaly detection Laxhammar and Falkman (2010).

Rates are taken as the decimal number that was written (0.07, not the binary fraction next to it): the arithmetic at
the border is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from winspect.errors import SettingsError

SUSPICIOUS = 0.01
"""Further good pictures are at odds with a calibration when so many alarms have less than this chance."""


def check_rate(rate: float | Fraction, name: str = "max_false_alarms") -> Fraction:
    """A rate of false alarms as an exact fraction.

    Args:
        name: of the rate, for the error.

    Raises:
        SettingsError: it is not a number above 0 and below 1.
    """
    is_number = isinstance(rate, int | float | Fraction) and not isinstance(rate, bool)
    if not (is_number and 0 < rate < 1):
        raise SettingsError(
            f"{name}: got {rate!r}, need a rate above 0 and below 1, such as 0.01 for one in a hundred good pictures"
        )
    return rate if isinstance(rate, Fraction) else Fraction(repr(float(rate)))


def needed_pictures(max_false_alarms: float | Fraction) -> int:
    """The fewest good pictures for a rate: ceil(1 / rate) - 1, as the smallest p-value is 1 / (n + 1).

    >>> [needed_pictures(rate) for rate in (0.1, 0.05, 0.01)]
    [9, 19, 99]
    """
    return math.ceil(1 / check_rate(max_false_alarms)) - 1


def check_enough(pictures: int, max_false_alarms: float | Fraction, *, references: int = 0) -> None:
    """Refuse to promise what so few good pictures cannot keep.

    Args:
        pictures: those that are left to calibrate on.
        max_false_alarms: the rate to keep.
        references: how many good pictures are left out as references, for the message.

    Raises:
        SettingsError: says how many are needed, and which rate these allow.
    """
    needed = needed_pictures(max_false_alarms)
    if pictures < needed:
        allowed = f"; {pictures} allow {math.ceil(1e4 / (pictures + 1)) / 1e4:g}" if pictures else ""
        beside, fewer = "", ""
        if references:
            beside = f" beside the {references} that are references"
            fewer = "take fewer of them as references (--shots), "
        raise SettingsError(
            f"got {pictures} usable good pictures{beside}, need at least {needed} for a false-alarm rate of at most "
            f"{float(max_false_alarms):g}{allowed}; add pictures, {fewer}or allow more false alarms"
        )


def alarms_allowed(pictures: int, max_false_alarms: float | Fraction) -> int:
    """floor(rate (n + 1)): a new score is flagged when fewer of the n scores than this reach it.

    >>> alarms_allowed(99, 0.01), alarms_allowed(99, 0.29)
    (1, 29)
    """
    return math.floor(check_rate(max_false_alarms) * (pictures + 1))


def conformal_threshold(scores: Sequence[float], max_false_alarms: float | Fraction) -> float:
    """The ceil((n + 1)(1 - rate))-th smallest of n scores; what lies above it is flagged.

    Args:
        scores: of good pictures, ascending.

    Raises:
        SettingsError: a rate out of range, or too few scores for it.

    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.4)
    0.3
    """
    check_enough(len(scores), max_false_alarms)
    return scores[len(scores) - alarms_allowed(len(scores), max_false_alarms)]


def p_value(score: float, scores: Sequence[float]) -> float:
    """(1 + how many of n good pictures score at least as high) / (n + 1): small is anomalous.

    For a new good picture it is at most any number u with probability at most u.

    Args:
        score: of the new picture.
        scores: of good pictures, ascending.

    >>> p_value(0.35, [0.1, 0.2, 0.3, 0.4])
    0.4
    >>> p_value(math.nan, [0.1, 0.2, 0.3, 0.4])  # what is not a number is as anomalous as can be
    0.2
    """
    score = math.inf if math.isnan(score) else score
    return (1 + len(scores) - bisect_left(scores, score)) / (len(scores) + 1)


def chance_of_alarms(alarms: int, tested: int, *, pictures: int, max_false_alarms: float) -> float:
    """The probability that of ``tested`` further good pictures ``alarms`` or more are flagged, if nothing has changed.

    The pictures share one threshold, so their alarms are not independent: of all orders of n + N exchangeable scores,
    this counts those with that many of the N above the m-th largest of the n, m = :func:`alarms_allowed`. It is the
    beta-binomial distribution with parameters N, m and n + 1 - m; equal scores make alarms rarer.
    """
    from scipy.stats import betabinom

    allowed = alarms_allowed(pictures, max_false_alarms)
    return float(betabinom.sf(alarms - 1, tested, allowed, pictures + 1 - allowed))


def rate_bound(pictures: int, max_false_alarms: float, confidence: float = 0.95) -> float:
    """The false-alarm rate that the one threshold at hand stays below with a confidence, 0 to 1.

    The promise is kept on average over calibrations. A single threshold's own rate follows the beta distribution with
    parameters m and n + 1 - m, m = :func:`alarms_allowed`, for scores without ties.

    >>> round(rate_bound(99, 0.01), 4), round(rate_bound(999, 0.01), 4)
    (0.0298, 0.0157)
    """
    from scipy.stats import beta

    allowed = alarms_allowed(pictures, max_false_alarms)
    return float(beta.ppf(confidence, allowed, pictures + 1 - allowed))


@dataclass(frozen=True)
class BestF1:
    """The threshold with the largest F1 on the pictures it was chosen on: an upper bound for new ones.

    Attributes:
        f1: 2 TP / (2 TP + FP + FN), 0 to 1, higher is better.
        threshold: half-way between the lowest score that is flagged and the next one below.
    """

    f1: float
    threshold: float


def best_f1(good: Sequence[float], defective: Sequence[float]) -> BestF1:
    """The F1-optimal threshold; among equally good ones the highest.

    Args:
        good, defective: scores of labelled pictures, at least one each.

    Raises:
        UsageError: a score is not finite.
    """
    from winspect.metrics import rank_scores

    scores = np.concatenate([np.asarray(good, np.float64), np.asarray(defective, np.float64)])
    ranking = rank_scores(scores, np.arange(len(scores)) >= len(good))
    # Position i stands for the threshold at the i-th highest defective score.
    f1 = 2 * ranking.hits / (ranking.hits + ranking.reached + len(ranking.hits))
    lowest = np.sort(np.asarray(defective, np.float64))[::-1][f1.argmax()]
    lower = scores[scores < lowest]
    below = lower.max() if len(lower) else np.nextafter(lowest, -math.inf)
    middle = (lowest + below) / 2  # between neighbouring numbers it is rounded to one of them
    return BestF1(f1=float(f1.max()), threshold=float(middle if middle < lowest else below))
