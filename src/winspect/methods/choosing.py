"""Which pictures of an unlabelled batch to show as good samples: normal ones that differ. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winspect.errors import SourceError

DEVIATIONS = 3.0
"""Scores beyond the median plus so many robust standard deviations are outliers (Leys et al. 2013)."""

NORMAL_SHARE = 0.5
"""Share of the pictures, those with the lowest scores, that are chosen among. Defects are far from everything, also
those that are no outliers. Measured on six generated products with the bundled model, 30 good and 6 defective pictures
each: of 144 chosen ones 3 were defective; 5 where two thirds were chosen among, 10 where all but the outliers were
(``benchmarks.choosing``)."""

_OF_NORMAL = 1.4826  # standard deviations in a median absolute deviation of normally distributed values
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Chosen:
    """Numbers of pictures, counted from 0.

    Attributes:
        kept: in the order in which they were chosen: the first few of them are the choice of so many.
        outliers: the most anomalous first.
        limit: scores above it are outliers.
    """

    kept: tuple[int, ...]
    outliers: tuple[int, ...]
    limit: float


def choose(scores: np.ndarray, apart: np.ndarray, count: int) -> Chosen:
    """Choose the most normal picture, then again and again the one that differs most from those chosen before.

    Chosen among is :data:`NORMAL_SHARE` of the pictures, those with the lowest scores, or as many as ``count``; never
    outliers. Of pictures that differ as much the one with the lowest score is taken, then the first.

    Args:
        scores: (N,), more is more anomalous; NaN for pictures that cannot be chosen.
        apart: (N, N), how far the picture of a row is from that of a column; NaN where it is not known, which counts
            as far.
        count: 1 or more.

    Raises:
        SourceError: fewer pictures than ``count`` are no outliers; says how many are.
    """
    usable = np.flatnonzero(np.isfinite(scores))
    order = usable[np.argsort(scores[usable], kind="stable")]
    limit = upper_limit(scores[usable])
    outliers = order[scores[order] > limit][::-1]
    normal = order[: len(order) - len(outliers)]
    if count > len(normal):
        raise SourceError(
            f"asked for {count} of {len(scores)} pictures, and {len(normal)} can be kept: {len(outliers)} outliers, "
            f"{len(scores) - len(usable)} failed; keep {len(normal)}, or give more pictures"
        )
    candidates = normal[: max(count, round(NORMAL_SHARE * len(usable)))]
    distances = np.nan_to_num(apart[np.ix_(candidates, candidates)].astype(np.float64), nan=np.inf)
    kept, nearest = [0], distances[:, 0]
    while len(kept) < count:
        nearest[kept] = -1  # a copy of a chosen picture is at distance 0, and may be chosen
        kept.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, distances[:, kept[-1]])
    return Chosen(tuple(candidates[kept].tolist()), tuple(outliers.tolist()), limit)


def upper_limit(scores: np.ndarray, *, least: float = 0.0) -> float:
    """The median plus :data:`DEVIATIONS` robust standard deviations: beyond it are outliers.

    Args:
        scores: (N,).
        least: a robust standard deviation that is smaller counts as this.

    >>> round(upper_limit(np.array([1.0, 2, 3, 4, 100])), 4)
    7.4478
    """
    median = float(np.median(scores))
    deviation = _OF_NORMAL * float(np.median(np.abs(scores - median)))
    return median + DEVIATIONS * max(deviation, least) + _ROUNDING * abs(median)
