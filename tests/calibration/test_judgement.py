"""Decisions by hand: which threshold is in force, whose p-value, and what is looked for."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from winspect.calibration import Calibration, DecisionRule, RegionRule, Rules, Verdicts
from winspect.calibration.areas import AreaLevel, area_masks, area_peaks
from winspect.calibration.judgement import chosen_regions, verdict_of
from winspect.errors import PictureError, SettingsError
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method
from winspect.methods.result import Result
from winspect.pictures.alignment import Aligned
from winspect.pictures.roi import Area, Roi

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


# -- three verdicts

PLAIN = Verdicts(threshold=0.8, review_threshold=0.5)


@pytest.mark.parametrize(
    ("rule", "score", "expected"),
    [
        (DecisionRule(verdicts=PLAIN), 0.5, ("review", "score 0.5 >= 0.5")),
        (DecisionRule(verdicts=PLAIN), 0.49, ("normal", None)),
        (DecisionRule(verdicts=PLAIN), 0.8, ("anomalous", "score 0.8 >= 0.8")),
        (DecisionRule(verdicts=PLAIN), None, (None, None)),
        # Of nine scores 0.2 allows above the 8th, 0.5 above the 5th.
        (DecisionRule(calibration=CALIBRATION, verdicts=Verdicts(0.5)), 0.5, ("normal", None)),
        (DecisionRule(calibration=CALIBRATION, verdicts=Verdicts(0.5)), 0.51, ("review", "score 0.51 > 0.5")),
        (DecisionRule(calibration=CALIBRATION, verdicts=Verdicts(0.5)), 0.8, ("review", "score 0.8 > 0.5")),
        (DecisionRule(calibration=CALIBRATION, verdicts=Verdicts(0.5)), 0.81, ("anomalous", "score 0.81 > 0.8")),
        (DecisionRule(calibration=replace(CALIBRATION, review=0.5)), 0.51, ("review", "score 0.51 > 0.5")),
        (DecisionRule(0.9, replace(CALIBRATION, review=0.5)), 0.51, ("normal", None)),  # a threshold replaces both
    ],
)
def test_three_verdicts_by_hand(rule, score, expected):
    decided = rule.decide(result(score))
    assert (decided.verdict, decided.reason) == expected
    small = rule.verdicts_only()
    assert small.calibration is None
    assert small.decide(result(score)).verdict == decided.verdict


def test_levels_that_are_equal_give_two_verdicts():
    alike = replace(CALIBRATION, scores=(0.5,) * 9, map_maxima=None)
    rule = DecisionRule(calibration=alike, verdicts=Verdicts(0.5))
    for each in (rule, rule.verdicts_only()):
        assert [each.decide(result(score)).verdict for score in (0.5, 0.51)] == ["normal", "anomalous"]


def test_what_is_not_a_number_is_never_normal():
    for score, threshold, review in itertools.product((math.nan, 0.1), (math.nan, 0.5), (math.nan, 0.3)):
        if not math.isnan(score + threshold + review):
            continue
        for anomalous_at in (True, False):
            assert verdict_of(score, threshold, anomalous_at=anomalous_at, review=review) != "normal"


@pytest.mark.parametrize("review", [0.2, 0.1])
def test_a_review_rate_that_is_not_above_the_alarms_is_refused(review):
    with pytest.raises(SettingsError, match=rf"review: got {review}, need a rate above max_false_alarms \(0.2\)"):
        DecisionRule(calibration=CALIBRATION, verdicts=Verdicts(review))
    with pytest.raises(SettingsError, match="need a rate above max_false_alarms"):
        replace(CALIBRATION, review=review)
    with pytest.raises(SettingsError, match="need a rate above max_false_alarms"):
        CALIBRATION.decide(result(0.5), review=review)


def test_a_review_rate_needs_a_calibration():
    with pytest.raises(SettingsError, match=r"review: got the rate 0.5 without a calibration"):
        DecisionRule(verdicts=Verdicts(0.5))
    with pytest.raises(SettingsError, match="without a calibration that keeps it"):
        DecisionRule(0.5, CALIBRATION, verdicts=Verdicts(0.5))


def test_a_calibration_keeps_its_review_rate(tmp_path):
    calibration = replace(CALIBRATION, review=0.5)
    calibration.save(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert (document["review"], document["review_threshold"]) == (0.5, 0.5)
    assert Calibration.load(tmp_path / "c.json") == calibration
    assert "review" not in CALIBRATION.document()  # files of two verdicts are as they were
    with pytest.raises(SettingsError, match=r"review_threshold is 0.4, but 0.5 follows"):
        Calibration.read(document | {"review_threshold": 0.4})
    with pytest.raises(SettingsError, match="review: got nan"):
        Calibration.read(document | {"review": math.nan})
    with pytest.raises(SettingsError, match="need a rate above max_false_alarms"):
        Calibration.read(document | {"review": 0.1})


def spots(score: float, *heats: float) -> Result:
    """A picture of 80 x 80 pixels with a spot of 4 x 4, 8 x 4, 12 x 4, ... pixels at each heat, far from each other."""
    heat = np.full((80, 80), 0.01, np.float32)
    for number, value in enumerate(heats):
        heat[10 + 20 * number : 14 + 20 * number, 20 : 24 + 4 * number] = value
    return Result("a.png", "nut", score, heat[None], ((0, 0, 80, 80),), (80, 80))


def ruled(*tables: dict, pixel_threshold: float | None = 0.5, mm: float | None = None, **more: object) -> DecisionRule:
    verdicts = Verdicts(threshold=0.8, review_threshold=0.5, mm_per_pixel=mm)
    return DecisionRule(
        None, None, RegionRule(pixel_threshold, 0.0, **more), verdicts=verdicts, rules=Rules.read(tables)
    )


SMALL = {"area": "< 20 px", "then": "ignore"}


@pytest.mark.parametrize(
    ("tables", "picture", "expected"),
    [
        # One defect of 16 pixels, one of 32: what is ignored has no box.
        ([SMALL], spots(0.9, 0.9), ("normal", 0, "1 region ignored: area 16 px < 20")),
        ([SMALL], spots(0.9, 0.9, 0.8), ("anomalous", 1, "score 0.9 >= 0.8")),
        ([SMALL], spots(0.6, 0.9), ("normal", 0, "1 region ignored: area 16 px < 20")),
        ([SMALL], spots(0.1, 0.9), ("normal", 0, None)),
        (
            [{"area": "> 20 px", "then": "anomalous"}],
            spots(0.9, 0.9, 0.8),
            ("anomalous", 2, "region 2: area 32 px > 20"),
        ),
        ([{"area": "> 20 px", "then": "review"}], spots(0.9, 0.7, 0.8), ("anomalous", 2, "score 0.9 >= 0.8")),
        ([{"area": "> 8 px", "then": "review"}], spots(0.9, 0.7, 0.8), ("review", 2, "region 1: area 16 px > 8")),
        # The first rule that is met decides.
        ([{"area": "> 8 px", "then": "review"}, SMALL], spots(0.9, 0.7), ("review", 1, "region 1: area 16 px > 8")),
        # No rule makes a picture graver than its score, unless it raises: then normal pictures are looked at, too.
        ([{"area": "> 8 px", "then": "anomalous"}], spots(0.6, 0.9), ("review", 1, "score 0.6 >= 0.5")),
        ([{"area": "> 8 px", "then": "anomalous"}], spots(0.1, 0.9), ("normal", 0, None)),
        (
            [{"name": "big", "area": "> 8 px", "then": "anomalous", "raises": True}],
            spots(0.1, 0.9),
            ("anomalous", 1, "region 1: big: area 16 px > 8"),
        ),
        ([{"area": "> 20 px", "then": "review", "raises": True}], spots(0.1, 0.9), ("normal", 0, None)),
        # In a picture to review its highest place is a region even below the pixel threshold: that raises nothing.
        ([{"area": "> 8 px", "then": "anomalous", "raises": True}], spots(0.6, 0.4), ("review", 1, "score 0.6 >= 0.5")),
        (
            [{"peak": "> 0.6", "count": ">= 3", "then": "anomalous", "raises": True}],
            spots(0.1, 0.9, 0.9, 0.9),
            ("anomalous", 3, "region 1: peak 0.9 > 0.6, count 3 >= 3"),
        ),
        (
            [{"peak": "> 0.6", "count": ">= 3", "then": "anomalous", "raises": True}],
            spots(0.1, 0.9, 0.9),
            ("normal", 0, None),
        ),
        (
            [{"length": "> 7.9 px", "then": "review"}],
            spots(0.9, 0.1, 0.9),
            ("review", 1, "region 1: length 8 px > 7.9"),
        ),
        ([{"aspect": ">= 2", "then": "review"}], spots(0.9, 0.1, 0.9), ("review", 1, "region 1: aspect 2 >= 2")),
        ([{"aspect": "> 2", "then": "review"}], spots(0.9, 0.1, 0.9), ("anomalous", 1, "score 0.9 >= 0.8")),
        (
            [{"inside": [0, 0, 80, 20], "then": "ignore"}],
            spots(0.9, 0.9),
            ("normal", 0, "1 region ignored: inside 0, 0, 80, 20"),
        ),
        ([{"inside": [0, 20, 80, 80], "then": "ignore"}], spots(0.9, 0.9), ("anomalous", 1, "score 0.9 >= 0.8")),
    ],
)
def test_rules_by_hand(tables, picture, expected):
    rule = ruled(*tables)
    decided = rule.decide(picture)
    assert (decided.verdict, len(decided.boxes), decided.reason) == expected
    assert rule.verdicts_only().decide(picture).verdict == decided.verdict


def test_rules_in_millimetres():
    """16 pixels of 0.5 mm x 0.5 mm are 4 mm2."""
    rule = ruled({"area": "< 5 mm2", "length": "<= 2 mm", "then": "ignore"}, mm=0.5)
    decided = rule.decide(spots(0.9, 0.9))
    assert (decided.verdict, decided.reason) == ("normal", "1 region ignored: area 4 mm2 < 5, length 2 mm <= 2")
    assert ruled({"area": "< 5 mm2", "length": "<= 2 mm", "then": "ignore"}, mm=0.6).decide(spots(0.9, 0.9)).boxes


def test_boxes_of_normal_pictures_without_what_is_ignored():
    decided = ruled(SMALL, pictures="all").decide(spots(0.1, 0.9, 0.9))
    assert (decided.verdict, decided.boxes) == ("normal", [[20, 30, 28, 34]])


def test_what_rules_need():
    tables = [{**SMALL}]
    with pytest.raises(SettingsError, match="rules: need the defects of pictures: leave out boxes none"):
        DecisionRule(0.5, rules=Rules.read(tables))
    with pytest.raises(SettingsError, match="rules: need a calibration or a threshold"):
        DecisionRule(regions=RegionRule(0.5), rules=Rules.read(tables))
    with pytest.raises(SettingsError, match=r"rules: 1: area: .* without a scale"):
        ruled({"area": "< 5 mm2", "then": "ignore"})
    with pytest.raises(SettingsError, match="rules: 1: roi: got 'rim', but there is no ROI with named parts"):
        ruled({"roi": "rim", "then": "ignore"})
    with pytest.raises(SettingsError, match="rules: raises needs a pixel threshold"):
        ruled({"area": "> 5 px", "then": "review", "raises": True}, pixel_threshold=None)


RAISING = Rules.read([{"area": "> 0 px", "then": "anomalous", "raises": True}])


def test_rules_that_raise_take_half_of_the_rate():
    """Of 19 scores 0.2 allows 4 above, its half 2."""
    scores = tuple(number / 20 for number in range(1, 20))
    calibration = replace(CALIBRATION, scores=scores, map_maxima=scores)
    assert (calibration.threshold, calibration.pixel_threshold) == (0.8, 0.8)
    rule = DecisionRule(None, calibration, calibration.regions, verdicts=Verdicts(0.5), rules=RAISING)
    assert (rule.levels.anomalous, rule.levels.review) == (0.9, 0.6)  # 0.1, and 0.5 - 0.1
    assert rule.decide(spots(0.1, 0.85)).verdict == "normal"
    assert rule.decide(spots(0.1, 0.95)).verdict == "anomalous"
    by_hand = replace(rule, regions=RegionRule(0.3))
    assert by_hand.levels.anomalous == 0.8  # outside the promise: nothing is taken for it
    with pytest.raises(
        SettingsError, match=r"got 9 usable good pictures, need at least 19 for a false-alarm rate of at most 0.05"
    ):
        few = replace(CALIBRATION, max_false_alarms=0.1)
        DecisionRule(None, few, few.regions, rules=RAISING)


def test_the_document_names_what_decides():
    assert "rules" not in DecisionRule(0.5).document()
    assert "verdict" not in DecisionRule(0.5).document()
    rule = ruled(SMALL, mm=0.5)
    assert rule.document()["rules"] == [SMALL]
    assert rule.document()["verdict"] == {"threshold": 0.8, "review_threshold": 0.5, "mm_per_pixel": 0.5}


# -- areas of a region of interest, and alignment

LEFT, RIGHT = ((0, 0), (40, 0), (40, 80), (0, 80)), ((40, 0), (80, 0), (80, 80), (40, 80))
ROI = Roi((80, 80), (Area(LEFT, name="rim"), Area(RIGHT, name="face")))


def spot(score: float, left: float, right: float) -> Result:
    """A spot of 8 x 4 pixels in either half of a picture of 80 x 80."""
    heat = np.full((80, 80), 0.01, np.float32)
    heat[10:14, 10:18], heat[50:54, 60:68] = left, right
    return Result("a.png", "nut", score, heat[None], ((0, 0, 80, 80),), (80, 80), roi=ROI)


def strict(**thresholds: float) -> Roi:
    return replace(ROI, areas=tuple(replace(area, threshold=thresholds.get(area.name)) for area in ROI.areas))


@pytest.mark.parametrize(
    ("roi", "picture", "expected"),
    [
        (strict(rim=0.3), spot(0.1, 0.35, 0.01), ("anomalous", 1, "rim: peak 0.35 > 0.3")),
        (strict(rim=0.3), spot(0.1, 0.25, 0.35), ("normal", 0, None)),
        # A part that bears more than the rest: what lies in it and not above its own threshold is no defect.
        (strict(rim=0.95), spot(0.9, 0.9, 0.01), ("normal", 0, "1 region ignored: in rim peak 0.9 <= 0.95")),
        (strict(rim=0.95), spot(0.9, 0.9, 0.8), ("anomalous", 1, "score 0.9 >= 0.8")),
        (strict(rim=0.3, face=0.2), spot(0.1, 0.1, 0.25), ("anomalous", 1, "face: peak 0.25 > 0.2")),
    ],
)
def test_thresholds_of_areas_by_hand(roi, picture, expected):
    rule = DecisionRule(regions=RegionRule(0.5, 0.0), verdicts=PLAIN, roi=roi)
    decided = rule.decide(picture)
    assert (decided.verdict, len(decided.boxes), decided.reason) == expected
    assert rule.verdicts_only().decide(picture).verdict == decided.verdict
    assert rule.document()["areas"] == {area.name: area.threshold for area in roi.areas if area.threshold}


def test_rules_of_a_part():
    rule = DecisionRule(
        regions=RegionRule(0.5, 0.0),
        verdicts=PLAIN,
        rules=Rules.read([{"roi": "face", "then": "ignore"}]),
        roi=ROI,
    )
    assert rule.decide(spot(0.9, 0.01, 0.9)).reason == "1 region ignored: in face"
    assert rule.decide(spot(0.9, 0.9, 0.01)).verdict == "anomalous"
    with pytest.raises(SettingsError, match="roi: got 'bore', but its named parts are face, rim"):
        replace(rule, rules=Rules.read([{"roi": "bore", "then": "ignore"}]))


TWENTY = tuple(number / 20 for number in range(1, 20))


def test_rates_of_areas_are_part_of_the_calibrations():
    calibration = replace(CALIBRATION, scores=TWENTY, map_maxima=TWENTY, area_maxima={"rim": TWENTY, "face": TWENTY})
    rule = DecisionRule(None, calibration, calibration.regions, verdicts=Verdicts(0.5, roi={"rim": 0.05}), roi=ROI)
    # Of 19 scores 0.05 allows 1 above, the 0.15 that are left 3, and 0.5 less 0.05 of review 9.
    assert rule.areas == [AreaLevel("rim", 0.95)]
    assert (rule.levels.anomalous, rule.levels.review) == (0.85, 0.55)
    assert rule.decide(spot(0.1, 0.96, 0.01)).reason == "rim: peak 0.96 > 0.95"
    assert rule.verdicts_only().decide(spot(0.1, 0.96, 0.01)).verdict == "anomalous"
    assert Calibration.read(json.loads(json.dumps(calibration.document()))) == calibration
    for verdicts, words in (
        (Verdicts(roi={"rim": 0.2}), "got rates of 0.2 together, need less than"),
        (Verdicts(roi={"bore": 0.05}), "verdict: roi: got 'bore', but its named parts"),
        (Verdicts(roi={"rim": 0.01}), "need at least 99"),
    ):
        with pytest.raises(SettingsError, match=words):
            DecisionRule(None, calibration, calibration.regions, verdicts=verdicts, roi=ROI)
    with pytest.raises(SettingsError, match="knows nothing of this area: calibrate again"):
        DecisionRule(None, CALIBRATION, CALIBRATION.regions, verdicts=Verdicts(roi={"rim": 0.1}), roi=ROI)
    with pytest.raises(SettingsError, match="got a rate without a calibration"):
        DecisionRule(0.5, None, RegionRule(0.5), verdicts=Verdicts(roi={"rim": 0.1}), roi=ROI)


def test_peaks_of_areas_by_hand():
    assert area_peaks(spot(0.1, 0.5, 0.25)) == {"rim": 0.5, "face": 0.25}
    assert area_peaks(replace(spot(0.1, 0.5, 0.25), roi=None)) == {}


def test_a_picture_that_is_not_aligned_is_never_normal():
    off = Aligned(0.25, False)
    shifted = replace(result(0.1), alignment=off)
    decided = DecisionRule(0.5).decide(shifted)
    assert (decided.verdict, decided.is_explained) == ("review", True)
    assert decided.reason.startswith("not aligned: ")
    assert DecisionRule(0.5).decide(replace(result(0.9), alignment=off)).verdict == "anomalous"
    assert DecisionRule().decide(shifted).verdict is None  # nothing decides
    ignoring = ruled({"area": "> 0 px", "then": "ignore"})
    assert ignoring.decide(replace(spots(0.9, 0.9), alignment=off)).verdict == "review"
    assert DecisionRule(0.5).decide(replace(result(0.1), alignment=Aligned(0.9, True))).verdict == "normal"


def test_areas_move_with_the_part():
    """Shifted by 40 pixels to the right, the rim lies where the face was."""
    moved = Aligned(0.9, True, ((1.0, 0.0, 40.0), (0.0, 1.0, 0.0)))
    small = replace(spot(0.1, 0.5, 0.25), alignment=moved)
    masks = area_masks(ROI, small)
    assert masks["rim"][:, 40:].all()
    assert not masks["rim"][:, :40].any()
    assert not masks["face"].any()
