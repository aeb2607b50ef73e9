"""A picture's verdict by what rules say of its defects; :mod:`winspect.calibration.judgement` alone asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winspect.calibration.defects import Defects, label_regions, regions_of
from winspect.calibration.measures import Measured, measure
from winspect.calibration.regions import RegionRule, working_size
from winspect.calibration.rules import Ruled, Rules
from winspect.calibration.verdicts import Verdict, gravest, mildest
from winspect.methods.result import shrunk

if TYPE_CHECKING:
    from winspect.methods.result import Result


@dataclass(frozen=True)
class Ruling:
    """What rules make of a picture.

    Attributes:
        verdict: on the picture: the gravest of its defects that are not ignored.
        reason: in words, where a rule decided; None where the score did. Regions are numbered from 1, as their boxes
            are, without those ignored.
        kept: numbers, from 0, of the defects that are not ignored.
    """

    verdict: Verdict
    reason: str | None
    kept: tuple[int, ...]


def rule_on(
    result: Result,
    verdict: Verdict,
    defects: Defects,
    rules: Rules,
    mm_per_pixel: float | None,
    regions: RegionRule,
) -> Ruling:
    """Ask the rules about the defects of a picture.

    Args:
        verdict: by the score.
        defects: at least one.
        regions: how they were found: only what peaks above its pixel threshold can raise a verdict.
    """
    heat = shrunk(result, working_size(result)).anomaly_map
    assert heat is not None  # it has defects
    measured = measure(defects, heat)
    ruled = rules.apply(measured, mm_per_pixel)
    kept = tuple(number for number, each in enumerate(ruled) if each is None or each.then != "ignore")
    if not kept:
        return Ruling("normal", _ignored(ruled), kept)
    verdicts = [_verdict_on(measured[number], ruled[number], verdict, regions.pixel_threshold) for number in kept]
    decided = gravest(*verdicts)
    return Ruling(decided, None if decided == "normal" else _reason([ruled[k] for k in kept], verdicts, decided), kept)


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
