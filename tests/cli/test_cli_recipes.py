"""``winspect evaluate`` with several recipes side by side, and with one that scores the pictures of a batch."""

from __future__ import annotations

import json
import re

import pytest
from checkpoints import SMALL
from miniature import make_mvtec

RECIPES = ("memory", "subspace", "mutual", "paper")
SETTINGS = ("--set", "size=64", "--set", "rotations=0")


@pytest.fixture
def cli(cli, small_checkpoint):
    """Run ``winspect`` in this process, evaluations on the small model."""
    model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--engine", "torch")
    return lambda verb, *arguments: cli(verb, *arguments, *(model if verb == "evaluate" else ()))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("parts"), train=3, good=4, defective=2)


def evaluate(cli, parts, out, *arguments):
    return cli("evaluate", "--dataset", "mvtec", "--root", parts, "--out", out, *arguments)


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def test_recipes_side_by_side(cli, parts, tmp_path):
    done = evaluate(cli, parts, tmp_path, "--recipes", ",".join(RECIPES), "--shots", "2", *SETTINGS)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    results = {recipe: results_in(tmp_path / recipe) for recipe in RECIPES}
    for recipe in RECIPES:
        assert results[recipe]["recipe"] == recipe
        figures = results[recipe]["categories"]["bolt"]
        (line,) = [line for line in lines if line[:2] == ["bolt", recipe]]
        assert f"{100 * figures['image_auroc']:.2f}" in line and f"{100 * figures['pixel_aupro']:.2f}" in line
        (line,) = [line for line in lines if line[:2] == ["mean", recipe]]
        assert f"{100 * results[recipe]['mean']['image_auroc']:.2f}" in line
        assert line[2] == ("unlabelled" if recipe == "mutual" else "2-shot")
    assert {recipe: results[recipe]["shots"] for recipe in RECIPES} == {**dict.fromkeys(RECIPES, 2), "mutual": 0}
    # Recipes that take good samples were shown the same ones; each has those of the settings that it has.
    assert results["memory"]["data"] == results["subspace"]["data"] == results["paper"]["data"]
    assert results["memory"]["recipe_settings"]["rotations"] == 0
    assert "rotations" not in results["mutual"]["recipe_settings"]
    assert json.loads((tmp_path / "recipes.json").read_text()) == {"schema": 1, "recipes": results}
    page = (tmp_path / "report.html").read_text()
    assert all(f'href="{recipe}/results.json"' in page for recipe in RECIPES)
    assert all((tmp_path / recipe / "report.html").is_file() for recipe in RECIPES)


def test_json_is_what_is_written_and_a_second_run_goes_on(cli, parts, tmp_path, monkeypatch):
    arguments = ("--recipes", "mutual,memory", "--shots", "1", "--seeds", "0,1", *SETTINGS, "--json")
    done = evaluate(cli, parts, tmp_path, *arguments)
    assert done.code == 0
    document = json.loads(done.out)
    assert document == json.loads((tmp_path / "recipes.json").read_text())
    assert document["recipes"]["memory"]["seeds"] == [0, 1] and document["recipes"]["mutual"]["seeds"] == [0]
    from winspect.evaluation import run

    monkeypatch.setattr(run, "score_part", None)  # nothing is scored again
    again = evaluate(cli, parts, tmp_path, *arguments)
    assert (again.code, again.out) == (0, done.out)


def test_the_folder_of_several_is_no_run(cli, parts, tmp_path):
    evaluate(cli, parts, tmp_path, "--recipes", "paper,mutual", "--categories", "bolt", "--set", "size=64")
    refused = cli("compare", tmp_path, tmp_path)
    assert refused.code == 2
    each = f"{tmp_path / 'mutual'}, {tmp_path / 'paper'}"
    assert f"holds the results of several recipes; name one of {each}" in refused.err
    refused = cli("compare", tmp_path / "mutual", tmp_path / "paper", "--tolerance", "0.01")
    assert refused.code == 2 and 'different recipe ("mutual" and "paper")' in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipes", "memory,paper"), "recipe memory compares with good samples: say how many .* --shots 4"),
        (("--recipe", "subspace"), "recipe subspace compares with good samples: say how many"),
        (("--recipe", "mutual", "--shots", "2"), "got 2 shots, and recipe mutual takes no good samples"),
        (("--recipes", "paper,paper"), "recipes: got paper, paper, need different names"),
        (("--recipes", ","), "recipes: got none"),
        (("--recipes", "paper,best"), "got the recipe 'best'"),
        (("--recipes", "paper", "--recipe", "tiles"), "got --recipe tiles beside --recipes"),
        (
            ("--recipes", "paper,mutual", "--set", "groups=2", "--set", "rotations=0"),
            "settings rotations, which none",
        ),
        (("--recipes", "mutual,paper", "--set", "groups=0"), "groups: got 0"),
    ],
)
def test_bad_recipes(cli, parts, tmp_path, arguments, message):
    done = evaluate(cli, parts, tmp_path / "out", *arguments)
    assert done.code == 2 and done.out == ""
    assert re.search(message, done.err), done.err


# A recipe that scores batches


def test_mutual_on_a_category(cli, parts, tmp_path):
    """Its test pictures are the batch. A category that was done is not scored again; maps share the batch's colours."""
    mutual = ("--recipe", "mutual", "--set", "size=64", "--overlays", "--raw-maps")
    done = evaluate(cli, parts, tmp_path / "out", *mutual)
    assert done.code == 0 and "unlabelled batch" in done.out
    results = results_in(tmp_path / "out")
    assert results["shots"] == 0 and results["recipe_settings"]["size"] == 64
    assert results["categories"]["bolt"]["image_auroc"] == 1  # bright scratches on noise
    part = json.loads((tmp_path / "out/categories/bolt-seed0.json").read_text())
    low, high = part["heat_range"]
    assert 0 <= low < high <= 2
    assert all((tmp_path / "out" / row["map"]).is_file() for row in part["rows"])
    page = (tmp_path / "out/report.html").read_text()
    assert "heat map over the picture" in page and "unlabelled batch" in page
    (tmp_path / "out/categories/metal_nut-seed0.json").unlink()
    written = (tmp_path / "out/results.json").read_bytes()
    assert evaluate(cli, parts, tmp_path / "out", *mutual).code == 0
    assert (tmp_path / "out/results.json").read_bytes() == written
    assert evaluate(cli, parts, tmp_path / "again", *mutual).code == 0
    same = cli("compare", tmp_path / "out", tmp_path / "again", "--json")
    assert same.code == 0 and json.loads(same.out)["pictures"]["largest_difference"] == 0


def test_without_raw_maps_the_report_says_why_it_has_none(cli, parts, tmp_path):
    assert evaluate(cli, parts, tmp_path, "--recipe", "mutual", "--set", "size=64").code == 0
    page = (tmp_path / "report.html").read_text()
    assert "scores of a batch are not made again for a few pictures; use --raw-maps" in page
    assert "heat map over the picture" not in page


def test_a_category_of_three_pictures_fails_and_the_others_go_on(cli, tmp_path):
    root = make_mvtec(tmp_path / "parts", train=1, good=2, defective=2)
    (root / "bolt/test/good/000.png").unlink()
    (root / "metal_nut/test/good/000.png").write_bytes(b"")
    done = evaluate(cli, root, tmp_path / "out", "--recipe", "mutual", "--set", "size=64", "--categories", "bolt")
    assert done.code == 2 and "nothing was judged" in done.err  # neither has four
    make_mvtec(root, categories=("screw",), train=1, good=3, defective=3)
    done = evaluate(cli, root, tmp_path / "all", "--recipe", "mutual", "--set", "size=64")
    assert done.code == 3
    results = results_in(tmp_path / "all")
    assert results["categories"]["screw"]["image_auroc"] is not None
    assert [results["categories"][name]["n_failed"] for name in ("bolt", "metal_nut", "screw")] == [3, 4, 0]
    assert "got 3, need at least 4" in results["categories"]["bolt"]["failed"][0]["message"]
    unreadable, *others = (entry["message"] for entry in results["categories"]["metal_nut"]["failed"])
    assert "an empty file" in unreadable and "at least 4" not in unreadable
    assert all("got 3, need at least 4; 1 cannot be used" in message for message in others)
