"""Figures of merit of anomaly maps against masks of the defects."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from winspect.errors import UsageError
from winspect.metrics.ranking import Curve, Ranking, rank

Maps = Iterable[ArrayLike]
Masks = Iterable[ArrayLike] | None

# Pixels that touch by a corner belong to one region.
EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def rank_pixels(maps: Maps, masks: Masks) -> Ranking:
    """Sort the pixels of all pictures once, for several figures or a curve.

    The memory it takes beside its input is one copy of the good pixels, sorted as float32 (float64 if a map is).

    Args:
        maps: one finite (H, W) array of numbers a picture, or all as (N, H, W); higher is more anomalous. They are
            only ranked, so any scale will do, but one scale for all pictures. Sizes may differ between pictures.
        masks: one (H, W) array of booleans or whole numbers a picture, of its map's size; anything above 0 is
            defect. A good picture, whose pixels all count as good, has a mask of zeros. None if the data set has no
            masks: every figure is then undefined.

    Raises:
        UsageError: (a ValueError) there are more maps than masks or fewer, a map or mask is not two-dimensional, their
            sizes differ, a map holds something that is not a finite number, or a mask holds fractions.
    """
    if masks is None:
        return rank(np.empty(0), np.empty(0))
    pictures = _pictures(maps, masks)
    heats = [heat for heat, _ in pictures]
    dtype = np.result_type(np.float32, *(heat.dtype for heat in heats))
    good = np.empty(sum(heat.size for heat in heats), dtype)
    n_good, n_regions = 0, 0
    defective, shares = [np.empty(0, dtype)], [np.empty(0)]
    for heat, mask in pictures:
        defect = mask > 0
        normal = heat[~defect]
        good[n_good : n_good + len(normal)] = normal
        n_good += len(normal)
        if len(normal) < heat.size:
            regions, count = ndimage.label(defect, EIGHT_NEIGHBOURS)
            region_of_pixel = regions[defect]
            defective.append(heat[defect].astype(dtype))
            shares.append(1 / np.bincount(region_of_pixel)[region_of_pixel])
            n_regions += count
    return rank(good[:n_good], np.concatenate(defective), np.concatenate(shares) / max(n_regions, 1))


def pixel_auroc(maps: Maps, masks: Masks) -> float | None:
    """Area under the ROC curve over all pixels: the chance that a defective pixel scores above a good one.

    Exact, ties counting half. Large defects weigh most, and since good pixels abound, a high figure is easily had.
    Arguments and errors are those of `rank_pixels`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pixels.

    >>> pixel_auroc([[[0.9, 0.4], [0.5, 0.1]]], [[[1, 1], [0, 0]]])
    0.75
    """
    return rank_pixels(maps, masks).auroc()


def pixel_aupr(maps: Maps, masks: Masks) -> float | None:
    """Average precision over all pixels, with no interpolation (scikit-learn's definition).

    Arguments and errors are those of `rank_pixels`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pixels.

    >>> round(pixel_aupr([[[0.9, 0.4], [0.5, 0.1]]], [[[1, 1], [0, 0]]]), 4)
    0.8333
    """
    return rank_pixels(maps, masks).aupr()


def pixel_f1_max(maps: Maps, masks: Masks) -> float | None:
    """The largest F1 score over all pixels that one threshold for all pictures gives.

    Arguments and errors are those of `rank_pixels`.

    Returns:
        0 to 1, higher is better, or None when there are not both good and defective pixels.

    >>> pixel_f1_max([[[0.9, 0.4], [0.5, 0.1]]], [[[1, 1], [0, 0]]])
    0.8
    """
    return rank_pixels(maps, masks).f1_max()


def aupro(maps: Maps, masks: Masks, *, max_fpr: float = 0.3) -> float | None:
    """Area under the per-region overlap curve up to a false positive rate of `max_fpr`, divided by `max_fpr`.

    At a threshold, the overlap is the fraction of a region's pixels that score at least as high, averaged over all
    regions of all pictures, so that small defects weigh as much as large ones. The false positive rate is taken over
    the good pixels of all pictures, good pictures among them. Exact: every distinct score is a threshold, the points
    of the curve are joined by straight lines, and so is the end at `max_fpr`. A region is what hangs together by
    sides or corners. Source: Bergmann et al., "Uninformed Students", CVPR 2020, and "The MVTec Anomaly Detection
    Dataset", IJCV 2021.

    Arguments and errors are those of `rank_pixels`, and

    Args:
        max_fpr: above 0, at most 1 (otherwise SettingsError); 0.3 in the literature.

    Returns:
        0 to 1, higher is better; a constant map gives max_fpr / 2. None when there are no masks, no defective or no
        good pixels.

    >>> aupro([[[0.9, 0.4, 0.5, 0.1, 0.8]]], [[[1, 0, 0, 0, 1]]])
    1.0
    >>> aupro([[[0.9, 0.4, 0.5, 0.1, 0.3]]], [[[1, 0, 0, 0, 1]]])
    0.5
    """
    return rank_pixels(maps, masks).aupro(max_fpr)


def pixel_metrics(maps: Maps, masks: Masks, *, max_fpr: float = 0.3) -> dict[str, float | None]:
    """All figures of anomaly maps from one sort: `pixel_auroc`, `pixel_aupr`, `pixel_aupro` and `pixel_f1_max`.

    Arguments and errors are those of `aupro`; each figure is as in the function of its name.
    """
    ranking = rank_pixels(maps, masks)
    return {
        "pixel_auroc": ranking.auroc(),
        "pixel_aupr": ranking.aupr(),
        "pixel_aupro": ranking.aupro(max_fpr),
        "pixel_f1_max": ranking.f1_max(),
    }


def pixel_roc_curve(maps: Maps, masks: Masks, *, points: int = 200) -> Curve | None:
    """Points of the ROC curve over all pixels, for drawing: as `roc_curve`, with the arguments of `rank_pixels`."""
    return rank_pixels(maps, masks).roc_curve(points)


def pro_curve(maps: Maps, masks: Masks, *, max_fpr: float = 0.3, points: int = 200) -> Curve | None:
    """Points of the curve under which `aupro` takes the area: false positive rate and per-region overlap.

    Arguments and errors are those of `aupro`, and `points`, the most points to keep: those kept lie on the exact curve,
    evenly spaced along it. The last is at `max_fpr`.

    Returns:
        Two float64 arrays of one length, never falling, or None where `aupro` is.

    >>> fpr, overlap = pro_curve([[[0.9, 0.4, 0.5, 0.1, 0.3]]], [[[1, 0, 0, 0, 1]]])
    >>> overlap.tolist()
    [0.0, 0.5, 0.5]
    """
    return rank_pixels(maps, masks).pro_curve(max_fpr, points)


def _pictures(maps: Maps, masks: Iterable[ArrayLike]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each map with its mask, both checked."""
    heats, truths = [np.asarray(heat) for heat in maps], [np.asarray(mask) for mask in masks]
    if len(heats) != len(truths):
        raise UsageError(f"got {len(heats)} maps and {len(truths)} masks; a good picture needs a mask too, of zeros")
    pictures = list(zip(heats, truths, strict=True))
    for index, (heat, mask) in enumerate(pictures):
        _check(index, heat, mask)
    return pictures


def _check(index: int, heat: np.ndarray, mask: np.ndarray) -> None:
    if heat.ndim != 2 or heat.dtype.kind not in "fiub":
        raise UsageError(f"map {index} is {heat.dtype} of shape {heat.shape}; need numbers of shape (H, W)")
    if mask.dtype.kind not in "iub":
        raise UsageError(f"mask {index} is {mask.dtype}; need booleans or whole numbers (zeros for a good picture)")
    if mask.shape != heat.shape:
        raise UsageError(f"mask {index} has shape {mask.shape}, its map {heat.shape}; bring both to one size first")
    if not np.isfinite(heat).all():
        raise UsageError(f"map {index} holds NaN or infinity; a score that is not finite has no rank")
