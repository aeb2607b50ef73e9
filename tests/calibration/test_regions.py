"""Regions of defects: where a peak reaches, what is merged and dropped, and that good pictures show none."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from winspect import Result
from winspect.calibration import RegionRule
from winspect.calibration.conformal import conformal_threshold
from winspect.calibration.regions import map_peak, working_size
from winspect.errors import SettingsError
from winspect.methods.upsampling import Upsampling, upsample

GRID, SIDE = 15, 240
PATCH = SIDE // GRID


def result_of(grid: np.ndarray, size_wh=(SIDE, SIDE), score=0.5, score_range=(0.0, 1.0)) -> Result:
    width, height = size_wh
    place = {"tile_boxes": ((0, 0, width, height),), "size_wh": size_wh}
    return Result("a.png", "nut", score, grid[None].astype(np.float32), **place, score_range=score_range)


def blobs(*places: tuple[float, float, float], base=0.05, width=1.0) -> np.ndarray:
    """A quiet map with bumps: (row, column, height) in patches."""
    rows, columns = np.mgrid[:GRID, :GRID]
    odds = np.full((GRID, GRID), np.log(base / (1 - base)))
    for row, column, height in places:
        bump = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        odds = np.maximum(odds, odds[0, 0] + (np.log(height / (1 - height)) - odds[0, 0]) * bump)
    return 1 / (1 + np.exp(-odds))


def iou(one, other) -> float:
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    inside = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def patch_box(row, column, reach):
    """The pixels within so many patches of the middle of a patch."""
    x, y = ((place + 0.5) * PATCH for place in (column, row))
    return x - reach * PATCH, y - reach * PATCH, x + reach * PATCH, y + reach * PATCH


@pytest.mark.parametrize("height", [0.3, 0.6, 0.9, 0.99])
def test_a_region_follows_its_peak_not_how_strong_it_is(height):
    found = RegionRule(0.2).find(result_of(blobs((4, 9, height))), "anomalous")
    (box,) = found.boxes
    assert iou(box, patch_box(4, 9, 0.8)) > 0.6  # a threshold of 0.2 alone: 0.9 for the weakest, 0.2 for the strongest
    assert found.mask.sum() == found.areas[0]


def test_an_anomalous_picture_has_the_region_of_its_highest_value_and_a_normal_one_none():
    weak = result_of(blobs((4, 9, 0.3)))
    strict = RegionRule(0.8)
    (box,) = strict.find(weak, "anomalous").boxes
    assert iou(box, patch_box(4, 9, 0.8)) > 0.6
    strong = result_of(blobs((4, 9, 0.95)))
    assert strict.find(strong, "normal").boxes == ()
    assert strict.find(strong, "normal").mask.shape == (SIDE, SIDE)
    asked_for = RegionRule(0.8, pictures="all")
    assert len(asked_for.find(strong, "normal").boxes) == 1
    assert asked_for.find(weak, "normal").boxes == ()
    assert RegionRule().find(strong, "anomalous").boxes == strict.find(strong, "anomalous").boxes


def test_fragments_are_one_region_and_defects_apart_are_two():
    near, apart = blobs((5, 4, 0.8), (5, 6, 0.8), width=0.9), blobs((5, 3, 0.8), (5, 11, 0.8), width=0.9)
    assert [len(RegionRule(0.3).find(result_of(one), "anomalous").boxes) for one in (near, apart)] == [1, 2]


def test_what_is_low_beside_the_highest_peak_is_no_region():
    busy = blobs((4, 4, 0.97), *((row, column, 0.3) for row in (1, 7, 12) for column in (8, 12)), width=0.6)
    result = result_of(busy)
    assert (result.anomaly_map > 0.2).sum() > 6 * PATCH**2 / 2  # a threshold alone: seven boxes
    assert len(RegionRule(0.2).find(result, "anomalous").boxes) == 1


def test_small_regions_are_dropped_but_for_the_highest():
    result = result_of(blobs((4, 4, 0.9), (11, 11, 0.8), width=0.5))
    both = RegionRule(0.3).find(result, "anomalous")
    assert len(both.areas) == 2
    assert RegionRule(0.3, min_area=max(both.areas) + 1).find(result, "anomalous").boxes == both.boxes[:1]
    assert RegionRule(0.3, min_area=max(both.areas) + 1, pictures="all").find(result, "normal").boxes == ()
    with pytest.raises(SettingsError, match=r"min_area: got -1, need a number of pixels"):
        RegionRule(0.3, min_area=-1)


@pytest.mark.parametrize("size_wh", [(4000, 3000), (241, 97), (40, 30), (3, 2)])
def test_boxes_are_the_masks_at_any_size(size_wh):
    result = result_of(blobs((4, 4, 0.9), (11, 11, 0.9), width=0.6), size_wh)
    found = RegionRule(0.3, min_area=0).find(result, "anomalous")
    width, height = size_wh
    assert found.mask.shape == (height, width)
    assert sum(found.areas) == found.mask.sum() > 0
    boxed = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in found.boxes:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert all(side.any() for side in (found.mask[y0:y1, x0], found.mask[y0, x0:x1], found.mask[y1 - 1, x0:x1]))
        boxed[y0:y1, x0:x1] = True
    assert boxed[found.mask].all()


def test_tiles_that_overlap_are_one_map():
    one = blobs((7, 7, 0.9))
    maps = np.stack([one, np.full_like(one, 0.05)]).astype(np.float32)
    result = Result("a.png", "nut", 0.5, maps, ((0, 0, SIDE, SIDE), (200, 0, 440, SIDE)), (440, SIDE))
    (box,) = RegionRule(0.3).find(result, "anomalous").boxes
    assert iou(box, patch_box(7, 7, 0.8)) > 0.6


def test_a_map_finer_than_patches_has_the_regions_of_its_patches():
    grid = blobs((4, 9, 0.9), (11, 3, 0.8), width=1.2)
    coarse = result_of(grid, (4000, 3000))
    fine = replace(
        coarse,
        tile_maps=upsample(coarse.tile_maps, (GRID * 16, GRID * 16)),
        upsampling=Upsampling(per_patch=16),
    )
    assert working_size(fine) == working_size(coarse) == (GRID * 15, GRID * 15)
    assert map_peak(fine) == pytest.approx(map_peak(coarse), rel=0.1)
    expected, found = (RegionRule(0.3).find(each, "anomalous").boxes for each in (coarse, fine))
    assert len(found) == len(expected) == 2
    assert all(iou(*pair) > 0.7 for pair in zip(expected, found, strict=True))
    # One hot value is a tip, and no region: a tenth of a patch is asked for, not of a value.
    tip = fine.tile_maps.copy()
    tip[0, 230, 230] = 0.75
    assert RegionRule(0.3).find(replace(fine, tile_maps=tip), "anomalous").boxes == found


@pytest.mark.parametrize("unit", [0.1, 1, 1e4])
def test_scores_that_are_no_probabilities_have_the_same_regions_in_any_unit(unit):
    """The method says that they are none, also where they lie between 0 and 1."""
    grid = blobs((4, 9, 0.9), (11, 3, 0.8), width=0.6)
    expected = RegionRule(0.3 * 100).find(result_of(100 * grid, score_range=(0, np.inf)), "anomalous")
    assert len(expected.boxes) == 2
    scaled = result_of(unit * grid, score_range=(0, np.inf))
    assert RegionRule(0.3 * unit).find(scaled, "anomalous").boxes == expected.boxes
    assert RegionRule(0.95 * unit, pictures="all").find(scaled, "normal").boxes == ()


def test_without_scipy_regions_are_the_same(monkeypatch):
    results = [result_of(np.random.default_rng(seed).random((GRID, GRID)) ** 3) for seed in range(4)]
    expected = [RegionRule(0.3, pictures="all").find(one, "normal") for one in results]
    assert sum(len(one.boxes) for one in expected) > 4
    monkeypatch.setitem(sys.modules, "scipy", None)
    for one, own in zip(results, expected, strict=True):
        found = RegionRule(0.3, pictures="all").find(one, "normal")
        assert (found.boxes, found.areas) == (own.boxes, own.areas)


def test_at_most_the_rate_of_good_pictures_shows_a_region():
    """Exchangeable: each of n + 1 good maps is the new one once. Counted, not simulated."""
    maps = [result_of(np.random.default_rng(seed).random((GRID, GRID)) ** 4, (97, 61)) for seed in range(20)]
    peaks = [map_peak(one) for one in maps]
    shown = 0
    for new, result in enumerate(maps):
        threshold = conformal_threshold(sorted(peaks[:new] + peaks[new + 1 :]), 0.1)
        found = RegionRule(threshold, min_area=0, pictures="all").find(result, "normal")
        assert bool(found.boxes) == (peaks[new] > threshold)
        shown += bool(found.boxes)
    assert shown == 2  # of 20: the rate, kept exactly


def test_a_constant_map_is_one_region_and_no_map_is_none():
    found = RegionRule(0.5).find(result_of(np.full((GRID, GRID), 0.2)), "anomalous")
    assert found.boxes == ((0, 0, SIDE, SIDE),)
    assert RegionRule(0.5).find(Result("a.png", "nut", 0.9), "anomalous") is None
