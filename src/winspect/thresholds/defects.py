"""Where a map lies above a threshold: the mask, and a box around each connected region."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Defects:
    """The flagged pixels of one picture.

    Attributes:
        mask: bool (height, width), at the picture's own size.
        boxes: (x0, y0, x1, y1) in pixels of each region, x1 and y1 exclusive, from top to bottom. Pixels that touch by
            a corner are one region.
        areas: flagged pixels in each box's region.
    """

    mask: np.ndarray = field(repr=False)
    boxes: tuple[Box, ...]
    areas: tuple[int, ...]


def find_defects(anomaly_map: np.ndarray, threshold: float) -> Defects:
    """The pixels that lie above a threshold.

    Args:
        anomaly_map: (height, width), 1 is most anomalous.
    """
    return regions_of(anomaly_map > threshold)


def regions_of(mask: np.ndarray) -> Defects:
    """The connected regions of a mask, bool (height, width)."""
    if not mask.any():
        return Defects(mask, (), ())
    try:
        from scipy import ndimage
    except ModuleNotFoundError:
        return Defects(mask, *_regions_by_runs(mask))
    labels, count = label_regions(mask)
    boxes = tuple(
        (columns.start, rows.start, columns.stop, rows.stop) for rows, columns in ndimage.find_objects(labels)
    )
    areas = np.bincount(labels[mask], minlength=count + 1)[1:]
    return Defects(mask, boxes, tuple(int(area) for area in areas))


def _regions_by_runs(mask: np.ndarray) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    """Boxes and areas without scipy, for edge bundles: SciPy alone would be a third of such an installation."""
    rows, starts, stops, roots = _runs(mask)
    boxes, areas = [], []
    for region in np.unique(roots):
        first, last, row = (own[roots == region] for own in (starts, stops, rows))
        boxes.append((int(first.min()), int(row.min()), int(last.max()), int(row.max()) + 1))
        areas.append(int((last - first).sum()))
    return tuple(boxes), tuple(areas)


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
