"""Figures of merit of image scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from winspect.errors import UsageError
from winspect.metrics.ranking import Curve, Ranking, rank


def rank_scores(scores: ArrayLike, labels: ArrayLike) -> Ranking:
    """Sort image scores once, for several figures or a curve.

    Args:
        scores: finite numbers (n,); higher is more anomalous. They are only ranked, so any scale will do.
        labels: booleans or 0 and 1 (n,); true is defective.

    Raises:
        UsageError: (a ValueError) lengths differ, a score is not finite, or a label is neither 0 nor 1.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape:
        raise UsageError(f"got scores of shape {score.shape} and labels of shape {label.shape}; need two equal lengths")
    if not np.isfinite(score).all():
        raise UsageError("got a score that is not finite; leave out pictures without a score")
    if not np.isin(label, (0, 1)).all():
        raise UsageError("got a label that is neither 0 (good) nor 1 (defective)")
    defective = label.astype(bool)
    return rank(score[~defective], score[defective])


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a defective picture scores above a good one, ties counting half.

    Exact (the Mann-Whitney statistic over all pairs). Arguments and errors are those of `rank_scores`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pictures.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    return rank_scores(scores, labels).auroc()


def aupr(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the precision-recall curve, as average precision: steps, not trapezoids, as in scikit-learn.

    Its value for scores drawn by chance is the fraction of defective pictures, so it compares only on the same data.
    Arguments and errors are those of `rank_scores`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pictures.

    >>> round(aupr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
    0.8333
    """
    return rank_scores(scores, labels).aupr()


def f1_max(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The largest F1 score, the harmonic mean of precision and recall, that any threshold gives.

    The threshold is chosen on the data it is judged by, so this is what the scores allow, not what a fixed threshold
    will give. Arguments and errors are those of `rank_scores`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pictures.

    >>> f1_max([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.8
    """
    return rank_scores(scores, labels).f1_max()


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float | None]:
    """All figures of image scores from one sort: `image_auroc`, `image_aupr` and `image_f1_max`.

    Arguments and errors are those of `rank_scores`; each figure is as in the function of its name.
    """
    ranking = rank_scores(scores, labels)
    return {"image_auroc": ranking.auroc(), "image_aupr": ranking.aupr(), "image_f1_max": ranking.f1_max()}


def roc_curve(scores: ArrayLike, labels: ArrayLike, *, points: int = 200) -> Curve | None:
    """Points of the ROC curve for drawing: false positive rate and recall, from (0, 0) to (1, 1).

    Arguments and errors are those of `rank_scores`, and `points`, the most points to keep: those kept lie on the exact
    curve, evenly spaced along it.

    Returns:
        Two float64 arrays of one length, never falling, or None when there are not both good and defective pictures.

    >>> roc_curve([1, 2], [0, 1])
    (array([0., 0., 1.]), array([0., 1., 1.]))
    """
    return rank_scores(scores, labels).roc_curve(points)
