"""Figures of merit of image scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a defective picture scores above a good one, ties counting half.

    Exact (the Mann-Whitney statistic over all pairs, by ranks). Scores are only ranked, so any scale will do.

    Args:
        scores: numbers (n,); higher is more anomalous.
        labels: booleans or 0 and 1 (n,); true is defective.

    Returns:
        0 to 1, or None when there are not both good and defective pictures.

    Raises:
        ValueError: lengths differ, a score is not finite, or a label is neither 0 nor 1.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape:
        raise ValueError(f"got scores of shape {score.shape} and labels of shape {label.shape}; need two equal lengths")
    if not np.isfinite(score).all():
        raise ValueError("got a score that is not finite; leave out pictures without a score")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("got a label that is neither 0 (good) nor 1 (defective)")
    positive = label.astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    _, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = mean_ranks[group[positive]].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
