"""Windows of the patch grid: which patches each holds, and how window scores come back to patches.

Arrays only. Source: WinCLIP (arXiv 2303.14814), section 4.2: windows of s x s patches, and the harmonic mean
(its equation 4) of the scores of all windows that cover a patch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from array_api_compat import array_namespace

from winspect.errors import SettingsError
from winspect.system.arrays import Array, like


def _starts(length: int, scale: int, stride: int) -> np.ndarray:
    """First patches of the windows along one axis; the last window is flush with the far edge."""
    return np.unique([*range(0, length - scale + 1, stride), length - scale]).astype(np.int64)


@lru_cache(maxsize=64)
def window_indices(grid_hw: tuple[int, int], scale: int, stride: int = 1) -> np.ndarray:
    """Patch numbers of every window, int64 of shape (windows, scale * scale), row-major in grid and window; read-only.

    Patches count from 0 in row-major order, the class token not among them. A 15 x 15 grid has
    196 windows of scale 2 and 169 of scale 3 at stride 1.

    Raises:
        SettingsError: the scale does not fit the grid, or the stride would leave patches uncovered.
    """
    height, width = grid_hw
    if not 1 <= scale <= min(height, width):
        raise SettingsError(f"scale {scale} does not fit a grid of {height}x{width} patches; need 1 to {min(grid_hw)}")
    if not 1 <= stride <= scale:
        raise SettingsError(f"stride {stride} at scale {scale}: need 1 to {scale}, so that every patch is covered")
    within = np.arange(scale)
    rows = _starts(height, scale, stride)[:, None, None, None] + within[:, None]
    columns = _starts(width, scale, stride)[None, :, None, None] + within
    return _read_only((rows * width + columns).reshape(-1, scale * scale))


@lru_cache(maxsize=64)
def covering_windows(grid_hw: tuple[int, int], scale: int, stride: int = 1) -> np.ndarray:
    """Windows that cover each patch, int64 of shape (patches, most windows that cover one patch); read-only.

    Rows of patches near an edge are filled up with the number of windows, one past the last.
    """
    indices = window_indices(grid_hw, scale, stride)
    windows, patches = len(indices), grid_hw[0] * grid_hw[1]
    covered = np.zeros((patches, windows), bool)
    covered[indices.ravel(), np.arange(windows).repeat(indices.shape[1])] = True
    numbers = np.sort(np.where(covered, np.arange(windows), windows), axis=1)
    return _read_only(np.ascontiguousarray(numbers[:, : covered.sum(axis=1).max()]))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False  # one array serves all callers
    return array


def harmonic_mean(values: Array, axis: int) -> Array:
    """Harmonic mean along an axis; values >= 0. Where a value is 0 the mean is 0, never NaN."""
    xp = array_namespace(values)
    with np.errstate(divide="ignore", over="ignore"):
        return values.shape[axis] / xp.sum(1 / values, axis=axis)


def spread_to_patches(window_scores: Array, grid_hw: tuple[int, int], scale: int, stride: int = 1) -> Array:
    """Each patch's harmonic mean of the scores of all windows that cover it.

    Args:
        window_scores: float (batch, windows), >= 0, windows in the order of :func:`window_indices`.
        grid_hw: rows and columns of the patch grid.

    Returns:
        float (batch, rows, columns), same dtype. A patch covered by a window of score 0 gets 0.
    """
    xp = array_namespace(window_scores)
    covering = covering_windows(grid_hw, scale, stride)
    windows = len(window_indices(grid_hw, scale, stride))
    if window_scores.ndim != 2 or window_scores.shape[1] != windows:
        raise ValueError(f"got window scores of shape {tuple(window_scores.shape)}, need (batch, {windows})")
    batch = window_scores.shape[0]
    # The column past the last window stands for "no window": it adds nothing to a sum of reciprocals.
    nothing = xp.zeros_like(window_scores[:, :1])
    with np.errstate(divide="ignore", over="ignore"):
        reciprocals = xp.concat([1 / window_scores, nothing], axis=1)
    terms = xp.take(reciprocals, like(covering.ravel(), window_scores), axis=1)
    sums = xp.sum(xp.reshape(terms, (batch, *covering.shape)), axis=2)
    counts = xp.astype(like((covering < windows).sum(axis=1), window_scores), window_scores.dtype)
    return xp.reshape(counts / sums, (batch, *grid_hw))
