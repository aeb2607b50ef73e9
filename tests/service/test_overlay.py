"""Maps and overlays at a size worth sending."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from winspect.calibration import DecisionRule
from winspect.errors import PictureError
from winspect.methods.result import Result, shrunk
from winspect.pictures.heatmaps import annotated_overlay
from winspect.pictures.tiles import tile_boxes
from winspect.service.pool.overlay import overlay_png, shrink_picture


def judged(size_wh, *, tiles=True, seed=0):
    boxes = tuple(tile_boxes(*size_wh)) if tiles else ((0, 0, *size_wh),)
    maps = np.random.default_rng(seed).random((len(boxes), 5, 5), np.float32)
    return Result("a.png", "part", 0.5, maps, boxes, size_wh)


def smaller_size(size_wh, longest):
    return shrink_picture(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), longest).shape[1::-1]


@pytest.mark.parametrize(
    ("size_wh", "longest", "expected"),
    [((100, 50), 1000, (100, 50)), ((3000, 1500), 1000, (1000, 500)), ((9000, 3), 900, (900, 1)), ((1, 1), 1, (1, 1))],
)
def test_sizes(size_wh, longest, expected):
    assert smaller_size(size_wh, longest) == expected


@pytest.mark.parametrize("size_wh", [(400, 400), (1000, 250), (250, 1000), (997, 313), (640, 10)])
@pytest.mark.parametrize("longest", [400, 333, 100, 20])
def test_a_small_map_is_the_large_one_seen_from_afar(size_wh, longest):
    whole = judged(size_wh)
    small = shrunk(whole, smaller_size(size_wh, longest))
    assert small.anomaly_map.shape == smaller_size(size_wh, longest)[::-1]
    assert np.isfinite(small.anomaly_map).all(), "tiles leave no gap"
    assert (small.anomaly_score, small.path) == (whole.anomaly_score, whole.path)
    if min(small.size_wh) >= 20:  # where pixels are small beside patches
        seen = Image.fromarray(whole.anomaly_map).resize(small.size_wh, Image.Resampling.BOX)
        assert np.abs(small.anomaly_map - np.asarray(seen)).mean() < 0.03


def test_at_its_own_size_nothing_changes():
    whole = judged((500, 200))
    same = shrunk(whole, (500, 200))
    assert same.tile_boxes == whole.tile_boxes
    np.testing.assert_array_equal(same.anomaly_map, whole.anomaly_map)


def test_a_result_without_maps_stays_as_it_is():
    failed = Result("a.png", "part", error=PictureError("a.png", "bad"))
    assert shrunk(failed, (10, 10)) is failed
    with pytest.raises(ValueError, match="without"):
        overlay_png(DecisionRule().decide(Result("a.png", "part", 0.5, size_wh=(9, 9))), (0, 1))


def overlay(result, rgb, score_range, **rule):
    png = overlay_png(DecisionRule(**rule).decide(replace(result, picture_rgb=rgb)), score_range)
    return np.asarray(Image.open(io.BytesIO(png)))


def test_an_overlay_is_the_annotated_heat_map():
    whole = judged((160, 120), tiles=False)
    rgb = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    for threshold, verdict in ((0.0, "anomalous"), (whole.anomaly_score, "anomalous"), (0.9, "normal"), (None, None)):
        np.testing.assert_array_equal(
            overlay(whole, rgb, (0.2, 0.9), threshold=threshold),
            annotated_overlay(rgb, whole.anomaly_map, (0.2, 0.9), score=whole.anomaly_score, verdict=verdict),
        )
    small = shrink_picture(rgb, 60)
    assert small.shape == (45, 60, 3)
    assert overlay(whole, small, (0, 1)).shape == small.shape
    assert shrink_picture(rgb, 160) is rgb
