"""Files that the release before the rooms were redrawn wrote (commit 5cbc1c9): read, or refused with both releases."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import EXAMPLES
from miniature import part

from winspect import WinCLIP
from winspect._version import __version__
from winspect.bundle.manifest import Manifest
from winspect.calibration import Calibration
from winspect.cli.main import main
from winspect.cluster.destination import Destination
from winspect.cluster.results import read_results
from winspect.errors import BundleError, OutputError, SettingsError, UsageError
from winspect.evaluation.compare import compare_runs
from winspect.evaluation.results import open_run

EARLIER = Path(__file__).parent / "fixtures" / "earlier_release"
MODEL = ("--model", "winspect-tiny", "--device", "cpu", "--engine", "torch", "--precision", "fp32")
RECIPE = ("--recipe", "log")  # that release's default
GOOD, BAD = "examples/hex_nut/test/good/1.jpg", "examples/hex_nut/test/defective/1.jpg"
SAMPLES = ("examples/hex_nut/train/good/1.jpg", "examples/hex_nut/train/good/2.jpg")
FEW_SHOT = ("--class", "hex nut", "--reference", *SAMPLES)
RUNS = ("predicted/run.json", "evaluated/evaluation.json")
BATCH = "batch/_winspect/run.json"  # its hash is in every shard
BOTH = rf"\(written by winspect 9\.0, this is {re.escape(__version__)}\)"
SINCE = ("repeat_last", "tile_references", "patch_norm", "underscores")  # settings that releases before did not know


@pytest.fixture
def earlier(tmp_path):
    """A copy of the files, which may be changed; its runs can be gone on with whatever this release is called."""
    folder = Path(shutil.copytree(EARLIER, tmp_path / "earlier"))
    for run in RUNS:
        edit(folder / run, lambda content: content.update(winspect=__version__))
    return folder


@pytest.fixture
def cli(capsys, process_as_before, monkeypatch):
    """Run ``winspect`` in the folder that holds the examples, as the files' paths are relative to it."""
    monkeypatch.chdir(EXAMPLES.parent)

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


@pytest.fixture(scope="module")
def tiny():
    return WinCLIP("winspect-tiny", device="cpu", engine="torch", precision="fp32", recipe="log")


def document(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def edit(path: Path, change) -> None:
    """Change a JSON file in place."""
    content = document(path)
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def as_before_that(content: dict) -> None:
    """A document as still earlier releases wrote it: without the entries that came later."""
    del content["activation"]
    for name in SINCE:
        del content.get("recipe_settings", content["recipe"])[name]


def of_release_9(content: dict) -> None:
    content["winspect"] = "9.0"
    content.get("recipe_settings", content["recipe"])["window"] = 3


# Calibrations


def test_a_calibration_is_read_written_alike_and_fits_its_model(earlier, tiny, tmp_path):
    calibration = Calibration.load(earlier / "calibration.json")
    calibration.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text("utf-8") == (earlier / "calibration.json").read_text("utf-8")
    tiny.reference([EXAMPLES.parent / sample for sample in SAMPLES], "Hex_nut")
    try:
        calibration.check_model(tiny)
        edit(earlier / "calibration.json", as_before_that)
        Calibration.load(earlier / "calibration.json").check_model(tiny)
    finally:
        tiny.forget("hex nut")
    with pytest.raises(SettingsError, match=r"references: calibrated with 1\.jpg \(.*\), 2\.jpg \(.*\), now none"):
        calibration.check_model(tiny)


def test_a_calibration_of_a_later_release_is_refused_with_both(earlier):
    edit(earlier / "calibration.json", of_release_9)
    with pytest.raises(SettingsError, match=rf"unknown setting window.*{BOTH}"):
        Calibration.load(earlier / "calibration.json")
    edit(earlier / "calibration.json", lambda content: content.update(schema=2))
    with pytest.raises(SettingsError, match=rf"schema 2, .*{BOTH}"):
        Calibration.load(earlier / "calibration.json")


# Bundles


def test_a_bundle_scores_as_it_did(earlier):
    bundle = WinCLIP.load(earlier / "bundle")
    result = bundle.predict(part(500, defective=True)[0], "bolt")
    assert result.anomaly_score == pytest.approx(0.40861690044403076, abs=1e-6)
    calibration = bundle.calibration("bolt")
    calibration.check_model(bundle)
    assert calibration.decide(result).verdict == "anomalous"
    entries = document(earlier / "bundle" / "bundle.json")
    assert bundle.describe() == {name: entries[name] for name in bundle.describe()}
    assert {*entries} - {*bundle.describe()} == {"kind", "schema", "fusion", "grid_hw", "classes", "sha256"}


def test_a_bundle_of_a_release_before_that_is_as_it_scored_then(earlier):
    edit(earlier / "bundle" / "bundle.json", as_before_that)
    bundle = WinCLIP.load(earlier / "bundle")
    bundle.calibration("bolt").check_model(bundle)
    assert "activation" not in bundle.describe()
    assert bundle.predict(part(500, defective=True)[0], "bolt").anomaly_score == pytest.approx(0.408617, abs=1e-6)
    assert bundle.identity().differences(Manifest.read(EARLIER / "bundle").identity) == []


def test_a_bundle_of_a_later_release_is_refused_with_both(earlier):
    edit(earlier / "bundle" / "bundle.json", of_release_9)
    with pytest.raises(BundleError, match=rf"unknown setting window.*{BOTH}"):
        WinCLIP.load(earlier / "bundle")
    edit(earlier / "bundle" / "bundle.json", lambda content: content.update(schema=2))
    with pytest.raises(BundleError, match=rf"schema 2, .*{BOTH}"):
        WinCLIP.load(earlier / "bundle")


# Folders of runs


def predict(cli, earlier, *more):
    decides = ("--calibration", earlier / "calibration.json", "--no-overlays", "--no-masks")
    return cli("predict", GOOD, BAD, *more, *MODEL, *FEW_SHOT, *decides, "--out", earlier / "predicted", "--resume")


def test_predictions_go_on_behind_the_rows_that_are_there(cli, earlier):
    rows = (EARLIER / "predicted" / "predictions.jsonl").read_text("utf-8")
    edit(earlier / "predicted" / "run.json", as_before_that)
    done = predict(cli, earlier, "examples/hex_nut/test/good/2.jpg")
    assert done.code == 0, done.err
    assert (earlier / "predicted" / "predictions.jsonl").read_text("utf-8").startswith(rows)
    assert (earlier / "predicted" / "predictions.jsonl").read_text("utf-8").count("\n") == 3
    assert document(earlier / RUNS[0]) == document(EARLIER / RUNS[0]) | {"winspect": __version__}


def test_rows_are_scored_as_they_were(cli, earlier):
    rows = [json.loads(line) for line in (earlier / "predicted" / "predictions.jsonl").read_text("utf-8").splitlines()]
    (earlier / "predicted" / "predictions.jsonl").write_text("")
    assert predict(cli, earlier).code == 0
    again = [json.loads(line) for line in (earlier / "predicted" / "predictions.jsonl").read_text("utf-8").splitlines()]
    for before, now in zip(rows, again, strict=True):
        assert now.pop("anomaly_score") == pytest.approx(before.pop("anomaly_score"), abs=1e-6)
        assert now == before


def test_predictions_of_another_release_are_refused_with_both(cli, earlier):
    edit(earlier / "predicted" / "run.json", of_release_9)
    refused = predict(cli, earlier)
    assert refused.code == 2
    assert f"another run (different recipe, winspect 9.0 there, {__version__} here)" in refused.err


def evaluate(cli, out):
    data = ("--dataset", "mvtec", "--root", "examples", "--categories", "hex_nut", "--shots", "2")
    return cli("evaluate", *data, *MODEL, *RECIPE, "--out", out, "--no-report")


def test_an_evaluation_goes_on_with_its_categories(cli, earlier):
    results = document(earlier / "evaluated" / "results.json")
    (earlier / "evaluated" / "results.json").unlink()
    edit(earlier / "evaluated" / "evaluation.json", as_before_that)
    done = evaluate(cli, earlier / "evaluated")
    assert done.code == 0, done.err
    again = document(earlier / "evaluated" / "results.json")
    assert again | {"machine": results["machine"], "winspect": results["winspect"]} == results
    assert document(earlier / RUNS[1]) == document(EARLIER / RUNS[1]) | {"winspect": __version__}


def test_an_evaluation_of_another_release_is_refused_with_both(cli, earlier):
    edit(earlier / "evaluated" / "evaluation.json", of_release_9)
    refused = evaluate(cli, earlier / "evaluated")
    assert refused.code == 2
    assert 'recipe_settings: {"window": 3} there, {"window": null} asked for' in refused.err
    assert f'winspect: "9.0" there, "{__version__}" asked for' in refused.err


def go_on_with_batch(earlier) -> Destination:
    return Destination.open(str(earlier / "batch"), document(EARLIER / BATCH), count=4, resume=True)


def test_a_batch_goes_on_with_its_shards(earlier):
    (earlier / "batch" / "part-00001.parquet").unlink()
    with go_on_with_batch(earlier) as destination:
        assert ([*destination.shards], destination.missing()) == ([0], [1])


def test_a_batch_of_another_release_is_refused_with_both(earlier):
    edit(earlier / BATCH, of_release_9)
    words = r'recipe: {"window": 3} there, .*winspect: "9.0" there, "0.1.0" asked for'
    with pytest.raises(OutputError, match=words):
        go_on_with_batch(earlier)


def test_results_of_a_batch_are_read():
    results = list(read_results(str(EARLIER / "batch")))
    assert [Path(result.path).name for result in results] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [result.anomaly_score for result in results] == pytest.approx(
        [0.097511, 0.126018, 0.118253, 0.120349], abs=1e-6
    )


def test_results_are_compared(earlier):
    edit(earlier / "evaluated" / "results.json", as_before_that)
    comparison = compare_runs(open_run(EARLIER / "evaluated"), open_run(earlier / "evaluated"))
    assert comparison.mean["image_auroc"].difference == 0
    edit(earlier / "evaluated" / "results.json", lambda content: content.update(winspect="9.0", schema=2))
    with pytest.raises(UsageError, match=rf"schema 2, need 1.*{BOTH}"):
        open_run(earlier / "evaluated")
