"""Heat maps: transparent where nothing is wrong, coloured where something is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from winspect.errors import OutputError
from winspect.heatmaps import SMALLEST_SPAN, heat_overlay, heat_range, save_png

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
