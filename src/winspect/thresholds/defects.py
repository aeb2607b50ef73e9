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
    labels, count = label_regions(mask)
    if not count:
        return Defects(mask, (), ())
    from scipy import ndimage

    boxes = tuple(
        (columns.start, rows.start, columns.stop, rows.stop) for rows, columns in ndimage.find_objects(labels)
    )
    areas = np.bincount(labels[mask], minlength=count + 1)[1:]
    return Defects(mask, boxes, tuple(int(area) for area in areas))


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of each pixel's region, from 1, or 0; and how many regions there are."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    return labels, int(count)
