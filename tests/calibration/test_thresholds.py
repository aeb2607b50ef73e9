"""Calibrated thresholds: arithmetic by hand, the guarantee counted out exactly, and what a calibration refuses."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import math
import os
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import part, save
from PIL import Image
from sklearn.metrics import f1_score

from winspect import Result, WinCLIP
from winspect.calibration import Calibration, LeftOut, RegionRule, needed_pictures
from winspect.calibration.conformal import (
    alarms_allowed,
    best_f1,
    chance_of_alarms,
    check_enough,
    conformal_threshold,
    p_value,
)
from winspect.calibration.defects import regions_of
from winspect.calibration.judgement import check_threshold, verdict_of
from winspect.calibration.regions import map_peak
from winspect.errors import OutputError, PictureError, SettingsError
from winspect.inspector.calibrating import calibrate
from winspect.methods.winclip.recipes import RECIPES
from winspect.metrics import f1_max
from winspect.pictures.fingerprints import Fingerprint, fingerprint

TENTHS = [number / 10 for number in range(1, 10)]

# The arithmetic


@pytest.mark.parametrize(
    ("rate", "pictures"), [(0.5, 1), (0.4, 2), (1 / 3, 3), (0.25, 3), (0.1, 9), (0.07, 14), (0.01, 99), (1e-3, 999)]
)
def test_needed_pictures_by_hand(rate, pictures):
    # 1/3 as a decimal is a little less than a third: two pictures are not enough.
    assert needed_pictures(rate) == pictures
    check_enough(pictures, rate)
    with pytest.raises(SettingsError, match=f"got {pictures - 1} usable good pictures, need at least {pictures} "):
        check_enough(pictures - 1, rate)


def test_too_few_pictures_name_the_rate_that_they_allow():
    with pytest.raises(SettingsError, match=r"at most 0\.01; 50 allow 0\.0197; add pictures, or allow more"):
        check_enough(50, 0.01)
    check_enough(50, 0.0197)


def test_a_threshold_by_hand():
    # Nine scores: ceil(10 (1 - rate)) is 9 at 0.1, 8 at 0.2 and at 0.25, and 1 at 0.9.
    assert [conformal_threshold(TENTHS, rate) for rate in (0.1, 0.2, 0.25, 0.9)] == [0.9, 0.8, 0.8, 0.1]
    assert [p_value(score, TENTHS) for score in (0.95, 0.9, 0.85, 0.1, 0.0)] == [0.1, 0.2, 0.2, 1.0, 1.0]


def test_a_new_score_that_equals_a_known_one_counts_as_higher_than_it():
    tied = [0.5] * 9
    assert conformal_threshold(tied, 0.1) == 0.5
    assert p_value(0.5, tied) == 1.0
    assert p_value(0.6, tied) == 0.1


@pytest.mark.parametrize(("pictures", "rate"), [(99, 0.29), (99, 0.07), (199, 0.005), (9, 0.1), (57, 0.1), (12, 0.3)])
def test_above_the_threshold_is_where_the_p_value_is_at_most_the_rate(pictures, rate):
    random = np.random.default_rng(pictures)
    scores = sorted(random.integers(0, 3 * pictures, pictures) / 100)  # with ties
    threshold = conformal_threshold(scores, rate)
    assert alarms_allowed(pictures, rate) == math.floor(Fraction(str(rate)) * (pictures + 1))
    for score in [*scores, *np.nextafter(scores, 9), *np.nextafter(scores, -9)]:
        assert (score > threshold) == (p_value(score, scores) <= rate)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None, True])
def test_rates_out_of_range(rate):
    with pytest.raises(SettingsError, match=r"max_false_alarms: got .*, need a rate above 0 and below 1"):
        conformal_threshold(TENTHS, rate)


def test_what_is_not_a_number_is_never_normal():
    for anomalous_at in (True, False):
        assert verdict_of(math.nan, 0.5, anomalous_at=anomalous_at) == "anomalous"
        assert verdict_of(0.5, math.nan, anomalous_at=anomalous_at) == "anomalous"
    assert p_value(math.nan, TENTHS) == p_value(2.0, TENTHS) == 0.1
    with pytest.raises(ValueError, match=r"a\.png: got the score nan, need a number"):
        Result("a.png", "nut", math.nan)


@pytest.mark.parametrize("threshold", [1.7, -3, math.nan, math.inf, "0.5"])
def test_a_threshold_that_no_score_crosses(threshold):
    with pytest.raises(SettingsError, match=r"threshold: got .*, need a score such as 0\.5"):
        check_threshold(threshold, RECIPES["paper"].score_range)


def test_thresholds_of_a_recipe():
    for threshold in (None, 0, 0.5, 1.0):
        check_threshold(threshold, RECIPES["log"].score_range)


# The guarantee


@pytest.mark.parametrize("values", [(1, 2, 3, 4, 5, 6), (1, 2, 2, 2, 5, 5), (3, 3, 3, 3, 3, 3)])
@pytest.mark.parametrize("rate", [0.2, 0.35, 0.4, 0.5, 0.9])
def test_the_guarantee_holds_over_all_orders(values, rate):
    """Exchangeable: each order of n + 1 scores is as likely; the last is the new picture. Counted, not simulated."""
    flagged = valid = 0
    orders = list(itertools.permutations(values))
    for *known, new in orders:
        known.sort()
        flagged += new > conformal_threshold(known, rate)
        valid += p_value(new, known) <= rate
    assert flagged == valid
    chance = Fraction(flagged, len(orders))
    assert chance <= Fraction(str(rate))
    if len(set(values)) == len(values):
        assert chance == Fraction(alarms_allowed(len(values) - 1, rate), len(values))  # and no smaller than it must be


def test_the_chance_of_alarms_counted_over_all_orders():
    """Five known and three new scores: how many of the new lie above the threshold, over all choices of the new."""
    counts = [0] * 4
    for new in itertools.combinations(range(8), 3):
        known = [score for score in range(8) if score not in new]
        counts[sum(score > conformal_threshold(known, 0.4) for score in new)] += 1
    for alarms in range(4):
        expected = sum(counts[alarms:]) / sum(counts)
        assert chance_of_alarms(alarms, 3, pictures=5, max_false_alarms=0.4) == pytest.approx(expected, abs=1e-12)


# F1


def test_best_f1_by_hand():
    # Flagging 0.5, 0.8, 0.9 finds both defective with one false alarm: 2*2 / (2*2 + 1) = 0.8; 0.9 alone gives 2/3.
    best = best_f1([0.1, 0.3, 0.8], [0.9, 0.5])
    assert best.f1 == pytest.approx(0.8)
    assert best.threshold == pytest.approx(0.4)  # half-way between 0.3 and 0.5


@pytest.mark.parametrize("seed", range(8))
def test_best_f1_is_reached_at_its_threshold(seed):
    random = np.random.default_rng(seed)
    good, bad = random.integers(0, 12, 20) / 16, random.integers(5, 16, 9) / 16
    best = best_f1(good, bad)
    labels = np.repeat([0, 1], [20, 9])
    scores = np.concatenate([good, bad])
    assert best.f1 == f1_max(scores, labels)
    assert f1_score(labels, scores > best.threshold) == pytest.approx(best.f1)
    assert f1_score(labels, scores >= best.threshold) == pytest.approx(best.f1)  # as --threshold has it


def test_best_f1_where_everything_is_flagged_and_between_neighbouring_numbers():
    best = best_f1([0.5], [0.25, 0.25])
    assert best.f1 == pytest.approx(0.8)
    assert 0.2499 < best.threshold < 0.25
    low = 0.3
    high = math.nextafter(low, 1)
    best = best_f1([low], [high])
    assert low <= best.threshold < high


# Defects


def test_masks_and_boxes_by_hand():
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0] = heat[1, 1] = 0.9  # touch by a corner: one region
    heat[2:4, 4:6] = 0.7
    heat[3, 0] = 0.5  # at the threshold is not above it
    found = regions_of(heat > 0.5)
    assert found.boxes == ((0, 0, 2, 2), (4, 2, 6, 4))
    assert found.areas == (2, 4)
    assert found.mask.dtype == bool
    assert found.mask.sum() == 6
    nothing = regions_of(heat > 0.9000001)
    assert (nothing.boxes, nothing.areas, nothing.mask.any()) == ((), (), False)


# Fingerprints


def test_fingerprints_are_of_content(tmp_path):
    path = save(tmp_path / "a.png", part(1, defective=False)[0])
    own = fingerprint(path)
    assert (own.path, own.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert fingerprint(path.read_bytes()).sha256 == own.sha256
    assert fingerprint(tmp_path / "gone.png").sha256 is None
    rgb = part(1, defective=False)[0]
    assert fingerprint(rgb) == fingerprint(rgb.copy())
    assert fingerprint(Image.fromarray(rgb)).sha256 == fingerprint(rgb).sha256
    assert fingerprint(rgb).sha256 != fingerprint(rgb.reshape(90, 70, 3)).sha256
    assert not fingerprint(rgb).keys & fingerprint(part(2, defective=False)[0]).keys  # both are called <array>
    assert fingerprint(path).keys & fingerprint(os.path.relpath(path)).keys


# Calibrating


@pytest.fixture(scope="module")
def goods(tmp_path_factory) -> list[Path]:
    """Fifteen good pictures."""
    folder = tmp_path_factory.mktemp("goods")
    return [save(folder / f"good{number}.png", part(number, defective=False)[0]) for number in range(15)]


@pytest.fixture(scope="module")
def bads(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bads")
    return [save(folder / f"bad{number}.png", part(500 + number, defective=True)[0]) for number in range(3)]


@pytest.fixture(scope="module")
def calibration(small_model, goods) -> Calibration:
    return small_model.calibrate(goods[:9], "metal_nut", max_false_alarms=0.1)


@pytest.fixture
def fewshot(small_checkpoint):
    """A model of its own, for tests that show references."""
    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu")


def test_a_calibration_holds_the_models_scores(small_model, goods, calibration):
    results = [small_model.predict(path, "metal nut") for path in goods[:9]]
    assert calibration.scores == pytest.approx(sorted(result.anomaly_score for result in results), abs=1e-6)
    assert calibration.map_maxima == pytest.approx(sorted(map(map_peak, results)), abs=1e-6)
    assert (calibration.threshold, calibration.pixel_threshold) == (calibration.scores[-1], calibration.map_maxima[-1])
    assert calibration.pictures == 9
    assert calibration.class_name == "metal nut"
    assert calibration.identity.weights_sha256 == small_model.weights_sha256
    assert calibration.identity.references == ()
    assert (calibration.left_out, calibration.held_out, calibration.defective) == ((), None, None)


def test_scores_alone(small_model, goods, calibration):
    alone = small_model.calibrate(goods[:9], "metal nut", max_false_alarms=0.1, maps=False)
    assert alone.scores == pytest.approx(calibration.scores, abs=1e-6)
    assert alone.pixel_threshold is None
    with pytest.raises(SettingsError, match="made on scores alone: calibrate with maps"):
        alone.defects(small_model.predict(goods[0], "metal nut"))


def result_of(score: float | None, *, name: str = "metal nut", maps=True) -> Result:
    error = PictureError("a.png", "an empty file") if score is None else None
    heat = np.zeros((1, 2, 2), np.float32) if maps and score is not None else None
    return Result("a.png", name, score, tile_maps=heat, tile_boxes=((0, 0, 8, 8),) * maps, size_wh=(8, 8), error=error)


def test_decisions_by_hand(calibration):
    tenths = replace(calibration, scores=tuple(TENTHS), max_false_alarms=0.2)
    decisions = [tenths.decide(result_of(score)) for score in (0.9, 0.8, None)]
    assert [(one.verdict, one.p_value, one.threshold) for one in decisions] == [
        ("anomalous", 0.2, 0.8),
        ("normal", 0.3, 0.8),
        (None, None, 0.8),
    ]
    with pytest.raises(SettingsError, match="scored as 'bolt', but the calibration is for 'metal nut'"):
        tenths.decide(result_of(0.5, name="bolt"))


def test_defects_of_results(calibration):
    assert calibration.defects(result_of(None)) is None
    assert calibration.defects(result_of(0.3)).boxes == ()
    with pytest.raises(SettingsError, match=r"a\.png: predicted without its map"):
        calibration.defects(result_of(0.3, maps=False))
    low = replace(calibration, map_maxima=(-1.0,) * 9)
    assert low.defects(result_of(0.9)).boxes == ((0, 0, 8, 8),)
    assert low.defects(result_of(0.0)).boxes == ()  # judged normal
    assert low.defects(result_of(0.0), RegionRule(-1.0, pictures="all")).boxes == ((0, 0, 8, 8),)


def test_no_calibration_picture_has_a_flagged_pixel_where_none_is_allowed(small_model, goods, calibration):
    # With nine pictures and a rate of 0.1 the threshold is the largest of the nine maxima, and is kept exactly.
    for result in small_model.predict_many(goods[:9], "metal nut"):
        assert calibration.defects(result).mask.sum() == 0
        assert calibration.defects(result, RegionRule(calibration.pixel_threshold, 0, "all")).mask.sum() == 0


def test_references_and_copies_are_left_out(fewshot, goods, tmp_path, caplog):
    copy, moved = tmp_path / "copy.png", tmp_path / "moved.png"
    copy.write_bytes(goods[3].read_bytes())
    moved.write_bytes(goods[0].read_bytes())  # the reference under another name
    fewshot.reference(goods[:2], "bolt")
    calibration = fewshot.calibrate([*goods, copy, moved], "bolt", max_false_alarms=0.1)
    assert [(Path(one.path).name, one.because) for one in calibration.left_out] == [
        ("good0.png", "reference"),
        ("good1.png", "reference"),
        ("copy.png", "copy"),
        ("moved.png", "reference"),
    ]
    assert calibration.pictures == 13
    assert f"left out (copy): {copy}: the same picture as {goods[3]}" in caplog.messages
    assert calibration.document()["references"] == [
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in goods[:2]
    ]


def test_a_reference_is_told_by_its_path_too(fewshot, goods, tmp_path):
    """The file has been written anew since it was shown."""
    path = save(tmp_path / "a.png", part(77, defective=False)[0])
    fewshot.reference(path, "bolt")
    save(path, part(78, defective=False)[0])
    calibration = fewshot.calibrate([path, *goods], "bolt", max_false_alarms=0.1)
    assert [one.because for one in calibration.left_out] == ["reference"]


def test_unreadable_pictures_are_named_and_may_leave_too_few(small_model, goods, tmp_path, caplog):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    calibration = small_model.calibrate([broken, *goods[:9]], "bolt", max_false_alarms=0.1)
    (left_out,) = calibration.left_out
    assert (left_out.path, left_out.because) == (str(broken), "unreadable")
    assert str(broken) in left_out.message
    assert calibration.pictures == 9
    with pytest.raises(SettingsError, match="got 8 usable good pictures, need at least 9"):
        small_model.calibrate([broken, *goods[:8]], "bolt", max_false_alarms=0.1)
    assert any(str(broken) in message for message in caplog.messages)


def test_too_few_are_refused_before_any_is_judged(small_model, goods, monkeypatch):
    monkeypatch.setattr(WinCLIP, "predict_many", None)
    with pytest.raises(SettingsError, match="got 15 usable good pictures, need at least 99"):
        small_model.calibrate(goods, "bolt")
    with pytest.raises(SettingsError, match=r"got [0-9]+ usable good pictures, need at least 99"):
        small_model.calibrate(str(goods[0].parent), "bolt")


def test_held_out_and_defective_pictures(small_model, goods, bads, tmp_path):
    calibration = calibrate(small_model, goods[:9], "bolt", max_false_alarms=0.1, held_out=goods[8:], defective=bads)
    scores = [small_model.predict(path, "bolt").anomaly_score for path in goods[9:]]
    alarms = sum(score > calibration.threshold for score in scores)
    assert (calibration.held_out.pictures, calibration.held_out.alarms) == (6, alarms)  # goods[8] is known already
    assert [one.because for one in calibration.left_out] == ["copy"]
    assert calibration.held_out.chance == chance_of_alarms(alarms, 6, pictures=9, max_false_alarms=0.1)
    bad_scores = [small_model.predict(path, "bolt").anomaly_score for path in bads]
    best = best_f1(calibration.scores, bad_scores)
    assert calibration.defective.f1 == pytest.approx(best.f1)
    assert calibration.defective.f1_threshold == pytest.approx(best.threshold, abs=1e-6)
    assert calibration.defective.found == sum(score > calibration.threshold for score in bad_scores)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    for kind in ("held_out", "defective"):
        with pytest.raises(SettingsError, match=f"none of the {kind.replace('_', '-')} pictures can be used"):
            calibrate(small_model, goods[:9], "bolt", max_false_alarms=0.1, **{kind: [broken]})


# The model it was made with


def test_the_same_model_passes(small_model, calibration):
    calibration.check_model(small_model)
    calibration.check_model(small_model, "metal_nut")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", "ViT-B-32", "model: calibrated with 'ViT-B-32', now 'winspect-test-vit'"),
        ("weights_sha256", "00ff", "weights_sha256: calibrated with '00ff', now '"),
        ("prompts_sha256", "00ff", "prompts_sha256: calibrated with '00ff', now '"),
        ("precision", "bf16", "precision: calibrated with 'bf16', now 'fp32'"),
        ("class", "bolt", "class: calibrated with 'bolt', now 'metal nut'"),
        (
            "references",
            [{"name": "a.png", "sha256": "0123456789"}],
            r"references: calibrated with a.png \(01234567\), now none \(zero-shot\)",
        ),
    ],
)
def test_something_else_is_refused_with_both_values(small_model, calibration, name, value, words):
    other = Calibration.read({**calibration.document(), name: value})
    with pytest.raises(SettingsError, match=words) as refused:
        other.check_model(small_model, "metal nut")
    assert str(refused.value).count("calibrated with") == 1


def test_another_recipe_is_refused_by_the_settings_that_differ(small_checkpoint, calibration):
    other = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", settings={"temperature": 0.05})
    words = r"recipe: calibrated with \{'temperature': 0.07\}, now \{'temperature': 0.05\}"
    with pytest.raises(SettingsError, match=words):
        calibration.check_model(other)


def test_references_are_compared_by_content(fewshot, goods, tmp_path):
    moved = [tmp_path / "b.png", tmp_path / "a.png"]
    for path, source in zip(moved, goods, strict=False):
        path.write_bytes(source.read_bytes())
    fewshot.reference(goods[:2], "bolt")
    calibration = fewshot.calibrate(goods[2:], "bolt", max_false_alarms=0.1)
    fewshot.reference(moved[::-1], "bolt")
    calibration.check_model(fewshot)  # the same two, renamed and in another order
    fewshot.reference(moved[:1], "bolt")
    with pytest.raises(SettingsError, match=r"references: calibrated with good0.png \(.*\), now b.png \("):
        calibration.check_model(fewshot)
    fewshot.reference(goods[2:4], "bolt")
    with pytest.raises(SettingsError, match="Use what it was made with, or calibrate again"):
        calibration.check_model(fewshot)
    the_way_back = r"with: its good samples, the first 2 \(--reference, --shots 2\), or calibrate again"
    fewshot.reference(goods[:3], "bolt")
    with pytest.raises(SettingsError, match=the_way_back):
        calibration.check_model(fewshot)
    fewshot.forget("bolt")
    with pytest.raises(SettingsError, match=rf"now none \(zero-shot\)\. Use what it was made {the_way_back}"):
        calibration.check_model(fewshot)


@pytest.mark.parametrize("name", ["engine", "device"])
def test_another_engine_is_a_note_in_fp32_and_refused_in_other_precisions(small_model, calibration, caplog, name):
    other = replace(calibration, identity=replace(calibration.identity, **{name: "abacus"}))
    other.check_model(small_model)
    assert f"{name}: calibrated with 'abacus', now " in caplog.text
    assert "in fp32 scores agree within 1e-5" in caplog.text
    in_bf16 = replace(other, identity=replace(other.identity, precision="bf16"))
    with pytest.raises(SettingsError, match=f"{name}: calibrated with 'abacus', now "):
        in_bf16.check(replace(small_model.identity("metal nut"), precision="bf16"))


def test_nothing_is_noted_where_nothing_differs(small_model, calibration, caplog):
    with caplog.at_level(logging.DEBUG, "winspect"):
        calibration.check_model(small_model)
    assert caplog.messages == []


# The file


def test_what_is_saved_is_loaded(calibration, small_model, goods, bads, tmp_path):
    full = calibrate(
        small_model, [*goods[:9], goods[0]], "bolt", max_false_alarms=0.1, held_out=goods[9:], defective=bads
    )
    for one in (calibration, full, replace(calibration, map_maxima=None)):
        one.save(tmp_path / "nut.json")
        again = Calibration.load(tmp_path / "nut.json")
        assert again == one
        again.check_model(small_model)
    assert [file.name for file in tmp_path.iterdir()] == ["nut.json"]


def test_the_file_is_for_readers_too(calibration, tmp_path):
    calibration.save(tmp_path / "nut.json")
    document = json.loads((tmp_path / "nut.json").read_text("utf-8"))
    assert document["kind"] == "winspect calibration"
    assert document["schema"] == 1
    assert document["class"] == "metal nut"
    assert document["pictures"] == 9
    assert document["max_false_alarms"] == 0.1
    assert document["threshold"] == document["scores"][-1]
    assert document["recipe"]["temperature"] == 0.07
    assert document["date"].endswith("Z")
    assert set(document) >= {
        "model",
        "weights_sha256",
        "prompts_sha256",
        "precision",
        "engine",
        "references",
        "winspect",
    }


def test_names_that_are_no_utf8_are_written_and_read(calibration, tmp_path):
    sample = Fingerprint(os.fsdecode(b"\xff.png"), "00")
    identity = replace(calibration.identity, references=(sample,))
    left_out = (LeftOut(sample.path, "unreadable", f"{sample.path}: an empty file"),)
    replace(calibration, identity=identity, left_out=left_out).save(tmp_path / "nut.json")
    again = Calibration.load(tmp_path / "nut.json")
    assert (again.identity.references, again.left_out) == ((sample,), left_out)


def test_a_full_disk_leaves_the_earlier_file(calibration, tmp_path, monkeypatch):
    path = tmp_path / "nut.json"
    calibration.save(path)
    before = path.read_bytes()

    def full(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="the disk is full"):
        replace(calibration, max_false_alarms=0.5).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "another file"}, 'not a calibration: need JSON with "kind"'),
        ({"schema": 2}, "got schema 2, this release reads 1"),
        ({"scores": None}, "scores: got None, need a list"),
        ({"scores": []}, "got 0 usable good pictures, need at least 9 "),
        ({"scores": [0.1] * 8 + [math.nan]}, "scores: got nan, need finite numbers"),
        ({"scores": [0.1] * 8 + ["0.2"]}, "scores: got '0.2', need finite numbers"),
        ({"scores": [0.1] * 8 + [True]}, "scores: got True, need finite numbers"),
        ({"scores": [0.2] * 8 + [0.1]}, "scores: need ascending numbers"),
        ({"map_maxima": [0.5]}, "got 1 map_maxima for 9 scores"),
        ({"map_maxima": 3}, "map_maxima: got 3, need a list"),
        ({"threshold": 0.123}, "threshold is 0.123, but .* follows from scores and rate"),
        ({"pixel_threshold": None}, "pixel_threshold is None, but "),
        ({"pictures": 10}, "pictures is 10, but 9 follows"),
        ({"max_false_alarms": 2}, "max_false_alarms: got 2, need a rate"),
        ({"max_false_alarms": 0.01}, "got 9 usable good pictures, need at least 99"),
        ({"recipe": "paper"}, "recipe: got 'paper', need a dict"),
        ({"model": 3}, "model: got 3, need a str"),
        ({"references": [{"name": "a.png"}]}, "references: got .*, need entries with name and sha256"),
        ({"references": {"a.png": "00"}}, "references: got .*, need a list"),
        ({"left_out": [{"path": "a.png"}]}, "need path, because, message"),
        ({"held_out": {"pictures": 3}}, "need pictures, alarms, chance"),
        ({"held_out": {"pictures": 3, "alarms": True, "chance": 0.5}}, "alarms: got True, need a int"),
        ({"held_out": {"pictures": 3, "alarms": 1, "chance": math.nan}}, "chance: got nan, need a float"),
        ({"defective": 5}, "got 5, need pictures, found, f1, f1_threshold"),
        ({"class": "nut {}"}, "class: got the class name 'nut {}': braces"),
        ({"date": None}, "date: got None, need a str"),
    ],
)
def test_a_damaged_file_is_told_by_its_entry(calibration, tmp_path, changes, words):
    path = tmp_path / "nut.json"
    path.write_text(json.dumps({**calibration.document(), **changes}))
    with pytest.raises(SettingsError, match=words) as refused:
        Calibration.load(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["scores", "map_maxima", "threshold", "date", "references", "class", "held_out"])
def test_a_missing_entry_is_named(calibration, tmp_path, name):
    document = calibration.document()
    del document[name]
    (tmp_path / "nut.json").write_text(json.dumps(document))
    with pytest.raises(SettingsError, match=f"damaged calibration: no entry '{name}'"):
        Calibration.load(tmp_path / "nut.json")


@pytest.mark.parametrize("content", [b"", b'{"kind": "winspect cal', b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b"{}"])
def test_what_is_no_calibration(tmp_path, content):
    path = tmp_path / "nut.json"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"nut\.json: not a calibration"):
        Calibration.load(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(SettingsError, match="cannot read the calibration: No such file"):
        Calibration.load(tmp_path / "nut.json")
    with pytest.raises(SettingsError, match="cannot read the calibration: a folder, need a file"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_regions_without_scipy_are_scipys(share, monkeypatch):
    random = np.random.default_rng(0)
    masks = [random.random((height, width)) < share for height, width in ((1, 9), (9, 1), (30, 40), (61, 23))]
    expected = [regions_of(mask) for mask in masks]
    monkeypatch.setitem(sys.modules, "scipy", None)
    for mask, own in zip(masks, expected, strict=True):
        found = regions_of(mask)
        assert sorted(zip(found.boxes, found.areas, strict=True)) == sorted(zip(own.boxes, own.areas, strict=True))
        assert found.boxes == own.boxes
