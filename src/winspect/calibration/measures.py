"""Measures of a picture's defects: what rules are about. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from winspect.calibration.defects import Box, Defects, cell_edges, label_regions


@dataclass(frozen=True)
class Measured:
    """A defect in numbers.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture, the last two exclusive.
        area: in pixels. ``length``: the longer side of the smallest rectangle around it, turned as it lies, in pixels.
        aspect: that side over the shorter one, 1 or more.
        peak: the largest value of the map in it. ``peak_xy``: the pixel where it lies.
        parts: names of the parts of the ROI in which that pixel lies.
    """

    box: Box
    area: int
    length: float
    aspect: float
    peak: float
    peak_xy: tuple[float, float]
    parts: frozenset[str] = frozenset()


def measure(defects: Defects, heat: np.ndarray, parts: Mapping[str, np.ndarray] | None = None) -> tuple[Measured, ...]:
    """Measure the defects of a picture, in the order of their boxes.

    Args:
        heat: float (rows, columns), the map on the grid of ``defects.cells``.
        parts: masks of areas of the region of interest by name, bool on the same grid.
    """
    labels, count = label_regions(defects.cells)
    xs, ys = (cell_edges(*sides) for sides in zip(defects.cells.shape[::-1], defects.size_wh, strict=True))
    measured = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        longer, shorter = smallest_rectangle(_corners(rows, columns, xs, ys))
        highest = int(heat[rows, columns].argmax())
        row, column = int(rows[highest]), int(columns[highest])
        measured.append(
            Measured(
                defects.boxes[number - 1],
                defects.areas[number - 1],
                longer,
                longer / shorter,
                float(heat[row, column]),
                (float(xs[column] + xs[column + 1]) / 2, float(ys[row] + ys[row + 1]) / 2),
                frozenset(name for name, mask in (parts or {}).items() if mask[row, column]),
            )
        )
    return tuple(measured)


def _corners(rows: np.ndarray, columns: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Corners of the outermost cells of each row, int (points, 2), x and y in pixels: all that the hull can have."""
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))  # rows ascend, and columns within each
    lasts = np.append(firsts[1:], len(rows)) - 1
    left, right = xs[columns[firsts]], xs[columns[lasts] + 1]
    top, bottom = ys[rows[firsts]], ys[rows[firsts] + 1]
    return np.stack([np.concatenate([left, right, left, right]), np.concatenate([top, top, bottom, bottom])], axis=1)


def smallest_rectangle(points: np.ndarray) -> tuple[float, float]:
    """Longer and shorter side of the rectangle of the smallest area around points.

    A side of it lies on an edge of their convex hull (Freeman and Shapira 1975): each edge is tried.

    Args:
        points: (n, 2), not all on a line.
    """
    hull = _hull(points)
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.hypot(*edges.T)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    widths, heights = (np.ptp(hull @ axis.T, axis=0) for axis in (along, across))
    best = int((widths * heights).argmin())
    return max(float(widths[best]), float(heights[best])), min(float(widths[best]), float(heights[best]))


def _hull(points: np.ndarray) -> np.ndarray:
    """The corners of the convex hull, float64 (n, 2): the monotone chain of Andrew (1979)."""
    ordered = [(int(x), int(y)) for x, y in np.unique(points, axis=0)]
    chains = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[tuple[int, int]] = []
        for x, y in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], (x, y)) <= 0:
                chain.pop()
            chain.append((x, y))
        chains += chain[:-1]
    return np.array(chains, np.float64)


def _turn(first: tuple[int, int], middle: tuple[int, int], last: tuple[int, int]) -> int:
    """Above 0 where three points turn left."""
    return (middle[0] - first[0]) * (last[1] - first[1]) - (middle[1] - first[1]) * (last[0] - first[0])
