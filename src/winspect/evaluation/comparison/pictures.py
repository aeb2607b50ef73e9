"""The same pictures in two runs: how far their scores differ, in size, in order, and in verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winspect.evaluation.results import Run, Score

Matched = tuple[Score, Score]
"""A picture in the baseline and in the other run."""


@dataclass(frozen=True)
class Pictures:
    """The scores of the same pictures in both runs.

    Attributes:
        count: pictures judged in both runs.
        failed_in_one: pictures that only one of the runs could judge.
        largest_difference: of two scores of one picture, 0 or more; ``where``: that picture. None without pictures.
        spearman: rank correlation of the scores, -1 to 1; None when either run's scores are all equal.
        flips: verdicts that differ, each run at its own threshold of the largest F1; None where that is undefined.
    """

    count: int
    failed_in_one: int
    largest_difference: float | None
    where: str | None
    spearman: float | None
    flips: int | None


def matched(baseline: Run, other: Run, category: str) -> list[Matched]:
    """The pictures of a category, in the baseline's order. Both runs must have judged the same ones."""
    others = {score.key: score for score in other.scores if score.category == category}
    return [(score, others[score.key]) for score in baseline.scores if score.category == category]


def look_at(categories: Sequence[Sequence[Matched]]) -> Pictures:
    """What the scores of the pictures of some categories tell; each category has thresholds of its own."""
    pairs = [pair for category in categories for pair in category]
    judged = _judged(pairs)
    failed = sum((one.score is None) != (two.score is None) for one, two in pairs)
    flips = [count for category in categories if (count := _flips(category)) is not None]
    if not judged:
        return Pictures(0, failed, None, None, None, None)
    own, others = _scores(judged)
    apart = np.abs(own - others)
    worst = judged[int(apart.argmax())][0]
    return Pictures(
        count=len(judged),
        failed_in_one=failed,
        largest_difference=float(apart.max()),
        where=worst.path,
        spearman=spearman(own, others),
        flips=sum(flips) if flips else None,
    )


def _judged(pairs: Sequence[Matched]) -> list[Matched]:
    return [pair for pair in pairs if pair[0].score is not None and pair[1].score is not None]


def _scores(judged: Sequence[Matched]) -> tuple[np.ndarray, np.ndarray]:
    one, two = ([score.score for score in side] for side in zip(*judged, strict=True))
    return np.array(one, np.float64), np.array(two, np.float64)


def _flips(pairs: Sequence[Matched]) -> int | None:
    """Verdicts that differ in one category, over its seeds."""
    flips = []
    for seed in sorted({one.seed for one, _ in pairs}):
        judged = _judged([pair for pair in pairs if pair[0].seed == seed])
        if not judged:
            continue
        labels = np.array([one.label == "anomalous" for one, _ in judged])
        own, others = _scores(judged)
        thresholds = best_threshold(own, labels), best_threshold(others, labels)
        if thresholds[0] is not None and thresholds[1] is not None:
            flips.append(int(((own >= thresholds[0]) != (others >= thresholds[1])).sum()))
    return sum(flips) if flips else None


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The score from which on pictures are called anomalous, for the largest F1; the highest of several.

    Args:
        scores: float (n,); labels: bool (n,), True is anomalous.

    Returns:
        One of the scores, or None when there are not both normal and anomalous pictures.

    >>> best_threshold(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.35
    """
    if labels.all() or not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    hits = np.cumsum(labels[order])
    called = np.arange(1, len(scores) + 1)
    f1 = 2 * hits / (called + labels.sum())
    last_of_ties = np.append(falling[1:] != falling[:-1], True)
    return float(falling[np.where(last_of_ties, f1, -1).argmax()])


def spearman(one: np.ndarray, two: np.ndarray) -> float | None:
    """Spearman's rank correlation, -1 to 1; ties share their mean rank. None when either side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]))
    1.0
    """
    ranks = [_ranks(values) for values in (one, two)]
    centred = [rank - rank.mean() for rank in ranks]
    lengths = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return None if lengths == 0 else min(1.0, max(-1.0, float(centred[0] @ centred[1]) / lengths))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
