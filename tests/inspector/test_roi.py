"""Regions of interest through the inspector: what happens outside changes nothing, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import SMALL, register_small, save_checkpoint
from miniature import part

from winspect import WinCLIP
from winspect.errors import PictureError, SettingsError
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.pictures.roi import Area, Roi
from winspect.weights import TINY

GOODS = [part(number, defective=False)[0] for number in range(6)]
HEIGHT, WIDTH = GOODS[0].shape[:2]
ROI = Roi(
    (WIDTH, HEIGHT),
    (
        Area(((0, 0), (0.7 * WIDTH, 0), (0.6 * WIDTH, HEIGHT), (0, HEIGHT))),
        Area(((0.1 * WIDTH, 5), (0.3 * WIDTH, 5), (0.3 * WIDTH, 0.4 * HEIGHT)), exclude=True),
    ),
)


def spoilt(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """The picture with anything at all outside."""
    other = picture.copy()
    random = np.random.default_rng(seed)
    other[~ROI.inside] = random.integers(0, 256, (int((~ROI.inside).sum()), 3))
    return other


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    register_small()
    return save_checkpoint(SMALL, tmp_path_factory.mktemp("weights"))


def model_of(recipe, weights=None, roi=ROI, **settings):
    options = {"device": "cpu", "engine": "torch", "recipe": recipe, "settings": settings, "roi": roi}
    return WinCLIP(SMALL, weights=weights, **options) if weights else WinCLIP(TINY, **options)


STEM = {"layer": "stem_8", "size": 96}
RECIPES = {
    "log": (None, {}),
    "fused": (None, {}),
    "paper": ("small", {}),
    "tiles": ("small", {}),
    "memory": (None, {**STEM, "rotations": 3}),
    "memory, thinned": (None, {**STEM, "rotations": 0, "coreset": 0.5}),
    "subspace": ("small", {"size": 64, "blocks": [2], "rotations": 2}),
    "paper+memory": ("small", {}),
    "mutual": ("small", {"size": 64}),
}


def made(name, weights, roi=ROI):
    size, settings = RECIPES[name]
    return model_of(name.split(",")[0], weights if size else None, roi, **settings)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("few_shot", [False, True])
def test_nothing_outside_changes_a_score_or_a_map(name, few_shot, weights):
    model = made(name, weights)
    if few_shot == (name == "mutual") or not (few_shot or model.method.zero_shot):
        pytest.skip("the recipe has no such scores")
    pictures = GOODS[2:6]
    found = []
    for change in (np.copy, spoilt):
        if few_shot:
            model.reference([change(good) for good in GOODS[:2]], "bolt")
        results = list(model.predict_many([change(picture) for picture in pictures], "bolt"))
        found.append(([each.anomaly_score for each in results], np.stack([each.anomaly_map for each in results])))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])
    assert (found[0][1][:, ~ROI.inside] == model.method.score_range[0]).all(), "the lowest value outside"
    assert np.ptp(found[0][1][:, ROI.inside]) > 0


@pytest.mark.parametrize("name", ["log", "tiles", "memory", "mutual"])
def test_without_a_region_of_interest_the_same_change_does_matter(name, weights):
    """The test above can fail."""
    model = made(name, weights, roi=None)
    if name != "mutual":
        model.reference(GOODS[:2], "bolt")
    changed = [spoilt(picture, number) for number, picture in enumerate(GOODS[2:6])]
    plain, other = (list(model.predict_many(each, "bolt")) for each in (GOODS[2:6], changed))
    assert [each.anomaly_score for each in plain] != [each.anomaly_score for each in other]


@pytest.mark.parametrize("name", ["log", "paper", "tiles", "memory", "subspace"])
def test_all_of_the_picture_as_region_of_interest_gives_the_scores_of_none(name, weights):
    whole = Roi((WIDTH, HEIGHT), (Area(((0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT))),))
    with_roi, without = made(name, weights, whole), made(name, weights, None)
    for model in (with_roi, without):
        model.reference(GOODS[:2], "bolt")
    for picture in GOODS[2:4]:
        first, second = with_roi.predict(picture, "bolt"), without.predict(picture, "bolt")
        assert first.anomaly_score == pytest.approx(second.anomaly_score, abs=1e-6)
        assert first.anomaly_map == pytest.approx(second.anomaly_map, abs=2e-6)


def test_calibrations_boxes_and_levels_see_nothing_outside():
    model = model_of("memory", **STEM, rotations=0)
    model.reference(GOODS[:2], "bolt")
    first = model.calibrate(GOODS[2:6], "bolt", max_false_alarms=0.25)
    levels = model.good_levels("bolt")
    again = model.calibrate(
        [spoilt(good, number) for number, good in enumerate(GOODS[2:6])], "bolt", max_false_alarms=0.25
    )
    assert (first.scores, first.map_maxima) == (again.scores, again.map_maxima)
    bad = part(1, defective=True)[0]
    boxes = [model.predict(each, "bolt", calibration=first).judgement.defects for each in (bad, spoilt(bad))]
    assert boxes[0].boxes == boxes[1].boxes and np.array_equal(boxes[0].cells, boxes[1].cells)
    model.reference([spoilt(good) for good in GOODS[:2]], "bolt")
    assert model.good_levels("bolt") == levels


def test_a_small_region_of_interest_still_draws_boxes_of_a_defects_size():
    """What lies outside, most of the picture, is not what a region is compared with."""
    picture, mask = part(1, defective=True)
    rows, columns = np.nonzero(mask)
    x, y = columns.mean(), rows.mean()
    side = 40
    x0, y0 = min(max(0, x - side / 2), WIDTH - side), min(max(0, y - side / 2), HEIGHT - side)
    roi = Roi((WIDTH, HEIGHT), (Area(((x0, y0), (x0 + side, y0), (x0 + side, y0 + side), (x0, y0 + side))),))
    model = model_of("memory", roi=roi, **STEM, rotations=0, sigma=1.0)
    model.reference(GOODS[:4], "bolt")
    result = model.predict(picture, "bolt", threshold=0.0)
    defects = result.judgement.defects
    assert 0 < sum(defects.areas) < 0.7 * side * side
    assert not (defects.mask & ~roi.inside).any()


def test_a_calibration_of_another_region_of_interest_is_refused():
    model, plain = model_of("memory", **STEM, rotations=0), model_of("memory", roi=None, **STEM, rotations=0)
    for each in (model, plain):
        each.reference(GOODS[:2], "bolt")
    calibration = model.calibrate(GOODS[2:6], "bolt", max_false_alarms=0.25)
    assert calibration.identity.roi == ROI.words
    model.predict(GOODS[2], "bolt", calibration=calibration)
    with pytest.raises(SettingsError, match="roi"):
        plain.predict(GOODS[2], "bolt", calibration=calibration)
    with pytest.raises(SettingsError, match="roi"):
        model.predict(GOODS[2], "bolt", calibration=plain.calibrate(GOODS[2:6], "bolt", max_false_alarms=0.25))


def test_a_picture_of_another_size_is_an_error_of_its_own():
    model = model_of("memory", **STEM, rotations=0)
    model.reference(GOODS[:2], "bolt")
    good, other = model.predict_many([GOODS[2], GOODS[2][:-1]], "bolt")
    assert good.error is None and isinstance(other.error, PictureError) and "was drawn on" in str(other.error)


def test_a_saved_state_has_its_region_of_interest(tmp_path):
    model = model_of("memory", **STEM, rotations=0)
    model.reference(GOODS[:2], "bolt")
    loaded = WinCLIP.load(model.save(tmp_path / "state"), engine="torch")
    assert loaded.roi == ROI and loaded.identity("bolt") == model.identity("bolt")
    assert loaded.predict(GOODS[2], "bolt").anomaly_score == model.predict(GOODS[2], "bolt").anomaly_score


def test_a_bundle_has_its_region_of_interest(tmp_path):
    model = WinCLIP(TINY, device="cpu", engine="openvino", recipe="log", roi=ROI)
    model.reference(GOODS[:2], "bolt")
    export(model, ["bolt"], tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.roi == ROI and bundle.identity("bolt") == model.identity("bolt")
    ours, spoilt_ours, theirs = (
        each.predict(picture, "bolt")
        for each, picture in ((bundle, GOODS[2]), (bundle, spoilt(GOODS[2])), (model, GOODS[2]))
    )
    assert ours.anomaly_score == spoilt_ours.anomaly_score
    assert ours.anomaly_score == pytest.approx(theirs.anomaly_score, abs=1e-4)
    assert (ours.anomaly_map[~ROI.inside] == 0).all()


def test_fewer_patches_are_kept_and_compared():
    sizes = []
    for roi in (None, ROI):
        model = model_of("memory", roi=roi, **STEM, rotations=0)
        model.reference(GOODS[:2], "bolt")
        sizes.append(len(model.state_of("bolt").references["memory"]))
    assert sizes[1] < 0.8 * sizes[0]
