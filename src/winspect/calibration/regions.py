"""From an anomaly map to regions an operator can use: where a defect is, and how far it reaches.

A threshold alone draws useless shapes: just above what good pictures reach, a strong defect is a blob of twice its size
and a weak one a few pixels of its tip. So the two questions are asked apart.

*Is there something?* A region has a peak above the pixel threshold, which at most ``max_false_alarms`` of good pictures
reach anywhere (:mod:`winspect.calibration.conformal`). However regions are grown, merged or dropped afterwards, at most
that share of good pictures shows any. In a picture judged anomalous the highest peak is a region too, whatever its
height: its verdict has said that there is something. ``review`` counts as anomalous here.

What lies lower than the region of the picture's highest peak reaches is background beside it, and no region.

*How far does it reach?* Down to :data:`REACH` of the way from the picture's median to the region's own peak, in log
odds. This follows the peak, not the threshold: it grows neither with how strong a defect is nor with how few good
pictures were calibrated on.

Then fragments nearer than a patch are closed into one region, shoulders of a region are part of it, and regions smaller
than a tenth of a patch, which are tips of something else, are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from winspect.calibration.defects import Defects, label_regions, regions_of
from winspect.errors import SettingsError
from winspect.methods.result import Result, log_scores, shrunk

REACH = 0.7
"""Chosen on generated products of families that the bundled model was not trained on (benchmarks/boxes.py): 0.65 to
0.75 hit about as many defects; 0.5 draws blobs, 0.85 tips."""

SAMPLES = 15
"""Places of a map that are looked at along a patch: more adds nothing to what is interpolated between patches."""

_LEAST_PATCH = 0.1  # of a patch's area; a single hot patch draws a region of a fifth of it
_MOST = 20
_SMALLEST = 1e-6

Pictures = Literal["anomalous", "all"]
Place = tuple[int, int]


@dataclass(frozen=True)
class RegionRule:
    """Which regions of a picture are reported.

    Attributes:
        pixel_threshold: a region has a value above it; None for the region of the highest value alone.
        min_area: in pixels of the picture; smaller regions are dropped, but for that of the highest value in a picture
            judged anomalous or ``review``. None for a tenth of a patch.
        pictures: ``anomalous``: a picture judged normal has no regions; ``all``: it has those above the threshold.

    Raises:
        SettingsError: a value out of range.
    """

    pixel_threshold: float | None = None
    min_area: float | None = None
    pictures: Pictures = "anomalous"

    def __post_init__(self) -> None:
        if self.min_area is not None and not 0 <= self.min_area < math.inf:
            raise SettingsError(f"min_area: got {self.min_area}, need a number of pixels, such as 50")

    def find(
        self, result: Result, verdict: str | None, areas: Sequence[tuple[np.ndarray, float]] = ()
    ) -> Defects | None:
        """The regions of a result; None where it has no map.

        Args:
            verdict: on the picture; None where nothing decides.
            areas: masks, bool (height, width) of :func:`working_size`, with a threshold of their own each: what lies
                highest in one and above that is a region in any picture, however small.
        """
        if result.tile_maps is None or result.size_wh is None:
            return None
        small = shrunk(result, working_size(result))
        if verdict == "normal" and self.pictures != "all" and not areas:
            width, height = working_size(result)
            return regions_of(np.zeros((height, width), bool), result.size_wh)
        flagged = verdict in ("review", "anomalous")
        searched = flagged or verdict is None or self.pictures == "all"
        return regions_of(self._cells(small, result, areas, is_anomalous=flagged, is_searched=searched), result.size_wh)

    def _cells(
        self,
        small: Result,
        result: Result,
        areas: Sequence[tuple[np.ndarray, float]],
        *,
        is_anomalous: bool,
        is_searched: bool,
    ) -> np.ndarray:
        """The places of all regions: bool (rows, columns) of the smaller picture."""
        heat = _map(small)
        above = np.zeros(heat.shape, bool)
        if self.pixel_threshold is not None and is_searched:
            above = heat > self.pixel_threshold
        in_areas = [each for mask, threshold in areas if (each := mask & (heat > threshold)).any()]
        cells = np.zeros(heat.shape, bool)
        if not (is_anomalous or above.any() or in_areas):
            return cells
        odds = _map(replace(small, tile_maps=_logs(small)))
        if small.inside is not None:
            odds = np.where(small.inside, odds, -np.inf)
        highest = _highest(odds)
        for place in _peaks(odds, above & _beside(odds, highest), highest if is_anomalous else None):
            region = _around(odds, place, _patch(small))
            if (_grown(region, 1, 1) & cells).any():  # a shoulder of a region that is there
                continue
            if region.sum() >= self._least(small, result) or (is_anomalous and place == highest):
                cells |= region
        for each in in_areas:
            cells |= _around(odds, _highest(np.where(each, odds, -np.inf)), _patch(small))
        return cells

    def _least(self, small: Result, result: Result) -> float:
        """The area of the smallest region that counts, in pixels of the smaller picture."""
        assert small.size_wh is not None and result.size_wh is not None
        least = _LEAST_PATCH * math.prod(_patch(result)) if self.min_area is None else self.min_area
        return least * math.prod(small.size_wh) / math.prod(result.size_wh)


def working_size(result: Result) -> tuple[int, int]:
    """Width and height at which regions are looked for: a few samples a patch, however large the picture is."""
    assert result.size_wh is not None  # where there are maps there is a size
    width, height = (
        max(1, round(length * min(1.0, SAMPLES / patch)))
        for length, patch in zip(result.size_wh, _patch(result), strict=True)
    )
    return width, height


def map_peak(result: Result) -> float:
    """The largest value of a result's map, where :class:`RegionRule` looks at it."""
    return float(_map(shrunk(result, working_size(result))).max())


def _map(result: Result) -> np.ndarray:
    assert result.anomaly_map is not None  # the caller has seen its tile maps
    return result.anomaly_map


def _patch(result: Result) -> tuple[float, float]:
    """Width and height of a patch in pixels, also where the map is finer than the patch grid."""
    assert result.tile_maps is not None
    x0, y0, x1, y1 = result.tile_boxes[0]
    rows, columns = (length / result.upsampling.per_patch for length in result.tile_maps.shape[1:])
    return (x1 - x0) / columns, (y1 - y0) / rows


def _logs(result: Result) -> np.ndarray:
    assert result.tile_maps is not None
    return log_scores(result.tile_maps, result.score_range, lowest=_SMALLEST, highest=1 - _SMALLEST)


def _highest(odds: np.ndarray) -> Place:
    row, column = divmod(int(odds.argmax()), odds.shape[1])
    return row, column


def _peaks(odds: np.ndarray, above: np.ndarray, highest: Place | None) -> Iterator[Place]:
    """The highest place of each connected area above the threshold, the highest first; and the picture's highest."""
    if highest is not None:
        yield highest
    labels, _ = label_regions(above)
    places = np.flatnonzero(labels)
    order = places[np.argsort(-odds.ravel()[places], kind="stable")]
    _, first = np.unique(labels.ravel()[order], return_index=True)
    for place in order[np.sort(first)][:_MOST]:
        row, column = divmod(int(place), odds.shape[1])
        if (row, column) != highest:
            yield row, column


def _around(odds: np.ndarray, place: Place, patch_wh: tuple[float, float]) -> np.ndarray:
    """The region of a peak: bool (rows, columns)."""
    reach = [round(side / 2) for side in patch_wh]
    labels, _ = label_regions(_closed(_beside(odds, place), *reach))
    return labels == labels[place]


def _beside(odds: np.ndarray, place: Place) -> np.ndarray:
    """Everything that lies as high as the region of a peak reaches down."""
    base = min(float(np.median(odds[np.isfinite(odds)])), float(odds[place]))  # outside of a region of interest: none
    return odds >= base + REACH * (odds[place] - base)


def _closed(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """Gaps of up to twice so many places filled. Nothing grows out of the picture."""
    padded = np.pad(mask, ((y, y), (x, x)))
    closed = ~_grown(~_grown(padded, x, y), x, y)
    return closed[y : y + mask.shape[0], x : x + mask.shape[1]] | mask


def _grown(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """Every place within so many columns and rows of the mask."""
    for axis, steps in ((1, x), (0, y)):
        grown = mask.copy()
        for step in range(1, steps + 1):
            ahead, behind = ((slice(None),) * axis + (part,) for part in (slice(step, None), slice(None, -step)))
            grown[ahead] |= mask[behind]
            grown[behind] |= mask[ahead]
        mask = grown
    return mask
