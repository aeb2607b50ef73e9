"""Maps from the patch grid to a picture's size. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import array_namespace

from winspect.system.arrays import Array, like

_TRUNCATE = 4


@dataclass(frozen=True)
class Upsampling:
    """How a map is brought to a picture's size: bilinearly, and blurred there.

    Attributes:
        align_corners: the corners of the grid are the corners of the picture, as with torch's ``align_corners``; else
            patches are areas (half-pixel centres).
        sigma: of a Gaussian, in pixels of the picture, as ``scipy.ndimage.gaussian_filter`` has it (cut off at 4 sigma,
            edges mirrored with their own pixel); 0 for none.
        per_patch: values of a map along a patch; 1 for a map on the patch grid, more for a finer one.
    """

    align_corners: bool = False
    sigma: float = 0.0
    per_patch: float = 1.0

    def __call__(self, maps: Array, size_hw: tuple[int, int]) -> Array:
        """(batch, rows, columns) to (batch, height, width)."""
        astype = array_namespace(maps).astype
        rows, columns = (
            astype(like(self._weights(*lengths), maps), maps.dtype)
            for lengths in zip(maps.shape[1:], size_hw, strict=True)
        )
        return rows @ maps @ columns.T

    def highest(self, maps: np.ndarray, size_wh: tuple[int, int]) -> float:
        """The largest value of maps (tiles, rows, columns) at a size: of the grid itself, where nothing is blurred."""
        return float(maps.max() if self.sigma <= 0 else self(maps, size_wh[::-1]).max())

    def of_scaled_picture(self, factor: float) -> Upsampling:
        """The same, for the picture scaled by a factor."""
        return replace(self, sigma=self.sigma * factor)

    def _weights(self, length: int, count: int) -> np.ndarray:
        """How much each of ``length`` values gives to each of ``count`` new ones: (count, length)."""
        weights = _bilinear(length, count, align_corners=self.align_corners)
        # One matrix for both: the blur of every pixel would cost hundreds of times as much.
        return weights if self.sigma <= 0 else _blurred(weights, self.sigma)


BILINEAR = Upsampling()
"""Patches as areas, no blur."""


def upsample(maps: Array, size_hw: tuple[int, int]) -> Array:
    """Bilinear (torch's align_corners=False) from (batch, rows, columns) to (batch, height, width)."""
    return BILINEAR(maps, size_hw)


def _bilinear(length: int, count: int, *, align_corners: bool) -> np.ndarray:
    if align_corners:
        centres = np.arange(count) * ((length - 1) / max(count - 1, 1))
    else:
        centres = np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1)
    before = np.minimum(centres.astype(np.int64), max(length - 2, 0))
    share = centres - before
    weights = np.zeros((count, length))
    weights[np.arange(count), before] = 1 - share
    weights[np.arange(count), np.minimum(before + 1, length - 1)] += share
    return weights


def _blurred(columns: np.ndarray, sigma: float) -> np.ndarray:
    """Each column of (count, n), blurred along its length."""
    count, radius = len(columns), int(_TRUNCATE * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    total = np.zeros_like(columns)
    for step, share in zip(steps, kernel / kernel.sum(), strict=True):
        places = (np.arange(count) + step) % (2 * count)
        total += share * columns[np.minimum(places, 2 * count - 1 - places)]
    return total
