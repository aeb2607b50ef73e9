"""Which pixels of a tile, and which patches of a grid on it, lie inside of a region of interest. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class TileInside:
    """The pixels of a tile, as the model sees it, that lie inside.

    Attributes:
        pixels: bool (height, width), read-only.
        gaps: pixels that the picture does not show, after alignment, bool (height, width); None for none.
    """

    def __init__(self, pixels: np.ndarray, gaps: np.ndarray | None = None) -> None:
        self.pixels, self.gaps = _read_only(pixels), None if gaps is None else _read_only(gaps)
        self._grids: dict[tuple[int, int], np.ndarray] = {}

    def on(self, grid_hw: tuple[int, int]) -> np.ndarray:
        """Cells of a grid over the tile with any pixel inside and without gaps: bool (rows, columns), read-only.

        Where gaps leave none, cells with any pixel inside that is no gap.
        """
        if grid_hw not in self._grids:
            self._grids[grid_hw] = _read_only(self._cells(grid_hw))
        return self._grids[grid_hw]

    def _cells(self, grid_hw: tuple[int, int]) -> np.ndarray:
        cells = any_of_cells(self.pixels, grid_hw)
        if self.gaps is None:
            return cells
        whole = cells & ~any_of_cells(self.gaps, grid_hw)
        return whole if whole.any() else any_of_cells(self.pixels & ~self.gaps, grid_hw)

    def __reduce__(self) -> tuple[type, tuple[np.ndarray, np.ndarray | None]]:
        return type(self), (self.pixels, self.gaps)


Inside = tuple[TileInside, ...]
"""Of tiles, in order."""


def on_grid(inside: Sequence[TileInside] | None, grid_hw: tuple[int, int]) -> np.ndarray | None:
    """Cells of the tiles' grids with any pixel inside: bool (tiles, rows, columns); None where all of all tiles are."""
    return None if inside is None else np.stack([tile.on(grid_hw) for tile in inside])


def any_of_cells(pixels: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """Cells of a grid over a mask in which any pixel is set, also one that a cell covers in part.

    Args:
        pixels: bool (height, width).
        grid_hw: rows and columns; may be more than there are pixels.

    Returns:
        bool (rows, columns).
    """
    for axis, (length, cells) in enumerate(zip(pixels.shape, grid_hw, strict=True)):
        if length == cells:
            continue
        first = np.arange(cells) * length // cells
        last = -(-np.arange(1, cells + 1) * length // cells)
        sums = np.cumsum(pixels, axis=axis, dtype=np.int32)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        pixels = sums.take(last, axis) > sums.take(first, axis)
    return pixels


def _read_only(array: np.ndarray) -> np.ndarray:
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
