"""Heat maps at any size, and the files of maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from winspect.calibration import DecisionRule, RegionRule
from winspect.errors import PictureError
from winspect.methods.result import Result, shrunk, smaller_size
from winspect.outputs.maps import MapFiles, overlay_of, smaller_picture
from winspect.pictures.heatmaps import annotated_overlay
from winspect.pictures.tiles import tile_boxes


def result(size_wh, *, tiles=True, seed=0):
    boxes = tuple(tile_boxes(*size_wh)) if tiles else ((0, 0, *size_wh),)
    maps = np.random.default_rng(seed).random((len(boxes), 5, 5), np.float32)
    return Result("a.png", "part", 0.5, maps, boxes, size_wh)


@pytest.mark.parametrize(
    ("size_wh", "longest", "expected"),
    [((100, 50), 1000, (100, 50)), ((3000, 1500), 1000, (1000, 500)), ((9000, 3), 900, (900, 1)), ((1, 1), 1, (1, 1))],
)
def test_sizes(size_wh, longest, expected):
    assert smaller_size(size_wh, longest=longest) == expected


@pytest.mark.parametrize("size_wh", [(400, 400), (1000, 250), (250, 1000), (997, 313), (640, 10)])
@pytest.mark.parametrize("longest", [400, 333, 100, 20])
def test_a_small_map_is_the_large_one_seen_from_afar(size_wh, longest):
    whole = result(size_wh)
    small = shrunk(whole, smaller_size(size_wh, longest=longest))
    assert small.anomaly_map.shape == smaller_size(size_wh, longest=longest)[::-1]
    assert np.isfinite(small.anomaly_map).all(), "tiles leave no gap"
    assert (small.anomaly_score, small.path) == (whole.anomaly_score, whole.path)
    if min(small.size_wh) >= 20:  # where pixels are small beside patches
        seen = Image.fromarray(whole.anomaly_map).resize(small.size_wh, Image.Resampling.BOX)
        assert np.abs(small.anomaly_map - np.asarray(seen)).mean() < 0.03


def test_at_its_own_size_nothing_changes():
    whole = result((500, 200))
    same = shrunk(whole, (500, 200))
    assert same.tile_boxes == whole.tile_boxes
    np.testing.assert_array_equal(same.anomaly_map, whole.anomaly_map)


def test_a_result_without_maps_stays_as_it_is():
    failed = Result("a.png", "part", error=PictureError("a.png", "bad"))
    assert shrunk(failed, (10, 10)) is failed
    with pytest.raises(ValueError, match="without"):
        overlay_of(DecisionRule().decide(Result("a.png", "part", 0.5, size_wh=(9, 9))), (0, 1))


def overlay(scored, rgb, score_range, **rule):
    return overlay_of(DecisionRule(**rule).decide(replace(scored, picture_rgb=rgb)), score_range)


def test_an_overlay_is_the_annotated_heat_map():
    whole = result((160, 120), tiles=False)
    rgb = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    for threshold, verdict in ((0.0, "anomalous"), (whole.anomaly_score, "anomalous"), (0.9, "normal"), (None, None)):
        np.testing.assert_array_equal(
            overlay(whole, rgb, (0.2, 0.9), threshold=threshold),
            annotated_overlay(rgb, whole.anomaly_map, (0.2, 0.9), score=whole.anomaly_score, verdict=verdict),
        )
    small = smaller_picture(rgb, 60)
    assert small.shape == (45, 60, 3)
    assert overlay(whole, small, (0, 1)).shape == small.shape
    assert smaller_picture(rgb, 160) is rgb


def test_boxes_follow_the_picture_to_its_smaller_size():
    scored = result((400, 400), tiles=False)
    rgb = np.zeros((400, 400, 3), np.uint8)
    judgement = DecisionRule(0.0, regions=RegionRule(0.99)).decide(
        replace(scored, picture_rgb=smaller_picture(rgb, 200))
    )
    assert judgement.boxes
    expected = annotated_overlay(
        np.zeros((200, 200, 3), np.uint8),
        shrunk(scored, (200, 200)).anomaly_map,
        (0, 1),
        score=0.5,
        verdict="anomalous",
        boxes=[[round(edge / 2) for edge in box] for box in judgement.boxes],
    )
    np.testing.assert_array_equal(overlay_of(judgement, (0, 1)), expected)


@pytest.mark.parametrize(
    ("kinds", "map_name", "files"),
    [
        ({}, None, []),
        ({"overlays": True}, "a.png", ["a.png"]),
        ({"raw_maps": True}, "a.npz", ["a.npz"]),
        ({"overlays": True, "raw_maps": True, "masks": True}, "a.png", ["a.npz", "a.png", "a_mask.png"]),
    ],
)
def test_files_of_maps_are_those_asked_for(tmp_path, kinds, map_name, files):
    scored = replace(result((40, 30)), picture_rgb=np.zeros((30, 40, 3), np.uint8))
    judgement = DecisionRule(0.0, regions=RegionRule(0.9)).decide(scored)
    maps = MapFiles(tmp_path, **kinds)
    maps.write(judgement, "a")
    assert maps.map_name(judgement, "a") == map_name
    assert maps.mask_name(judgement, "a") == ("a_mask.png" if kinds.get("masks") else None)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    if kinds.get("raw_maps"):
        with np.load(tmp_path / "a.npz") as file:
            np.testing.assert_array_equal(file["anomaly_map"], scored.anomaly_map)
    if kinds.get("masks"):
        with Image.open(tmp_path / "a_mask.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) > 0, judgement.defects.mask)


def test_a_picture_that_failed_has_no_files(tmp_path):
    failed = DecisionRule(regions=RegionRule(0.9)).decide(Result("a.png", "b", error=PictureError("a.png", "bad")))
    maps = MapFiles(tmp_path, overlays=True, raw_maps=True, masks=True)
    maps.write(failed, "a")
    assert (maps.map_name(failed, "a"), maps.mask_name(failed, "a"), list(tmp_path.iterdir())) == (None, None, [])
