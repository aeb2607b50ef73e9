"""Areas of a region of interest as verdicts need them: where they lie in a picture, and thresholds of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from winspect.calibration.regions import working_size
from winspect.methods.result import shrunk
from winspect.pictures.polygons import inside

if TYPE_CHECKING:
    from winspect.methods.result import Result
    from winspect.pictures.roi import Area, Roi


@dataclass(frozen=True)
class AreaLevel:
    """A threshold of an area's own.

    Attributes:
        name: of the area. ``threshold``: values of the map above it are defects there.
    """

    name: str
    threshold: float


def area_names(roi: Roi | None) -> list[str]:
    """Names of the areas that are looked at, each once; one without a name that has a threshold is ``area 2``."""
    return [] if roi is None else list(dict.fromkeys(_named(roi)[number] for number in sorted(_named(roi))))


def _named(roi: Roi) -> dict[int, str]:
    """Names of areas by their places in the list."""
    return {
        number: area.name or f"area {number + 1}"
        for number, area in enumerate(roi.areas)
        if not area.exclude and (area.name or area.threshold is not None)
    }


def chosen_levels(roi: Roi | None) -> list[AreaLevel]:
    """Thresholds that somebody wrote beside areas; of several areas of one name the lowest."""
    found: dict[str, float] = {}
    for number, name in ({} if roi is None else _named(roi)).items():
        threshold = roi.areas[number].threshold if roi is not None else None
        if threshold is not None:
            found[name] = min(threshold, found.get(name, threshold))
    return [AreaLevel(*entry) for entry in found.items()]


def with_levels(roi: Roi | None, levels: Sequence[AreaLevel]) -> Roi | None:
    """The same region of interest with thresholds written beside its areas; None without areas that matter."""
    if roi is None or not _named(roi):
        return None
    found = {level.name: level.threshold for level in sorted(levels, key=lambda level: -level.threshold)}
    names = _named(roi)
    return replace(
        roi,
        areas=tuple(
            replace(area, threshold=found[names[number]]) if names.get(number) in found else area
            for number, area in enumerate(roi.areas)
        ),
    )


def area_masks(roi: Roi | None, small: Result) -> dict[str, np.ndarray]:
    """Where the areas lie: bool (height, width) by name, in the picture's own coordinates at the size of a result.

    Args:
        small: a result of a picture that was registered or not, at any size: see :func:`shrunk`.
    """
    masks: dict[str, np.ndarray] = {}
    if roi is None or small.size_wh is None:
        return masks
    for number, name in _named(roi).items():
        mask = _scaled(roi.areas[number], roi.size_wh, small.size_wh)
        if small.alignment is not None:
            mask = small.alignment.back(mask, outside=0)
        masks[name] = masks[name] | mask if name in masks else mask
    return masks


def _scaled(area: Area, drawn_wh: tuple[int, int], size_wh: tuple[int, int]) -> np.ndarray:
    """Pixels of a picture of another size that an area covers."""
    x, y = (new / old for new, old in zip(size_wh, drawn_wh, strict=True))
    return inside(tuple((px * x, py * y) for px, py in area.polygon), size_wh)


def area_peaks(result: Result) -> dict[str, float]:
    """The largest value of the map in each named area, by name, where verdicts look at it; 0 where none of it shows."""
    if result.roi is None or result.tile_maps is None:
        return {}
    small = shrunk(result, working_size(result))
    return peaks_of(small.anomaly_map, area_masks(result.roi, small))


def peaks_of(heat: np.ndarray | None, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest value of a map, float (height, width), in each mask; 0 where a mask is empty."""
    assert heat is not None  # the caller has seen its tile maps
    return {name: float(heat[mask].max()) if mask.any() else 0.0 for name, mask in masks.items()}
