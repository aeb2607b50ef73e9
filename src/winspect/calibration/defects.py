"""Regions of a mask: a box around each, its area, and the mask at the picture's size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Defects:
    """The flagged pixels of one picture.

    Attributes:
        cells: bool (rows, columns), the mask on a grid that may be coarser than the picture.
        size_wh: width and height of the picture in pixels.
        boxes: (x0, y0, x1, y1) in pixels of each region, x1 and y1 exclusive, from top to bottom. Pixels that touch by
            a corner are one region.
        areas: flagged pixels in each box's region.
    """

    cells: np.ndarray = field(repr=False)
    size_wh: tuple[int, int]
    boxes: tuple[Box, ...]
    areas: tuple[int, ...]

    @cached_property
    def mask(self) -> np.ndarray:
        """bool (height, width), at the picture's own size. Made when first read: boxes alone stay cheap."""
        columns, rows = (
            np.diff(cell_edges(*lengths)) for lengths in zip(self.cells.shape[::-1], self.size_wh, strict=True)
        )
        return np.repeat(np.repeat(self.cells, rows, axis=0), columns, axis=1)


def cell_edges(cells: int, length: int) -> np.ndarray:
    """The first pixel of each of so many cells along a side, and the side's length."""
    return np.ceil(np.arange(cells + 1) * (length / cells) - 0.5).astype(int)


def regions_of(cells: np.ndarray, size_wh: tuple[int, int] | None = None) -> Defects:
    """The connected regions of a mask.

    Args:
        cells: bool (rows, columns), on a grid that may be coarser than the picture.
        size_wh: width and height of the picture in pixels, no side below the grid's; None for the grid's own.
    """
    size_wh = size_wh or (cells.shape[1], cells.shape[0])
    x, y = (cell_edges(*lengths) for lengths in zip(cells.shape[::-1], size_wh, strict=True))
    labels, count = label_regions(cells)
    rows, columns = np.nonzero(cells)
    number = labels[rows, columns] - 1
    first, last = np.full((2, count), max(cells.shape)), np.zeros((2, count), int)
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(first[axis], number, places)
        np.maximum.at(last[axis], number, places + 1)
    edges = np.stack([x[first[0]], y[first[1]], x[last[0]], y[last[1]]], axis=1)
    areas = np.bincount(number, np.diff(y)[rows] * np.diff(x)[columns], count)
    boxes = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in edges.tolist())
    return Defects(cells, size_wh, boxes, tuple(int(area) for area in areas))


def _labels_by_runs(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """As :func:`label_regions`, without scipy."""
    labels = np.zeros(mask.shape, np.int32)
    rows, starts, stops, roots = _runs(mask)
    regions, numbers = np.unique(roots, return_inverse=True)
    for row, start, stop, number in zip(rows, starts, stops, numbers, strict=True):
        labels[row, start:stop] = number + 1
    return labels, len(regions)


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of flagged pixels: row, first column, last column (exclusive), and the first run of the run's region.

    Runs of neighbouring rows that touch, corners included, are joined.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    first_of_row = np.searchsorted(rows, np.arange(len(mask) + 1))
    for row in range(1, len(mask)):
        above, own = int(first_of_row[row - 1]), int(first_of_row[row])
        last_above, last_own = own, int(first_of_row[row + 1])
        while above < last_above and own < last_own:
            if starts[above] <= stops[own] and starts[own] <= stops[above]:  # stops are exclusive: a corner touches
                one, other = sorted((root(above), root(own)))
                parents[other] = one  # the first run of a region stays its root: regions are in order
            above, own = (above + 1, own) if stops[above] < stops[own] else (above, own + 1)
    return rows, starts, stops, np.array([root(run) for run in range(len(rows))], int)


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each pixel's region, from 1, or 0; and how many regions there are."""
    try:
        from scipy import ndimage
    except ModuleNotFoundError:
        return _labels_by_runs(mask)
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    return labels, int(count)
