"""Figures of merit: plain functions from numbers to a number, None where a figure is undefined.

All are exact and depend on the order of the scores alone. `rank_scores` and `rank_pixels` sort once and give a
`Ranking`, from which any number of figures and curves follow at no further sort.
"""

from winspect.metrics.image import aupr, auroc, f1_max, image_metrics, rank_scores, roc_curve
from winspect.metrics.pixel import (
    aupro,
    pixel_aupr,
    pixel_auroc,
    pixel_f1_max,
    pixel_metrics,
    pixel_roc_curve,
    pro_curve,
    rank_pixels,
)
from winspect.metrics.ranking import Ranking

__all__ = [
    "Ranking",
    "aupr",
    "aupro",
    "auroc",
    "f1_max",
    "image_metrics",
    "pixel_aupr",
    "pixel_auroc",
    "pixel_f1_max",
    "pixel_metrics",
    "pixel_roc_curve",
    "pro_curve",
    "rank_pixels",
    "rank_scores",
    "roc_curve",
]
