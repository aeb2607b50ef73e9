"""Every verb with recipes that need good samples, and whose scores do not end at 1, on a small model of timm."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import timm_models
from miniature import make_mvtec, part, save

from winspect import WinCLIP
from winspect.calibration import Calibration
from winspect.errors import SettingsError

RECIPES = {
    "memory": ("--recipe", "memory", "--set", "size=64", "--set", "rotations=2"),
    "subspace": ("--recipe", "subspace", "--set", "size=64", "--set", "rotations=2"),
}
RATE = ("--max-false-alarms", "0.1")


@pytest.fixture(scope="module")
def model_name(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("timm") / "plain"
    timm_models.save_folder("vit_tiny_patch16_224", {"depth": 3, "img_size": 64}, folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Folders of parts: 2 references, 12 good ones to calibrate on, 2 new ones, the second defective."""
    root = tmp_path_factory.mktemp("pictures")
    for folder, seeds in (("references", range(2)), ("goods", range(10, 22))):
        for seed in seeds:
            save(root / folder / f"{seed:02d}.png", part(seed, defective=False)[0])
    for seed, bad in ((37, False), (31, True)):
        save(root / "news" / f"{seed}.png", part(seed, defective=bad)[0])
    return root


@pytest.fixture
def cli(cli, model_name):
    """Run ``winspect`` in this process, on the small model where the verb is not for a bundle."""

    def run(*arguments, recipe=None):
        return cli(*arguments, *(("--model", model_name, "--device", "cpu", *RECIPES[recipe]) if recipe else ()))

    return run


def rows_in(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_calibration_decides_and_boxes_what_is_defective(cli, pictures, tmp_path, recipe):
    shown = ("--reference", pictures / "references")
    made = cli("calibrate", pictures / "goods", "--out", tmp_path / "c.json", *RATE, *shown, recipe=recipe)
    assert made.code == 0, made.err
    calibration = Calibration.load(tmp_path / "c.json")
    assert calibration.pictures == 12 and len(calibration.identity.references) == 2
    assert calibration.scores[0] < calibration.threshold <= calibration.scores[-1]
    assert min(calibration.pixel_threshold, calibration.threshold) > (1 if recipe == "subspace" else 0)
    out = tmp_path / "out"
    judged = cli(
        "predict", pictures / "news", *shown, "--calibration", tmp_path / "c.json", "--out", out, recipe=recipe
    )
    assert judged.code == 0, judged.err
    bad, good = rows_in(out / "predictions.jsonl")
    assert (good["verdict"], bad["verdict"]) == ("normal", "anomalous")
    assert bad["anomaly_score"] > calibration.threshold == bad["threshold"] and bad["p_value"] == 1 / 13
    assert good["boxes"] == [] and len(bad["boxes"]) >= 1
    _, mask = part(31, defective=True)
    x0, y0, x1, y1 = bad["boxes"][0]
    assert mask[y0:y1, x0:x1].sum() > 0.3 * mask.sum(), "the box lies on the defect"


@pytest.mark.parametrize("verb", ["predict", "watch", "calibrate", "export", "batch"])
def test_without_good_samples_every_verb_refuses_before_a_model_is_loaded(cli, pictures, tmp_path, verb, monkeypatch):
    monkeypatch.setattr(WinCLIP, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    what = {
        "predict": (pictures / "news",),
        "watch": (pictures / "news", "--out", tmp_path / "out"),
        "calibrate": (pictures / "goods", "--out", tmp_path / "c.json", *RATE),
        "export": ("--class", "bolt", "--out", tmp_path / "bundle"),
        "batch": (pictures / "news", "--out", tmp_path / "out"),
    }
    refused = cli(verb, *what[verb], recipe="memory")
    assert refused.code == 2 and refused.out == ""
    name = "bolt" if verb == "export" else "object"
    assert f"error: recipe memory compares with good samples, and '{name}' has none: show it some" in refused.err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "place"),
    [
        ("watch", "a watched folder"),
        ("calibrate", "a calibrated line"),
        ("export", "an edge bundle"),
        ("serve", "a service"),
        ("ui", "a service"),
    ],
)
def test_a_recipe_for_batches_is_refused_with_what_fits(cli, pictures, tmp_path, verb, place, monkeypatch):
    monkeypatch.setattr(WinCLIP, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    what = {
        "watch": (pictures / "news", "--out", tmp_path / "out"),
        "calibrate": (pictures / "goods", "--out", tmp_path / "c.json"),
        "export": ("--class", "bolt", "--out", tmp_path / "bundle"),
        "serve": ("--data", tmp_path / "data"),
        "ui": ("--data", tmp_path / "data", "--no-browser"),
    }
    if verb in ("serve", "ui"):
        pytest.importorskip("fastapi", reason='the service needs: pip install "winspect[serve]"')
    rate = RATE if verb == "calibrate" else ()
    refused = cli(verb, *what[verb], *rate, "--model", "ViT-B-32", "--recipe", "mutual")
    assert refused.code == 2
    assert (
        f"recipe mutual compares the pictures of a batch with each other, and {place} has no batch: choose references "
        "with `winspect references DIR`, then recipe memory or subspace"
    ) in refused.err


def test_the_library_refuses_to_calibrate_scores_of_a_batch(model_name, pictures):
    model = WinCLIP(model_name, device="cpu", engine="torch", recipe="mutual", settings={"size": 64})
    with pytest.raises(SettingsError, match="a calibrated line has no batch"):
        model.calibrate(pictures / "goods", max_false_alarms=0.1)


def test_a_folder_is_watched_with_good_samples(cli, pictures, tmp_path):
    out = tmp_path / "out"

    def rows():
        return [row for path in out.glob("predictions-*.jsonl") for row in rows_in(path)]

    def terminate():
        end = time.monotonic() + 30
        while len(rows()) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    watched = ("watch", pictures / "news", "--out", out, "--reference", pictures / "references", "--settle", "0.05")
    done = cli(*watched, "--maps", "all", "--threshold", "1.9", recipe="memory")
    thread.join()
    assert done.code == 0, done.err
    judged = {Path(row["path"]).name: row for row in rows()}
    assert {*judged} == {"31.png", "37.png"}
    assert judged["31.png"]["anomaly_score"] > judged["37.png"]["anomaly_score"]
    assert all(row["verdict"] == "normal" and (out / row["map"]).is_file() for row in judged.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bundle_judges_by_its_calibration(cli, pictures, tmp_path, recipe):
    pytest.importorskip("openvino")
    shown = ("--reference", pictures / "references")
    made = cli("calibrate", pictures / "goods", "--out", tmp_path / "c.json", *RATE, *shown, recipe=recipe)
    assert made.code == 0, made.err
    bundle = tmp_path / "bundle"
    written = cli("export", "--calibration", tmp_path / "c.json", *shown, "--out", bundle, recipe=recipe)
    assert written.code == 0, written.err
    plain = cli("predict", pictures / "news", "--calibration", tmp_path / "c.json", *shown, "--json", recipe=recipe)
    edge = cli("predict", pictures / "news", "--bundle", bundle, "--json")
    assert edge.code == 0, edge.err
    for expected, found in zip(*(json.loads(each.out)["results"] for each in (plain, edge)), strict=True):
        assert found["anomaly_score"] == pytest.approx(expected["anomaly_score"], rel=1e-4)
        assert (found["verdict"], found["boxes"]) == (expected["verdict"], expected["boxes"])
    # A threshold in the range of the bundle's recipe, beyond that of the default.
    beyond = cli("predict", pictures / "news", "--bundle", bundle, "--threshold", "1.5", "--json")
    assert beyond.code == 0, beyond.err
    assert all(row["threshold"] == 1.5 for row in json.loads(beyond.out)["results"])
    refused = cli("predict", pictures / "news", "--bundle", bundle, "--threshold", "-1")
    assert refused.code == 2 and "need a score" in refused.err


def test_figures_report_and_comparison_of_scores_beyond_1(cli, tmp_path):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    run = ("--dataset", "mvtec", "--root", root, "--shots", "2", "--overlays")
    for recipe in RECIPES:
        done = cli("evaluate", *run, "--out", tmp_path / recipe, recipe=recipe)
        assert done.code == 0, done.err
        results = json.loads((tmp_path / recipe / "results.json").read_text())
        assert results["recipe"] == recipe and results["shots"] == 2
        figures = results["categories"]["bolt"]
        assert figures["image_auroc"] == 1.0 and figures["pixel_auroc"] > 0.8
        (kept,) = (tmp_path / recipe).glob("*/bolt*.json")
        part_of = json.loads(kept.read_text())
        low, high = part_of["heat_range"]
        scores = [row["score"] for row in part_of["rows"]]
        assert low < high and (max(scores) > 1) == (high > 1) == (recipe == "subspace")
        page = (tmp_path / recipe / "report.html").read_text()
        assert "Scores run from 0 to 1" not in page
    other = cli("evaluate", *run, "--out", tmp_path / "other", "--engine", "openvino", recipe="subspace")
    assert other.code == 0, other.err
    compared = cli("compare", tmp_path / "subspace", tmp_path / "other", "--json")
    assert compared.code == 0, compared.err
    zero_shot = cli("evaluate", "--dataset", "mvtec", "--root", root, "--out", tmp_path / "zero", recipe="memory")
    assert zero_shot.code == 2 and "recipe memory compares with good samples" in zero_shot.err
