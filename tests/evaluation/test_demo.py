"""The demonstration, start to end, on the real packages."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from winspect.cli.main import main
from winspect.errors import MissingExtraError
from winspect.evaluation.demo import DEMO_SETS, PICTURES_PER_LABEL, SHOTS, DemoSet, Scored, run_demo

FEW = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder a demonstration on ``FEW`` pictures per label leaves, and what it says as JSON."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr("winspect.evaluation.demo.PICTURES_PER_LABEL", FEW)
        assert main(["demo", "--out", str(out), "--json", "--device", "cpu"]) == 0
    return out, json.loads(said.getvalue())


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("make", DEMO_SETS)
def test_sets_have_pictures_and_keep_references_apart(make):
    data = make()
    paths = [path for path, _ in data.pictures]
    assert len(set(paths)) == 2 * PICTURES_PER_LABEL
    assert sum(defective for _, defective in data.pictures) == PICTURES_PER_LABEL
    assert len(set(data.references)) == SHOTS
    assert not set(paths) & set(data.references)
    assert all(path.is_file() for path in [*paths, *data.references])


def test_rows_heat_maps_and_figures(demo):
    out, said = demo
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == len(DEMO_SETS) * 2 * 2 * FEW
    for row in rows:
        assert size_of(out / row["map"]) == size_of(row["path"])
    assert len({row["map"] for row in rows}) == len(rows)
    for figures in said["sets"]:
        name = "textile" if figures["set"].startswith("Textile") else "solar cell"
        own = [row for row in rows if row["class"] == name and row["shots"] == figures["shots"]]
        expected = roc_auc_score([row["label"] == "anomalous" for row in own], [row["anomaly_score"] for row in own])
        assert figures["image_auroc"] == pytest.approx(expected)


def test_the_report_stands_alone(demo):
    out, _ = demo
    text = (out / "report.html").read_text()
    assert text.count("<figure>") == len(DEMO_SETS) * 2 * FEW
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 3 * text.count("<figure>")
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "<script" not in text


@pytest.mark.parametrize("package", ["conformal_clip_data", "elpv_dataset"])
def test_a_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install .*\[demo\]"'):
        for make in DEMO_SETS:
            make()


def test_a_warning_stands_beside_the_score(tmp_path, small_model, textile):
    (result,) = small_model.predict_many([textile[0]], "textile", keep_pictures=True)
    scored = Scored(
        DemoSet("Textile", "textile", "a source", (), ((textile[0], False),)),
        shots=0,
        results=(dataclasses.replace(result, warning="the frame is black"),),
        seconds=1.0,
    )
    assert "Warning: the frame is black" in run_demo(tmp_path, small_model, [scored]).read_text()


@pytest.mark.parametrize("make", DEMO_SETS)
def test_figures_of_the_whole_sets_are_the_model_cards(make):
    data = make()
    section = (ROOT / "src/winspect/weights/winspect-tiny/MODEL_CARD.md").read_text(encoding="utf-8")
    section = section.split(f"**{data.category_name.removesuffix(' cell')}")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    for shots, figure in data.whole_set:
        way = ["**recipe `fused`** (default)", str(shots)] if shots else ["**zero-shot** (default)", "0"]
        assert next(cells[2] for cells in rows if cells[:2] == way).startswith(f"{figure:.3f}")


def test_the_report_opens_with_good_samples_and_has_both(demo):
    out, said = demo
    text = (out / "report.html").read_text()
    assert [figures["shots"] for figures in said["sets"]] == [4, 0, 4, 0]
    head = text.split("<figure>")[0]
    assert head.index("4-shot") < head.index("zero-shot")
    assert "0.749" in head and "0.684" in head
