"""A picture's verdict by what rules say of its defects; :mod:`winspect.calibration.judgement` alone asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winspect.calibration.areas import AreaLevel, area_masks, peaks_of
from winspect.calibration.defects import Defects, label_regions, regions_of
from winspect.calibration.measures import Measured, measure
from winspect.calibration.regions import RegionRule, working_size
from winspect.calibration.rules import Ruled, Rules
from winspect.calibration.verdicts import Verdict, gravest, mildest
from winspect.methods.result import shrunk

if TYPE_CHECKING:
    from winspect.methods.result import Result
    from winspect.pictures.roi import Roi


@dataclass(frozen=True)
class Ruling:
    """What rules and areas make of a picture.

    Attributes:
        verdict: on the picture: the gravest of its defects that are not ignored, and of its areas.
        reason: in words, where a rule or an area decided; None where the score did. Regions are numbered from 1, as
            their boxes are, without those ignored.
        defects: those that are not ignored; None where there is no map.
    """

    verdict: Verdict
    reason: str | None
    defects: Defects | None


def rule_on(
    result: Result,
    verdict: Verdict,
    regions: RegionRule,
    rules: Rules,
    mm_per_pixel: float | None,
    areas: Sequence[AreaLevel] = (),
    roi: Roi | None = None,
) -> Ruling:
    """Find the defects of a picture, and ask rules and areas about them.

    Args:
        verdict: by the score.
        regions: which defects are looked for: only what peaks above its pixel threshold can raise a verdict.
        areas: thresholds of areas of ``roi``.
    """
    if result.tile_maps is None or not (rules or areas):
        return Ruling(verdict, None, regions.find(result, verdict))
    small = shrunk(result, working_size(result))
    masks, heat = area_masks(roi, small), small.anomaly_map
    assert heat is not None  # it has maps
    peaks = peaks_of(heat, masks)
    alarms = [level for level in areas if peaks[level.name] > level.threshold]
    defects = regions.find(result, verdict, [(masks[level.name], level.threshold) for level in areas])
    assert defects is not None  # it has maps
    ruling = _on_defects(verdict, defects, measure(defects, heat, masks), rules, mm_per_pixel, areas, regions)
    if not alarms:
        return ruling
    first = alarms[0]
    reason = f"{first.name}: peak {peaks[first.name]:.3g} > {first.threshold:.3g}"
    return Ruling("anomalous", reason, ruling.defects)


def _on_defects(
    verdict: Verdict,
    defects: Defects,
    measured: Sequence[Measured],
    rules: Rules,
    mm_per_pixel: float | None,
    areas: Sequence[AreaLevel],
    regions: RegionRule,
) -> Ruling:
    """The verdict by the defects alone; that of the score where there are none."""
    if not measured:
        return Ruling(verdict, None, defects)
    ruled = [
        each or _by_area(defect, areas)
        for each, defect in zip(rules.apply(measured, mm_per_pixel), measured, strict=True)
    ]
    kept = [number for number, each in enumerate(ruled) if each is None or each.then != "ignore"]
    if not kept:
        return Ruling("normal", None if verdict == "normal" else _ignored(ruled), only(defects, kept))
    verdicts = [_verdict_on(measured[number], ruled[number], verdict, regions.pixel_threshold) for number in kept]
    decided = gravest(*verdicts)
    reason = None if decided == "normal" else _reason([ruled[number] for number in kept], verdicts, decided)
    return Ruling(decided, reason, only(defects, kept))


def _by_area(defect: Measured, areas: Sequence[AreaLevel]) -> Ruled | None:
    """What the area says in which a defect lies: ignored, where it is not above the area's own threshold."""
    there = [level for level in areas if level.name in defect.parts]
    if not there or any(defect.peak > level.threshold for level in there):
        return None
    return Ruled("ignore", False, f"in {there[0].name} peak {defect.peak:.3g} <= {there[0].threshold:.3g}")


def _reason(ruled: Sequence[Ruled | None], verdicts: Sequence[Verdict], decided: Verdict) -> str | None:
    """What the first rule said that is the verdict; None where none says so, and the score's is the reason."""
    for number, (each, verdict) in enumerate(zip(ruled, verdicts, strict=True), start=1):
        if each is not None and each.then == verdict == decided:
            return f"region {number}: {each.reason}"
    return None


def _verdict_on(defect: Measured, ruled: Ruled | None, verdict: Verdict, pixel_threshold: float | None) -> Verdict:
    """The verdict on a defect: the rule's, which is not graver than the score's unless it may raise it."""
    if ruled is None or ruled.then == "ignore":
        return verdict
    if ruled.raises and pixel_threshold is not None and defect.peak > pixel_threshold:
        return ruled.then
    return mildest(ruled.then, verdict)


def _ignored(ruled: Sequence[Ruled | None]) -> str:
    """The reason of a picture whose defects are all ignored."""
    first = next(each for each in ruled if each is not None)
    return f"{len(ruled)} region{'s' * (len(ruled) > 1)} ignored: {first.reason}"


def only(defects: Defects, kept: Sequence[int]) -> Defects:
    """Some of a picture's defects, by their numbers from 0."""
    if len(kept) == len(defects.boxes):
        return defects
    labels, _ = label_regions(defects.cells)
    return regions_of(np.isin(labels, [number + 1 for number in kept]), defects.size_wh)
