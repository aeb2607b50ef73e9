"""Recipes: what they are by name, single settings replaced, and every bad value refused."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from winspect import RECIPES, Recipe
from winspect.errors import SettingsError
from winspect.methods.registry import all_settings
from winspect.methods.winclip.recipes import get_recipe


def test_paper_is_the_papers():
    recipe = get_recipe("paper")
    assert (recipe.tiling, recipe.temperature, recipe.text_average) == (False, 0.07, "raw")
    assert (recipe.scales, recipe.stride, recipe.fusion) == ((2, 3), 1, "sum")


def test_tiles_differs_in_cut_temperature_and_average_alone():
    paper, tiles = (dataclasses.asdict(get_recipe(name)) for name in ("paper", "tiles"))
    assert {key: tiles[key] for key in tiles if tiles[key] != paper[key]} == {
        "name": "tiles",
        "tiling": True,
        "temperature": 0.01,
        "text_average": "normalised",
        "repeat_last": True,
    }
    assert tiles["tile_stride"] == 0.8


def test_settings_that_an_earlier_release_did_not_know_are_as_it_judged():
    now = json.loads(json.dumps(dataclasses.asdict(get_recipe("tiles"))))
    earlier = {key: now[key] for key in now if key not in ("repeat_last", "tile_references", "patch_norm")}
    assert all_settings(earlier) == {**now, "repeat_last": False}
    assert all_settings(now) == now


@pytest.mark.parametrize(("name", "value"), [("tile_references", "same"), ("patch_norm", True)])
def test_log_fusion_keeps_what_it_was_fitted_on(name, value):
    with pytest.raises(SettingsError, match=f"^{name}: got .*with fusion log"):
        get_recipe("log", {name: value})


def test_every_recipe_has_its_own_name():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    with pytest.raises(TypeError):
        RECIPES["own"] = Recipe("own")


def test_settings_replace_fields_and_leave_the_recipe_alone():
    changed = get_recipe("paper", {"temperature": 1, "scales": [3], "stride": 3, "tile_stride": 1})
    assert changed == Recipe("paper", temperature=1, scales=(3,), stride=3, tile_stride=1)
    assert RECIPES["paper"].temperature == 0.07
    assert get_recipe("paper", {"scales": []}).scales == ()  # the image embedding alone


def test_a_recipe_object_passes_through():
    own = Recipe("own", temperature=0.2)
    assert get_recipe(own) == own
    assert get_recipe(own, {"stride": 2}).temperature == 0.2


@pytest.mark.parametrize("name", ["soup", "", "Paper"])
def test_unknown_recipes(name):
    with pytest.raises(SettingsError, match=f"got the recipe '{name}', need one of paper, tiles, log"):
        get_recipe(name)


@pytest.mark.parametrize("name", ["colour", "name", "Temperature"])
def test_unknown_settings(name):
    with pytest.raises(SettingsError, match=f"unknown setting {name}; known are tiling, tile_stride, temperature"):
        get_recipe("paper", {name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", -0.07),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "0.07"),
        ("temperature", True),
        ("temperature", None),
        ("tile_stride", 0),
        ("tile_stride", 1.01),
        ("tile_stride", math.nan),
        ("tile_stride", "half"),
        ("text_average", "mean"),
        ("text_average", None),
        ("text_average", ["raw"]),
        ("fusion", "product"),
        ("fusion", ["sum"]),
        ("tiling", "yes"),
        ("tiling", 1),
        ("repeat_last", 2),
        ("patch_norm", "no"),
        ("tile_references", "all"),
        ("tile_references", ["same"]),
        ("scales", 2),
        ("scales", None),
        ("scales", "23"),
        ("scales", (0,)),
        ("scales", (2, 2)),
        ("scales", (2.0,)),
        ("scales", (True,)),
        ("stride", 0),
        ("stride", 3),
        ("stride", 1.0),
        ("stride", True),
        ("stride", "1"),
        ("temperature", 1e-300),
        ("temperature", 10**400),
        pytest.param("temperature", 10**10_000, id="temperature-digits"),
        ("tile_stride", 1e-9),
        ("scales", (1_000_000,)),
        pytest.param("scales", (10**10_000,), id="scales-digits"),
        ("scales", tuple(range(1, 100))),
        pytest.param("stride", 10**10_000, id="stride-digits"),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(SettingsError, match=f"^{name}: got .*, need "):
        get_recipe("paper", {name: value})
