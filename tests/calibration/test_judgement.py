"""Decisions by hand: which threshold is in force, whose p-value, and what is looked for."""

from __future__ import annotations

import numpy as np
import pytest

from winspect.calibration import Calibration, DecisionRule, RegionRule
from winspect.calibration.judgement import chosen_regions
from winspect.errors import PictureError, SettingsError
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method
from winspect.methods.result import Result

NINE = tuple(number / 10 for number in range(1, 10))
IDENTITY = Identity("fake", "00", get_method("paper"), "torch", "fp32", "cpu", class_name="nut")
CALIBRATION = Calibration(IDENTITY, 0.2, NINE, NINE, "2026-01-01T00:00:00Z")  # threshold 0.8


def result(score: float | None, class_name: str = "nut") -> Result:
    error = PictureError("a.png", "an empty file") if score is None else None
    heat = None if score is None else np.eye(4, dtype=np.float32)[None] * score
    return Result("a.png", class_name, score, heat, ((0, 0, 40, 40),) * (heat is not None), (40, 40), error=error)


@pytest.mark.parametrize(
    ("threshold", "calibration", "score", "expected"),
    [
        (None, None, 0.9, (None, None, None)),
        (0.5, None, 0.5, ("anomalous", 0.5, None)),  # a given threshold is anomalous itself
        (0.5, None, 0.4999, ("normal", 0.5, None)),
        (None, CALIBRATION, 0.8, ("normal", 0.8, 0.3)),  # a calibration's is not
        (None, CALIBRATION, 0.81, ("anomalous", 0.8, 0.2)),
        (0.0, CALIBRATION, 0.1, ("anomalous", 0.0, 1.0)),  # a given one replaces it, and its p-value stays
        (None, CALIBRATION, None, (None, 0.8, None)),
        (0.5, None, None, (None, 0.5, None)),
    ],
)
def test_decisions_by_hand(threshold, calibration, score, expected):
    rule = DecisionRule(threshold, calibration)
    decided = rule.decide(result(score))
    assert (decided.verdict, decided.threshold, decided.p_value) == expected
    assert decided.is_calibrated == (calibration is not None)
    assert (decided.defects, decided.boxes) == (None, None)
    small = rule.verdicts_only()
    assert small.calibration is None
    assert small.decide(result(score)).verdict == decided.verdict


def test_defects_follow_the_verdict():
    regions = RegionRule(0.5)
    assert DecisionRule(0.5, regions=regions).decide(result(0.9)).boxes
    assert DecisionRule(0.95, regions=regions).decide(result(0.9)).boxes == []
    assert DecisionRule(0.5, regions=regions).decide(result(None)).boxes is None


def test_another_class_is_refused():
    with pytest.raises(SettingsError, match="scored as 'bolt', but the calibration is for 'nut'"):
        DecisionRule(0.5, CALIBRATION).decide(result(0.5, "bolt"))


@pytest.mark.parametrize(
    ("boxes", "pixel_threshold", "min_area", "calibrated", "expected"),
    [
        (None, None, None, None, None),
        (None, None, 9.0, None, None),  # nothing says which pixels are defects
        ("none", 0.5, None, RegionRule(0.6), None),
        (None, None, None, RegionRule(0.6), RegionRule(0.6)),
        (None, 0.5, 9.0, RegionRule(0.6), RegionRule(0.5, 9.0)),
        ("all", None, None, RegionRule(0.6), RegionRule(0.6, None, "all")),
        ("anomalous", None, None, None, RegionRule(None, None, "anomalous")),
    ],
)
def test_chosen_regions_by_hand(boxes, pixel_threshold, min_area, calibrated, expected):
    assert chosen_regions(boxes, pixel_threshold, min_area, calibrated) == expected
