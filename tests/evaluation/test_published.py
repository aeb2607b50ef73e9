"""Published tables and their conditions: a run is held to what a table was made with, and to its means."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from winspect.datasets import official
from winspect.errors import SettingsError, UsageError
from winspect.evaluation.compare import compare_published
from winspect.evaluation.published import different_conditions, get_table, matching_tables, published_tables, remarks
from winspect.evaluation.results import METRICS, Run
from winspect.methods.registry import get_method
from winspect.methods.winclip.prompts import PROMPT_SETS, TEMPLATES, PromptEnsemble
from winspect.methods.winclip.recipes import get_recipe

OFFICIAL = "8fb26589" + 56 * "0"


def made(table_name: str, dataset: str = "visa", shots: int = 0, **changes) -> dict:
    """Results of a run as a table was made, with its very figures."""
    table = get_table(table_name)
    entry, conditions = table.entry(dataset, shots), table.conditions
    settings = {} if conditions.underscores is None else {"underscores": conditions.underscores}
    recipe = get_method(table.recipe, {**settings, **entry.settings}).document()
    nothing = dict.fromkeys(METRICS)
    categories = {name: {**nothing, **figures} for name, figures in entry.categories.items()}
    return {
        "dataset": dataset,
        "shots": shots,
        "model": table.model,
        "weights": conditions.weights,
        "weights_sha256": OFFICIAL,
        "recipe": table.recipe,
        "recipe_settings": json.loads(json.dumps(recipe)),
        "prompts": json.loads(json.dumps(asdict(PROMPT_SETS[conditions.prompts or "winclip"]))),
        "class": None,
        "engine": "torch",
        "precision": "fp32",
        "device": "cpu",
        "pixel_side": conditions.pixel_side or 240,
        "categories": categories or dict.fromkeys(official.OFFICIAL[dataset], nothing),
        "mean": {**nothing, **entry.mean},
        **changes,
    }


def against(results: dict, table: str, **options):
    return compare_published(Run(path="run", results=results), get_table(table), **options)


def test_a_run_made_as_each_table_is_within_it_and_beside_it():
    for name, table in published_tables().items():
        for entry in table.entries:
            results = made(name, entry.dataset, entry.shots)
            if entry.not_comparable:
                assert different_conditions(table, results) == [entry.not_comparable]
                continue
            assert different_conditions(table, results) == []
            assert name in [found.name for found, _ in matching_tables(results)]
            assert against(results, name, tolerance=0).within
            assert set(entry.mean).union(*entry.categories.values()) <= set(METRICS)


def test_accurate_winclip_has_21_templates_and_raw_names():
    ensemble = PromptEnsemble.read("accurate-winclip")
    normal, anomalous = ensemble.prompts("pipe_fryum", underscores="keep")
    assert (len(normal), len(anomalous)) == (7 * 21, 4 * 21)
    assert set(TEMPLATES) - set(ensemble.templates) == {
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
    }
    assert ensemble.templates.count("a jpeg corrupted photo of the {}.") == 2
    assert "a cropped photo of the damaged pipe_fryum." in anomalous
    assert PromptEnsemble.read(None) == PromptEnsemble.read("winclip") == PromptEnsemble()
    with pytest.raises(SettingsError, match="cannot read the prompts"):
        PromptEnsemble.read("./accurate-winclip")


def test_accurate_winclip_is_held_to_its_own_conditions():
    ours = {"prompts": json.loads(json.dumps(asdict(PromptEnsemble())))}
    with pytest.raises(UsageError, match=r"different prompts \(published --prompts accurate-winclip\)"):
        against(made("accurate-winclip", **ours), "accurate-winclip")
    spaces = {"recipe_settings": json.loads(json.dumps(asdict(get_recipe("paper"))))}
    with pytest.raises(UsageError, match=r"underscores of class names \(space, published --set underscores=keep\)"):
        against(made("accurate-winclip", **spaces), "accurate-winclip")
    # Where no name has one, there is no difference.
    results = made("accurate-winclip", **spaces)
    del results["categories"]["pipe_fryum"]
    assert different_conditions(get_table("accurate-winclip"), results) == []
    assert [table.name for table, _ in matching_tables(made("accurate-winclip"))] == ["accurate-winclip"]
    assert [table.name for table, _ in matching_tables(made("winclip"))] == ["winclip"]


def test_pixel_figures_of_another_size_stand_beside_none():
    for side, kept in ((240, True), (512, False)):
        results = made("accurate-winclip", pixel_side=side)
        ((table, entry),) = matching_tables(results)
        assert ("pixel_aupro" in entry.mean) is kept
        assert all(("pixel_auroc" in figures) is kept for figures in entry.categories.values())
        assert "image_auroc" in entry.mean
        said = " ".join(remarks(table, entry, results))
        assert ("pixel figures are left out: ours are at 512 pixels a side, theirs at 240" in said) is not kept
        assert (
            any("pixel_auroc" in row.figures for row in against(results, "accurate-winclip").categories.values())
            is kept
        )


@pytest.mark.parametrize("name", ["winclip", "accurate-winclip", "tiles-ascend"])
def test_random_weights_stand_beside_no_table(name):
    results = made(name, weights="random.pt", weights_sha256="1234567890" + 54 * "0")
    assert matching_tables(results) == []
    told = r"different weights \(random.pt, 12345678..., published laion400m_e31, 8fb26589...\)"
    with pytest.raises(UsageError, match=told):
        against(results, name)


@pytest.mark.parametrize("name", ["anomalydino", "subspacead", "musc-518"])
def test_a_file_of_weights_stands_beside_no_table_that_states_no_hash(name):
    shots = 0 if name == "musc-518" else 1
    results = made(name, shots=shots, weights="model.safetensors")
    assert matching_tables(results) == []
    with pytest.raises(UsageError, match=r"different weights \(model.safetensors, 8fb26589\.\.\., published the tag "):
        against(results, name)


@pytest.mark.parametrize(
    ("name", "shots", "setting", "value", "message"),
    [
        ("anomalydino", 4, "mask", False, r"settings of the recipe memory, published --set mask=true"),
        ("anomalydino", 4, "size", 672, r"settings of the recipe memory, published --set mask=true"),
        ("subspacead", 1, "blocks", [26, 27], r"settings of the recipe subspace, published --set blocks=\[23, 24, "),
        ("musc-240", 0, "size", 512, r"settings of the recipe mutual, .* neighbours=\[1, 8, 9\]"),
        ("musc-512", 0, "neighbours", [1, 2, 3], r"settings of the recipe mutual, published --set size=512, published"),
    ],
)
def test_other_settings_are_not_the_published_ones(name, shots, setting, value, message):
    results = made(name, shots=shots)
    results["recipe_settings"][setting] = value
    assert name not in [table.name for table, _ in matching_tables(results)]
    with pytest.raises(UsageError, match=message):
        against(results, name)


def test_settings_that_no_figure_depends_on_are_not_compared():
    results = made("musc-240")
    results["recipe_settings"] |= {"keep": "fp16", "limit_gb": 8.0, "seed": 7, "strict": True}
    assert [table.name for table, _ in matching_tables(results)] == ["musc-240"]


def test_other_shots_and_prompts_of_recipes_without_text():
    with pytest.raises(UsageError, match=r"different data set and shots \(visa 8-shot, published visa 1-shot, "):
        against(made("anomalydino", shots=1) | {"shots": 8}, "anomalydino")
    results = made("subspacead", shots=1, prompts=None, **{"class": "nut"})
    results["class_names"] = {"candle": "wax candle"}
    assert [table.name for table, _ in matching_tables(results)] == ["subspacead"]


@pytest.mark.parametrize(("name", "shots"), [("winclip", 1), ("anomalydino", 1), ("musc-240", 0)])
def test_means_of_all_categories_stand_beside_no_run_of_some(name, shots):
    results = made(name, shots=shots)
    del results["categories"]["candle"], results["categories"]["pcb1"]
    assert matching_tables(results) == []
    with pytest.raises(UsageError, match=r"different categories \(means alone .* the run lacks candle, pcb1\)"):
        against(results, name)


def test_masks_of_some_categories_alone_are_no_single_run():
    with pytest.raises(UsageError, match=r"different masks \(published with them for capsule, hazelnut, pill"):
        against(made("anomalydino", "mvtec", 4), "anomalydino")


def test_the_order_of_prompts_decides_nothing():
    results = made("winclip")
    results["prompts"]["templates"].reverse()
    assert different_conditions(get_table("winclip"), results) == []


def test_an_earlier_releases_run_of_tiles_counted_otherwise():
    results = made("tiles-ascend")
    del results["recipe_settings"]["repeat_last"]
    assert different_conditions(get_table("tiles-ascend"), results) == ["settings of the recipe tiles"]


def test_published_means_are_compared_too():
    results = made("winclip")
    results["mean"]["image_aupr"] = 0.10
    comparison = against(results, "winclip")
    assert not comparison.within
    assert not any(category.reasons for category in comparison.categories.values())
    assert comparison.mean_reasons == ("image_aupr differs by -0.7120",)
    assert json.loads(json.dumps(comparison.to_json()))["mean_reasons"] == ["image_aupr differs by -0.7120"]
    results["mean"]["image_aupr"] = None
    assert against(results, "winclip").mean_reasons == ("image_aupr is undefined in one run only",)


def test_definitions_that_are_not_known_are_said():
    (aupr, pixels) = remarks(get_table("winclip"), get_table("winclip").entry("visa", 0), made("winclip"))
    assert aupr.startswith("AUPR: ours is average precision; theirs: not said there, and may be the trapezoid")
    assert pixels == "pixel figures: ours at 240x240, masks published; theirs: not said there, masks not said there"
    table = get_table("accurate-winclip")
    found = remarks(table, table.entry("visa", 4), made("accurate-winclip", shots=4))
    assert not any(remark.startswith("AUPR:") for remark in found)
    assert "references: theirs: one draw, with replacement" in found
    assert remarks(get_table("tiles-ascend"), get_table("tiles-ascend").entry("visa", 0), made("tiles-ascend")) == []
    assert against(made("winclip"), "winclip").remarks == (aupr, pixels)


def test_accurate_winclips_figures_by_shots_and_category():
    table = get_table("accurate-winclip")
    assert table.entry("mvtec", 1).mean["image_auroc"] == 0.937
    assert table.entry("visa", 4).mean["pixel_aupro"] == 0.814
    assert table.entry("mvtec", 0).categories["metal_nut"]["pixel_auroc"] == 0.493
    for dataset, count in (("mvtec", 15), ("visa", 12)):
        for shots in (0, 1, 2, 4):
            assert len(table.entry(dataset, shots).categories) == count
