"""Maps and overlays at a size worth sending."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from winspect.errors import PictureError
from winspect.methods.result import Result
from winspect.pictures.heatmaps import annotated_overlay
from winspect.pictures.tiles import tile_boxes
from winspect.service.backend import _look
from winspect.service.contract import Judged
from winspect.service.http.judging import Question, _judge
from winspect.service.pool.overlay import Look, overlay_png, shrink_picture, shrunk, smaller_size


def judged(size_wh, *, tiles=True, seed=0):
    boxes = tuple(tile_boxes(*size_wh)) if tiles else ((0, 0, *size_wh),)
    maps = np.random.default_rng(seed).random((len(boxes), 5, 5), np.float32)
    return Result("a.png", "part", 0.5, maps, boxes, size_wh)


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
    with pytest.raises(ValueError, match="without maps"):
        overlay_png(Result("a.png", "part", 0.5, size_wh=(9, 9)), np.zeros((9, 9, 3), np.uint8), (0, 1), Look())


def test_an_overlay_is_the_judged_heat_map():
    whole = judged((160, 120), tiles=False)
    rgb = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    look = {"score": whole.anomaly_score, "verdict": "anomalous"}
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(overlay_png(whole, rgb, (0.2, 0.9), Look(threshold=0.0))))),
        annotated_overlay(rgb, whole.anomaly_map, (0.2, 0.9), **look),
    )
    small = shrink_picture(rgb, 60)
    assert small.shape == (45, 60, 3)
    assert Image.open(io.BytesIO(overlay_png(whole, small, (0, 1), Look()))).size == (60, 45)
    assert shrink_picture(rgb, 160) is rgb


def test_an_overlay_shows_the_verdict_by_the_threshold_of_the_request():
    looks = []

    class Backend:
        async def predict(self, picture, *, name, category_name, threshold, overlay, **_):
            assert overlay
            looks.append(_look(None, threshold))
            return Judged(judged((160, 120), tiles=False), None, None, 0.0, 0.0, 1, 0)

    score = judged((160, 120), tiles=False).anomaly_score
    for threshold in (score, None):
        question = Question("part", 0.0, threshold=threshold, overlay=True)
        asyncio.run(_judge(Backend(), "a.png", b"", question))
    assert looks == [Look(None, score, anomalous_at=True), Look()]
    rgb = np.zeros((120, 160, 3), np.uint8)
    whole = judged((160, 120), tiles=False)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(overlay_png(whole, rgb, (0, 1), looks[0])))),
        annotated_overlay(rgb, whole.anomaly_map, (0, 1), score=score, verdict="anomalous"),
    )
