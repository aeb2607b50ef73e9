"""Alignment through the inspector: moved parts score as unmoved ones, and maps lie where the defect is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from winspect import WinCLIP
from winspect.errors import ReferencesError, SettingsError
from winspect.inspector.edge import load_bundle
from winspect.inspector.export import export
from winspect.methods.result import shrunk
from winspect.outputs.rows import row_of
from winspect.pictures.roi import Area, Roi
from winspect.weights import TINY

pytest.importorskip("cv2")
SIZE = (120, 120)
SPOT = (70.0, 40.0)  # of the defect, as the reference lies


def part(seed: int, *, defective: bool = False) -> np.ndarray:
    """A part of rectangles that looks like no turned one of itself, with noise of its own: uint8 (120, 120, 3)."""
    random = np.random.default_rng(7)
    rgb = np.full((120, 120, 3), 60.0)
    for _ in range(12):
        x, y, width, height = random.integers(25, 85), random.integers(25, 80), *random.integers(6, 22, 2)
        rgb[y : y + height, x : x + width] = random.integers(0, 256, 3)
    if defective:
        rgb[36:45, 66:75] = (255, 0, 255)
    return np.clip(rgb + np.random.default_rng(seed).normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)


def moving(turn: float, shift) -> np.ndarray:
    angle, centre = np.radians(turn), np.array(SIZE) / 2
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([rotation, centre + np.array(shift) - rotation @ centre])


def moved(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2].ravel().tolist()
    how = Image.Resampling.BICUBIC
    return np.asarray(
        Image.fromarray(rgb).transform(SIZE, Image.Transform.AFFINE, inverse, how, fillcolor=(60, 60, 60))
    )


MOVE = moving(25, (10, -8))
GOODS = [part(number) for number in range(3)]


def model_of(alignment="euclidean", **more) -> WinCLIP:
    settings = {"layer": "stem_8", "size": 112, "rotations": 0, "sigma": 1.0}
    options = {"device": "cpu", "engine": "torch", "recipe": "memory", "settings": settings, "alignment": alignment}
    return WinCLIP(TINY, **options, **more)


@pytest.fixture(scope="module")
def model() -> WinCLIP:
    made = model_of()
    made.reference(GOODS, "part")
    return made


def test_a_moved_part_scores_as_one_that_was_not(model):
    good, bad = part(8), part(9, defective=True)
    unmoved, shifted = (
        [model.predict(each, "part") for each in (good, bad)]
        for good, bad in ((good, bad), (moved(good, MOVE), moved(bad, MOVE)))
    )
    assert shifted[0].anomaly_score == pytest.approx(unmoved[0].anomaly_score, abs=0.1)
    assert shifted[1].anomaly_score > 1.5 * shifted[0].anomaly_score
    plain = model_of(None)
    plain.reference(GOODS, "part")
    without = plain.predict(moved(good, MOVE), "part").anomaly_score
    assert without > 1.5 * shifted[0].anomaly_score, "this test can fail"


def test_maps_and_boxes_lie_in_the_pictures_coordinates(model):
    result = model.predict(moved(part(9, defective=True), MOVE), "part", threshold=0.0)
    x, y = MOVE @ [*SPOT, 1]
    row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
    assert abs(column + 0.5 - x) < 8 and abs(row + 0.5 - y) < 8
    (box,) = [box for box in result.judgement.defects.boxes if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
    assert max(box[2] - box[0], box[3] - box[1]) < 40
    small = shrunk(result, (60, 60)).anomaly_map
    row, column = np.unravel_index(small.argmax(), small.shape)
    assert abs(2 * column + 1 - x) < 8 and abs(2 * row + 1 - y) < 8
    assert np.isfinite(result.anomaly_map).all() and result.anomaly_map.shape == (120, 120)


def test_rows_say_how_it_was_registered(model):
    row = row_of(model.predict(moved(part(8), MOVE), "part", threshold=0.5).judgement)
    assert row["alignment"]["aligned"] and row["alignment"]["quality"] > 0.7
    assert np.abs(np.array(row["alignment"]["matrix"]) - MOVE).max() < 2
    other = model.predict(np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8), "part")
    assert not other.alignment.aligned and not row_of(other.judgement)["alignment"]["aligned"]


def test_a_region_of_interest_lies_as_the_part_does():
    x, y = SPOT
    corners = ((x - 12, y - 12), (x + 12, y - 12), (x + 12, y + 12), (x - 12, y + 12))
    with_hole = model_of(roi=Roi(SIZE, (Area(corners, exclude=True),)))
    with_hole.reference(GOODS, "part")
    good, bad = (with_hole.predict(moved(each, MOVE), "part") for each in (part(8), part(8, defective=True)))
    assert bad.anomaly_score == pytest.approx(good.anomaly_score, rel=0.2), "the defect lies outside"
    moved_x, moved_y = MOVE @ [x, y, 1]
    assert bad.anomaly_map[int(moved_y), int(moved_x)] == 0
    assert not bad.inside[int(moved_y), int(moved_x)]


def test_the_identity_has_the_first_good_sample(model):
    other = model_of()
    other.reference([GOODS[1], GOODS[0], GOODS[2]], "part")
    differences = model.identity("part").differences(other.identity("part"))
    assert [each.name for each in differences] == ["alignment"]


def test_what_is_not_aligned_is_not_calibrated_on(model):
    pictures = [moved(part(20 + number), moving(5 * number, (number, 0))) for number in range(5)]
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    calibration = model.calibrate([*pictures, noise], "part", max_false_alarms=0.2)
    assert len(calibration.scores) == 5
    assert [left_out.because for left_out in calibration.left_out] == ["not aligned"]
    plain = model_of(None)
    plain.reference(GOODS, "part")
    with pytest.raises(SettingsError, match="alignment"):
        plain.predict(pictures[0], "part", calibration=calibration)


def test_without_good_samples_there_is_nothing_to_align_to():
    bare = WinCLIP(TINY, device="cpu", engine="torch", recipe="log", alignment="affine")
    with pytest.raises(ReferencesError, match="alignment registers pictures to the first good sample"):
        bare.predict(part(1), "part")
    with pytest.raises(ReferencesError, match="not aligned to the first"):
        bare.reference([part(0), np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)], "part")


def test_saved_states_and_other_processes_align_alike(model, tmp_path):
    loaded = WinCLIP.load(model.save(tmp_path / "state"), engine="torch")
    taken = model_of()
    taken.take("part", model.state_of("part"))
    expected = model.predict(moved(part(8), MOVE), "part")
    for other in (loaded, taken):
        found = other.predict(moved(part(8), MOVE), "part")
        assert found.anomaly_score == expected.anomaly_score and found.alignment == expected.alignment
        assert other.identity("part") == model.identity("part")


def test_a_bundle_aligns_alike(tmp_path):
    made = WinCLIP(TINY, device="cpu", engine="openvino", recipe="log", alignment="euclidean")
    made.reference(GOODS, "part")
    export(made, ["part"], tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.alignment == made.alignment
    found, expected = (each.predict(moved(part(8), MOVE), "part") for each in (bundle, made))
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-4)
    assert found.alignment == expected.alignment and found.alignment.aligned


def test_what_is_not_aligned_is_never_normal(model):
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    found = model.predict(noise, "part", threshold=2.0)
    assert found.anomaly_score < 2 and found.verdict == "review"
    assert found.judgement.reason.startswith("not aligned: quality ")
    assert row_of(found.judgement)["reason"] == found.judgement.reason
    assert model.predict(moved(part(8), MOVE), "part", threshold=2.0).verdict == "normal"
    assert model.predict(noise, "part", threshold=0.0).verdict == "anomalous", "a graver verdict stays"
