"""A picture that can be judged, but is suspicious: its warning reaches every row, answer and summary."""

from __future__ import annotations

import csv
import json
import threading

import numpy as np
import pytest
from conftest import EXAMPLES
from miniature import make_mvtec
from PIL import Image

from winspect import WinCLIP
from winspect.methods.result import Result
from winspect.pictures.suspicions import blank_frame
from winspect.pictures.tiles import prepare
from winspect.watch.run import Status

GOOD = EXAMPLES / "textile" / "nominal_0001.jpg"
TINY = ("--model", "winspect-tiny", "--device", "cpu", "--engine", "torch", "--precision", "fp32")


@pytest.fixture
def cli(cli):
    """Run ``winspect`` in this process on the bundled model."""
    return lambda *arguments: cli(*arguments, *TINY)


@pytest.fixture
def frames(tmp_path):
    """A good picture, a black frame and a white one, in that order."""
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(GOOD.read_bytes())
    Image.new("RGB", (64, 48)).save(folder / "2.png")
    Image.new("L", (64, 48), 255).save(folder / "3.png")
    return folder


def test_predict_names_and_counts_them(cli, frames, tmp_path):
    out = tmp_path / "out"
    done = cli("predict", frames, "--out", out, "--no-overlays")
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    warnings = [row["warning"] for row in rows]
    assert done.code == 0
    assert warnings[0] is None
    assert warnings[1].startswith("a black picture") and warnings[2].startswith("a white picture")
    assert all(row["anomaly_score"] is not None for row in rows)
    with (out / "predictions.csv").open(newline="") as file:
        assert [row["warning"] for row in csv.DictReader(file)] == ["", *warnings[1:]]
    assert f"winspect: warning: {frames / '2.png'}: a black picture" in done.err
    assert "3 pictures in" in done.err and "0 failed, 2 pictures with a warning; results in" in done.err
    resumed = cli("predict", frames, "--out", out, "--no-overlays", "--resume", "--json")
    assert json.loads(resumed.out)["warned"] == 2


def test_a_reference_with_a_warning_is_named(cli, frames, tmp_path):
    part = EXAMPLES / "textile" / "local_0001.jpg"
    done = cli("predict", part, "--reference", frames / "2.png", GOOD, "--out", tmp_path / "out", "--no-overlays")
    assert f"reference picture {frames / '2.png'}: a black picture" in done.err
    assert str(GOOD) not in done.err


def test_calibrate_names_them(cli, frames, tmp_path):
    done = cli("calibrate", frames, "--max-false-alarms", "0.3", "--out", tmp_path / "c.json", "--class", "textile")
    assert done.code == 0
    assert f"used for calibration, but {frames / '3.png'}: a white picture" in done.err


def test_evaluate_counts_them_and_names_them_beside_the_scores(cli, tmp_path):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    black = next(iter(sorted((root / "bolt" / "test" / "good").iterdir())))
    with Image.open(black) as image:
        size_wh = image.size
    Image.new("RGB", size_wh).save(black)
    done = cli("evaluate", "--dataset", "mvtec", "--root", root, "--out", tmp_path / "out", "--no-report")
    assert "0 failed, 1 picture with a warning; results in" in done.err
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        warned = {row["path"]: row["warning"] for row in csv.DictReader(file) if row["warning"]}
    assert list(warned) == [str(black.relative_to(root))]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["categories"]["bolt"]["n_warned"] == 1


def test_the_batch_carries_them_to_its_results_and_summary(frames, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from winspect.cluster.inputs import find_inputs
    from winspect.cluster.results import as_results
    from winspect.cluster.scoring import Scorer
    from winspect.cluster.shared import Inspection, make_shared

    model = WinCLIP("winspect-tiny", device="cpu", engine="torch", precision="fp32")
    inputs = find_inputs([str(frames)], "textile").rows(range(3))
    rows = Scorer(model, make_shared(model, Inspection(["textile"]))).rows(inputs)
    pq.write_table(rows, tmp_path / "rows.parquet")
    (batch,) = pq.ParquetFile(tmp_path / "rows.parquet").iter_batches()
    warnings = [result.warning for result in as_results(batch)]
    assert warnings[0] is None
    assert warnings[1].startswith("a black picture") and warnings[2].startswith("a white picture")


def test_the_watch_counts_them(frames):
    lines: list[str] = []
    status = Status(lines.append)
    for warning in ("a black picture", None):
        status.count({"error": None, "verdict": "normal", "warning": warning})
    status.last_line()
    assert "2 pictures inspected, 0 anomalous, 0 failed, 1 picture with a warning" in lines[-1]


def test_watch_rows_and_service_rows_have_it(frames, tmp_path):
    from winspect.calibration import DecisionRule
    from winspect.service.contract import Answer
    from winspect.service.http.inspecting import to_json
    from winspect.watch.results import WatchResults

    result = Result("a.png", "bolt", anomaly_score=0.5, size_wh=(8, 8), warning="a black picture")
    with WatchResults(tmp_path / "out", stop=threading.Event()) as results:
        row, _ = results.add(result, extra={})
    assert row["warning"] == "a black picture"
    answer = Answer(DecisionRule().decide(result))
    assert to_json(answer, overlay=False, map_pixels=None)["warning"] == "a black picture"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda noise: noise.integers(0, 7, (90, 120, 3)), "a black picture"),
        (lambda noise: noise.integers(251, 256, (90, 120, 3)), "a white picture"),
        (lambda noise: np.full((90, 120, 3), (0, 255, 0)), "a constant colour (RGB 0, 255, 0)"),
        (lambda noise: noise.integers(127, 129, (90, 120, 3)), "a constant colour (RGB 12"),
        (lambda noise: np.full((90, 120, 3), 90) + np.linspace(0, 9, 120)[None, :, None], None),
        (lambda noise: noise.integers(0, 255, (90, 120, 3)), None),
    ],
)
def test_blank_frames_are_told_from_pictures(make, words, tmp_path):
    pixels = make(np.random.default_rng(0)).astype(np.uint8)
    warning = blank_frame(pixels)
    assert warning is None if words is None else warning.startswith(words)


def test_a_small_defect_keeps_a_dark_field_picture_from_being_called_black(tmp_path):
    from winspect.pictures.tiles import Preprocess

    pixels = np.zeros((1200, 1600, 3), np.uint8)
    assert prepare(pixels, Preprocess()).warning.startswith("a black picture")
    pixels[700:712, 333:345] = 255
    assert prepare(pixels, Preprocess()).warning is None


def test_a_watch_of_black_frames_does_not_look_well():
    lines: list[str] = []
    now = [0.0]
    status = Status(lines.append, every_s=10, now=lambda: now[0])

    def count(*warnings):
        for warning in warnings:
            status.count({"error": None, "verdict": "normal", "warning": warning})
        now[0] += 10
        status.tick(lambda: "")

    count(None)
    count(None, "a black picture", "a black picture")
    count("a white picture", None)
    assert lines[0].endswith("; up to date")
    assert lines[1].endswith("; NOT WELL: the last 2 pictures have a warning: a black picture")
    assert lines[2].endswith("3 pictures with a warning, 0.20 pictures/s; up to date")


def test_the_option_for_12_bit_cameras(cli, tmp_path):
    with Image.open(GOOD) as image:
        values = (np.asarray(image.convert("L")).astype(int) * 4095 // 255).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    plain = json.loads(cli("predict", tmp_path / "deep.png", "--json").out)["results"][0]
    assert "say so (bit depth 12)" in plain["warning"]
    out = tmp_path / "out"
    done = cli("predict", tmp_path / "deep.png", "--json", "--bit-depth", "12", "--out", out, "--no-overlays")
    assert json.loads(done.out)["results"][0]["warning"] is None
    assert json.loads((out / "run.json").read_text())["bit_depth"] == 12
    refused = json.loads(cli("predict", tmp_path / "deep.png", "--json", "--bit-depth", "10").out)["results"][0]
    assert "has more than 10 bits" in refused["error"]["message"]
