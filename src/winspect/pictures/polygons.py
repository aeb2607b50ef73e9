"""Polygons on a picture's pixels: what is wrong with one, and which pixels lie inside. NumPy only."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Points = tuple[tuple[float, float], ...]

MOST_POINTS = 2000
"""Points of a polygon at most: every pair of its edges is compared."""
_FEWEST = 3
_SLACK = 0.5  # pixels; annotation tools round a point on the edge to either side of it


def fault_of(points: Points, size_wh: tuple[int, int]) -> str | None:
    """What is wrong with a polygon of (x, y) in pixels of a picture of that size, and the fix; None for nothing."""
    count = len({*points})
    if count < _FEWEST:
        return f"it has {count} different points, need {_FEWEST} or more; draw it again"
    if len(points) > MOST_POINTS:
        return f"it has {len(points)} points, need at most {MOST_POINTS}; simplify it, or give a mask picture"
    width, height = size_wh
    for x, y in points:
        if not (-_SLACK <= x <= width + _SLACK and -_SLACK <= y <= height + _SLACK):
            where = f"its point ({x:g}, {y:g}) lies outside the picture of {width}x{height} pixels"
            return f"{where}; draw it on a picture of the line"
    crossing = _crossing(np.array(points))
    if crossing is not None:
        return f"its edges from point {crossing[0] + 1} and point {crossing[1] + 1} cross; draw it without crossings"
    if not inside(points, size_wh).any():
        return "it covers no pixel; draw it larger"
    return None


def inside(points: Points, size_wh: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie inside a polygon: bool (height, width).

    The centre of pixel (column, row) is (column + 0.5, row + 0.5). An edge through a centre counts as left of it, and
    its upper end counts, its lower end does not, so that polygons that share an edge share no pixel.
    """
    width, height = size_wh
    turns = np.zeros((height, width + 1), np.int32)
    corners = [*points, points[0]]
    for edge in pairwise(corners):
        (x0, y0), (x1, y1) = sorted(edge, key=lambda corner: corner[1])
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (y0, y1))
        rows = np.arange(first, last)
        if len(rows):
            crossed = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            turns[rows, np.clip(np.ceil(crossed - 0.5), 0, width).astype(int)] += 1
    return (np.cumsum(turns[:, :width], axis=1) % 2).astype(bool)


def _crossing(corners: np.ndarray) -> tuple[int, int] | None:
    """Numbers of two edges, not neighbours, that cross or touch; None where there are none."""
    ends = np.roll(corners, -1, axis=0)
    count = len(corners)

    def side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
        turn = end - start
        return np.sign(turn[..., 0] * (point - start)[..., 1] - turn[..., 1] * (point - start)[..., 0])

    a, b, c, d = corners[:, None], ends[:, None], corners[None], ends[None]
    apart = np.zeros((count, count), bool)
    for axis in (0, 1):
        low, high = np.minimum(corners, ends)[:, axis], np.maximum(corners, ends)[:, axis]
        apart |= (high[:, None] < low[None]) | (high[None] < low[:, None])
    crosses = (side(a, b, c) * side(a, b, d) <= 0) & (side(c, d, a) * side(c, d, b) <= 0) & ~apart
    first, second = np.nonzero(np.triu(crosses, 2))
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        if (other + 1) % count != one:  # the last edge ends where the first begins
            return one, other
    return None
