"""Heat maps: transparent where nothing is wrong, coloured where something is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from winspect.errors import OutputError
from winspect.pictures.heatmaps import (
    SMALLEST_SPAN,
    UNIT_RANGE,
    annotated_overlay,
    heat_overlay,
    heat_range,
    run_range,
    save_png,
)

GREY = np.full((20, 30, 3), 120, np.uint8)


def one_spot(value: float) -> np.ndarray:
    anomaly_map = np.full((20, 30), 0.2, np.float32)
    anomaly_map[5, 7] = value
    return anomaly_map


def test_only_the_spot_is_painted():
    painted = heat_overlay(GREY, one_spot(0.9))
    assert painted.dtype == np.uint8
    changed = np.argwhere((painted != GREY).any(axis=2))
    assert changed.tolist() == [[5, 7]]
    red, green, _ = painted[5, 7].astype(int)
    assert red > green + 30


def test_a_quiet_map_is_not_stretched_to_full_heat():
    low, high = heat_range(one_spot(0.21))
    assert (low, high) == pytest.approx((0.2, 0.2 + SMALLEST_SPAN))
    quiet, loud = heat_overlay(GREY, one_spot(0.21)), heat_overlay(GREY, one_spot(0.9))
    assert abs(quiet.astype(int) - GREY).max() < abs(loud.astype(int) - GREY).max() / 3


def test_a_shared_range_makes_equal_scores_equal_colours():
    first = heat_overlay(GREY, one_spot(0.5), score_range=(0.2, 1.0))
    other = one_spot(0.5)
    other[0, 0] = 1.0
    second = heat_overlay(GREY, other, score_range=(0.2, 1.0))
    assert (first[5, 7] == second[5, 7]).all()
    assert (second[0, 0] != second[5, 7]).any()


def test_values_outside_the_range_are_its_ends():
    painted = heat_overlay(GREY, one_spot(7.0), score_range=(0.5, 0.6))
    assert (painted[0, 0] == GREY[0, 0]).all()
    assert (painted[5, 7] != GREY[5, 7]).any()


@pytest.mark.parametrize("good", [[0.05, 0.07, 0.1], [0.48, 0.5, 0.52], [0.6, 0.7, 0.9], [0.99, 0.995, 0.999]])
def test_a_runs_scale_starts_at_good_pictures_and_passes_the_threshold(good):
    low, high = run_range(good, good[-1])
    assert 0 <= low <= good[1] and high <= 1 and high - low >= SMALLEST_SPAN - 1e-9
    quiet, loud = (heat_overlay(GREY, np.full((20, 30), value), (low, high)) for value in (good[0], 1.0))
    painted = [abs(one.astype(int) - GREY).max() for one in (quiet, loud)]
    assert painted[0] < painted[1]


def test_without_good_pictures_the_scale_is_that_of_all_scores():
    assert run_range(None) == run_range(()) == run_range([0.3]) == UNIT_RANGE
    assert run_range((), 0.5) == pytest.approx((0.5, 0.65))


def test_score_verdict_and_colour_bar_are_drawn_and_the_old_look_has_none():
    rgb, heat = np.full((240, 320, 3), 120, np.uint8), np.zeros((240, 320), np.float32)
    heat[100:120, 100:140] = 0.9
    plain = heat_overlay(rgb, heat, (0.2, 1.0))
    drawn = annotated_overlay(rgb, heat, (0.2, 1.0), score=0.83, verdict="anomalous", boxes=[[100, 100, 140, 120]])
    changed = (drawn != plain).any(axis=2)
    assert drawn.shape == rgb.shape and changed[-15:].all()
    assert changed[100, 100:140].all() and not changed[103:117, 104:136].any()  # an outline, its inside is seen
    assert not changed[:98].any()
    other = annotated_overlay(rgb, heat, (0.2, 1.0), score=0.11, verdict="normal")
    assert (other[-15:] != drawn[-15:]).any()
    bar = drawn[-8, 160:].astype(int)
    assert (bar[:, 0] - bar[:, 1]).max() > 100  # from white to magenta
    stretched = annotated_overlay(rgb, heat, None, score=0.83, verdict="anomalous", boxes=[[100, 100, 140, 120]])
    assert (stretched == heat_overlay(rgb, heat)).all()


@pytest.mark.parametrize("size_wh", [(1, 1), (30, 20), (121, 61), (3000, 40), (40, 3000)])
def test_any_size_can_be_drawn_on(size_wh):
    rgb = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    drawn = annotated_overlay(rgb, rgb[..., 0] * 1.0, (0, 1), score=0.5, verdict="normal", boxes=[[0, 0, 1, 1]])
    assert drawn.shape == rgb.shape


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="need equal sizes"):
        heat_overlay(GREY, np.zeros((30, 20), np.float32))
    with pytest.raises(ValueError, match="second above the first"):
        heat_overlay(GREY, one_spot(1), score_range=(0.5, 0.5))


def test_png_is_whole_or_not_there(tmp_path):
    save_png(GREY, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert (np.asarray(saved) == GREY).all()
    with pytest.raises(OutputError, match=r"b\.png: cannot write"):
        save_png(GREY, tmp_path / "missing" / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
