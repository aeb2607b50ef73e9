"""Names of categories in the prompts, from a file; underscores that are kept."""

from __future__ import annotations

import json

import pytest
from checkpoints import SMALL
from miniature import make_mvtec

from winspect import WinCLIP
from winspect.datasets import open_dataset
from winspect.datasets.official import OFFICIAL
from winspect.errors import SettingsError
from winspect.evaluation import evaluate, matching_tables
from winspect.evaluation.class_names import read_class_names
from winspect.evaluation.published import differences, get_table
from winspect.evaluation.results import METRICS
from winspect.prompts import PromptEnsemble, check_class_name
from winspect.recipes import get_recipe
from winspect.reports.evaluation_report import read_parts, write_evaluation_report

NAMES = {"pcb1": "printed circuit board", "metal_nut": "Mutter, M6"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.csv", 'Category,Name\npcb1,printed circuit board\nmetal_nut,"Mutter, M6"\n'),
        ("n.csv", "sep=;\nobject;name\npcb1; printed circuit board\nmetal_nut;Mutter, M6\n"),
        ("n.jsonl", "\n".join(json.dumps({"category": key, "name": name}) for key, name in NAMES.items())),
        ("n.yaml", "pcb1: printed circuit board\nmetal_nut: Mutter, M6\n"),
        ("n.yml", "\ufeff# ours\n'metal_nut': 'Mutter, M6'\npcb1: |\n  printed circuit board\n"),
        ("n.json", json.dumps(NAMES)),
    ],
)
def test_names_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / name) == NAMES


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n.csv", "category,name\n", "n.csv: no names"),
        ("n.csv", "category\npcb1\n", "n.csv: got the columns category, need category, name: add name"),
        ("n.csv", "category,name\npcb1,{}\n", "n.csv, line 2: got the class name '{}': braces"),
        ("n.csv", "category,name\npcb1,a\npcb1,b\n", "n.csv, line 3: 'pcb1' has a name already: keep one"),
        ("n.yaml", "[pcb1]", "n.yaml: got a sequence, need lines such as pcb1: printed circuit board"),
        ("n.yaml", "# a\npcb1: {a: b}", "n.yaml, line 2: got a scalar and a mapping, need a category and its name"),
        ("n.yaml", "pcb1: a\npcb1: b", "n.yaml, line 2: 'pcb1' has a name already: keep one"),
        ("n.yaml", "pcb1:", "n.yaml, line 1: got the empty class name"),
        ("n.yaml", "", "n.yaml: no names"),
        ("n.yaml", "a: b: c", "n.yaml: not a YAML file"),
        ("n.yaml", "[" * 5000, "n.yaml: not a YAML file"),
        ("n.yaml", "a: &x [1, 2]\nb: [*x, *x]", "n.yaml, line 1: got a scalar and a sequence"),
        ("n.txt", "pcb1", "n.txt: got a file ending in '.txt', need one of plain, .csv"),
    ],
)
def test_files_that_are_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=f"^class names: .*{message}"):
        read_class_names(tmp_path / name)
    with pytest.raises(SettingsError, match=r"gone.csv: cannot be read"):
        read_class_names(tmp_path / "gone.csv")


def test_categories_that_look_like_numbers_and_dates(tmp_path):
    (tmp_path / "n.yaml").write_text("01: tile\n02: 2026-13-45\non: switch\n")
    assert read_class_names(tmp_path / "n.yaml") == {"01": "tile", "02": "2026-13-45", "on": "switch"}


def test_plain_nouns_for_visa_and_mvtec():
    names = read_class_names("plain")
    assert sorted(names) == sorted((*OFFICIAL["visa"], *OFFICIAL["mvtec"]))
    assert names["pcb3"] == "printed circuit board"
    assert not any("_" in name or any(map(str.isdigit, name)) for name in names.values())


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("parts"), train=1)


def test_a_run_with_names_of_its_own(parts, tmp_path, small_model):
    """Each category is judged under its name, and the mean is over all."""
    data = open_dataset("mvtec", parts)
    names = {"bolt": "steel screw", "other": "nothing"}
    named = evaluate(small_model, data, tmp_path / "named", class_names=names)
    plain = evaluate(small_model, data, tmp_path / "plain")
    alone = evaluate(
        small_model, open_dataset("mvtec", parts, categories=["bolt"]), tmp_path / "alone", class_name="steel screw"
    )
    assert named["class_names"] == {"bolt": "steel screw"} and plain["class_names"] is None

    def figures(results, category):
        return {metric: results["categories"][category][metric] for metric in METRICS}

    assert figures(named, "bolt") == figures(alone, "bolt") != figures(plain, "bolt")
    assert figures(named, "metal_nut") == figures(plain, "metal_nut")
    for metric in METRICS:
        assert named["mean"][metric] == pytest.approx(sum(figures(named, name)[metric] for name in data.categories) / 2)
    again = read_parts(tmp_path / "named", named)
    page = write_evaluation_report(tmp_path / "named", named, again, data, small_model).read_text()
    assert "bolt: steel screw" in page


def test_names_that_do_not_fit(parts, tmp_path, small_model):
    data = open_dataset("mvtec", parts)
    with pytest.raises(SettingsError, match="class names: got pcb1, but the data set has: bolt, metal_nut"):
        evaluate(small_model, data, tmp_path, class_names={"pcb1": "board"})
    one = open_dataset("mvtec", parts, categories=["bolt"])
    with pytest.raises(SettingsError, match="got the class 'screw' and a file of class names: give one"):
        evaluate(small_model, one, tmp_path, class_name="screw", class_names={"bolt": "steel screw"})


def test_published_figures_are_not_put_beside_other_names():
    table = get_table("winclip")
    results = {
        "model": table.model,
        "recipe": "paper",
        "recipe_settings": {},
        "prompts": {},
        "class_names": {"pcb1": "printed circuit board"},
        "dataset": "visa",
        "shots": 0,
    }
    assert any("class names in the prompts" in found for found in differences(table, results))
    assert matching_tables(results) == []


# Underscores


def test_underscores_in_prompts():
    assert check_class_name("pipe_fryum") == "pipe fryum"
    assert check_class_name(" pipe_fryum  x", underscores="keep") == "pipe_fryum x"
    normal, anomalous = PromptEnsemble().prompts("pipe_fryum", underscores="keep")
    assert "a photo of the pipe_fryum." in normal and "a photo of a damaged pipe_fryum." in anomalous
    with pytest.raises(SettingsError, match="underscores: got 'raw', need one of space, keep"):
        get_recipe("paper", {"underscores": "raw"})


def test_underscores_are_kept_on_request(small_checkpoint, small_model, parts):
    """Other scores than with blanks, whichever name comes first; without underscores nothing changes."""
    picture = parts / "bolt/test/good/000.png"
    keep, taker = (
        WinCLIP(SMALL, weights=small_checkpoint, device="cpu", settings={"underscores": "keep"}) for _ in range(2)
    )
    assert keep.describe()["recipe"]["underscores"] == "keep"

    def score(model, name):
        return model.predict(picture, name).anomaly_score

    blank, kept = score(keep, "metal nut"), score(keep, "metal_nut")
    assert blank != kept
    assert blank == score(small_model, "metal nut") == score(small_model, "metal_nut")
    assert score(keep, "bolt") == score(small_model, "bolt")
    taker.take("metal_nut", keep.state_of("metal_nut"))
    assert score(taker, "metal_nut") == kept
