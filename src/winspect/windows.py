"""Windows of the patch grid: which patches each holds, and how window scores come back to patches.

Tensors only. Source: WinCLIP (arXiv 2303.14814), section 4.2: windows of s x s patches, and the harmonic mean
(its equation 4) of the scores of all windows that cover a patch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from winspect.errors import SettingsError


def _starts(length: int, scale: int, stride: int) -> Tensor:
    """First patches of the windows along one axis; the last window is flush with the far edge."""
    starts = torch.arange(0, length - scale + 1, stride)
    return starts if int(starts[-1]) == length - scale else torch.cat([starts, torch.tensor([length - scale])])


@lru_cache(maxsize=64)
def window_indices(grid_hw: tuple[int, int], scale: int, stride: int = 1) -> Tensor:
    """Patch numbers of every window, int64 of shape (windows, scale * scale), row-major in grid and window.

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
    within = torch.arange(scale)
    rows = _starts(height, scale, stride)[:, None, None, None] + within[:, None]
    columns = _starts(width, scale, stride)[None, :, None, None] + within
    return (rows * width + columns).reshape(-1, scale * scale)


@lru_cache(maxsize=64)
def covering_windows(grid_hw: tuple[int, int], scale: int, stride: int = 1) -> Tensor:
    """Windows that cover each patch, int64 of shape (patches, most windows that cover one patch).

    Rows of patches near an edge are filled up with the number of windows, one past the last.
    """
    indices = window_indices(grid_hw, scale, stride)
    windows, patches = len(indices), grid_hw[0] * grid_hw[1]
    covered = torch.zeros(patches, windows, dtype=torch.bool)
    covered[indices.flatten(), torch.arange(windows).repeat_interleave(indices.shape[1])] = True
    numbers = torch.where(covered, torch.arange(windows), windows).sort(dim=1).values
    return numbers[:, : int(covered.sum(dim=1).max())]


def harmonic_mean(values: Tensor, dim: int) -> Tensor:
    """Harmonic mean along ``dim``; values >= 0. Where a value is 0 the mean is 0, never NaN."""
    return values.shape[dim] / values.reciprocal().sum(dim=dim)


def spread_to_patches(window_scores: Tensor, grid_hw: tuple[int, int], scale: int, stride: int = 1) -> Tensor:
    """Each patch's harmonic mean of the scores of all windows that cover it.

    Args:
        window_scores: float (batch, windows), >= 0, windows in the order of :func:`window_indices`.
        grid_hw: rows and columns of the patch grid.

    Returns:
        float (batch, rows, columns), same dtype. A patch covered by a window of score 0 gets 0.
    """
    covering = covering_windows(grid_hw, scale, stride).to(window_scores.device)
    windows = len(window_indices(grid_hw, scale, stride))
    if window_scores.ndim != 2 or window_scores.shape[1] != windows:
        raise ValueError(f"got window scores of shape {tuple(window_scores.shape)}, need (batch, {windows})")
    # The column past the last window stands for "no window": it adds nothing to a sum of reciprocals.
    reciprocals = torch.nn.functional.pad(window_scores.reciprocal(), (0, 1))
    counts = (covering < windows).sum(dim=1)
    return (counts / reciprocals[:, covering].sum(dim=2)).reshape(-1, *grid_hw)
