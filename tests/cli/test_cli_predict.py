"""``winspect predict`` as a user meets it: what it prints, writes, refuses, and how it ends."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from miniature import part, save
from PIL import Image

from winspect import WinCLIP
from winspect.cli.main import main
from winspect.inspector.base import Predictor
from winspect.outputs.rows import COLUMNS, Recorder
from winspect.pictures.heatmaps import heat_overlay, run_range
from winspect.system.files import replacing
from winspect.system.installation import install_command
from winspect.system.run_folder import locked

ROOT = Path(__file__).parents[2]
SIZE_WH = (90, 70)


def save_part(path: Path, seed: int = 0, size_wh=SIZE_WH) -> Path:
    """A picture of noise with a bright spot; no two seeds look alike."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 160, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    row, column = random.integers(0, 50, 2)
    pixels[row : row + 20, column : column + 20] = 230
    Image.fromarray(pixels).save(path)
    return path


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        save_part(folder / f"part{number}.png", number)
    return folder


@pytest.fixture
def parts(tmp_path):
    """A folder of four pictures."""
    return fill(tmp_path / "parts", 4)


@pytest.fixture
def mixed(tmp_path):
    """Eight pictures, three of them bad: the second, the fifth and the last."""
    folder = fill(tmp_path / "mixed", 8)
    (folder / "part1.png").write_bytes(b"")
    whole = (folder / "part4.png").read_bytes()
    (folder / "part4.png").write_bytes(whole[: len(whole) // 2])
    (folder / "part7.png").write_text("these are not the pixels you are looking for")
    return folder


@pytest.fixture
def cli(cli, small_checkpoint, graphs_compiled_once):
    """Run ``winspect`` in this process on the small model."""
    small = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
    return lambda *arguments, model=True: cli(*arguments, *(small if model else ()))


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]


def interrupt_after(monkeypatch, count: int, signal_error: type[BaseException] = KeyboardInterrupt) -> None:
    """Ctrl-C arrives when ``count`` pictures have been judged."""
    whole = Predictor.predict_many

    def interrupted(*arguments, **options):
        yield from itertools.islice(whole(*arguments, **options), count)
        raise signal_error

    monkeypatch.setattr(Predictor, "predict_many", interrupted)


@pytest.fixture
def program(tiny_bundle):
    """Start ``winspect predict`` as a process, on the bundled model."""

    def start(*arguments, stdout=subprocess.PIPE) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "winspect", "predict", *map(str, arguments), "--bundle", str(tiny_bundle)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            stdout=stdout,
            bufsize=0,  # else what readline took too much is lost to communicate
            stderr=subprocess.PIPE,
        )

    return start


# What comes out


def test_rows_are_the_contracts(cli, parts, tmp_path):
    out = tmp_path / "new" / "out"
    done = cli("predict", parts, "--class", "metal_nut", "--out", out)
    assert done.code == 0
    rows = rows_in(out)
    assert [row["path"] for row in rows] == [str(parts / f"part{number}.png") for number in range(4)]
    for row in rows:
        assert list(row) == [
            "path",
            "class",
            "anomaly_score",
            "verdict",
            "threshold",
            "boxes",
            "map",
            "error",
            "warning",
        ]
        assert row["class"] == "metal_nut"
        assert type(row["anomaly_score"]) is float
        assert 0 <= row["anomaly_score"] <= 1
        assert (row["verdict"], row["threshold"], row["error"]) == (None, None, None)
        with Image.open(out / row["map"]) as overlay:
            assert (overlay.format, overlay.mode, overlay.size) == ("PNG", "RGB", SIZE_WH)
    assert len({row["anomaly_score"] for row in rows}) == 4


def test_the_score_is_the_librarys(cli, parts, tmp_path, small_model):
    cli("predict", parts / "part2.png", "--class", "candle", "--out", tmp_path / "out")
    (row,) = rows_in(tmp_path / "out")
    assert row["anomaly_score"] == pytest.approx(
        small_model.predict(parts / "part2.png", "candle").anomaly_score, abs=1e-6
    )


def test_without_json_each_picture_is_a_line(cli, mixed):
    done = cli("predict", mixed)
    lines = done.out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [str(mixed / f"part{n}.png") for n in (0, 2, 3, 5, 6)]
    assert all(0 <= float(line.split()[0]) <= 1 for line in lines)
    assert "8 of 8 pictures" in done.err
    assert "3 failed" in done.err
    for number in (1, 4, 7):
        assert f"winspect: failed: {mixed / f'part{number}.png'}: " in done.err


@pytest.mark.parametrize("with_out", [True, False])
def test_three_bad_pictures_of_eight_give_eight_rows_and_status_3(cli, mixed, tmp_path, with_out):
    done = cli("predict", mixed, "--json", *(("--out", tmp_path / "out") if with_out else ()))
    assert done.code == 3
    document = json.loads(done.out)
    rows = document.pop("results")
    assert [row["error"] is not None for row in rows] == [n in (1, 4, 7) for n in range(8)]
    assert document.pop("seconds") >= 0
    assert document == {
        "schema": 1,
        "pictures": 8,
        "done": 8,
        "resumed": 0,
        "failed": 3,
        "warned": 0,
        "anomalous": 0,
        "review": 0,
        "judged_by_themselves": [],
        "interrupted": False,
        "error": None,
        "out": str(tmp_path / "out") if with_out else None,
    }
    for row, words in zip([rows[1], rows[4], rows[7]], ["0 bytes", "truncated", "not a picture"], strict=True):
        assert row["anomaly_score"] is row["verdict"] is row["map"] is None
        assert row["error"]["type"] == "PictureError"
        assert words in row["error"]["message"]
        assert row["path"] in row["error"]["message"]
    if with_out:
        assert rows_in(tmp_path / "out") == rows


def test_the_table_holds_what_the_rows_hold(cli, mixed, tmp_path):
    cli("predict", mixed, "--out", tmp_path, "--threshold", "0.5")
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    for line, row in zip(lines, rows_in(tmp_path), strict=True):
        expected = [row[name] for name in COLUMNS[:-2]] + [row["error"] and row["error"]["message"], row["warning"]]
        assert line == ["" if value is None else str(value) for value in expected]


def test_a_threshold_gives_verdicts(cli, parts):
    scores = [row["anomaly_score"] for row in json.loads(cli("predict", parts, "--json").out)["results"]]
    middle = sorted(scores)[2]
    done = cli("predict", parts, "--json", "--threshold", repr(middle))
    rows = json.loads(done.out)["results"]
    assert {row["threshold"] for row in rows} == {middle}
    assert [row["verdict"] for row in rows] == ["anomalous" if s >= middle else "normal" for s in scores]
    assert sorted(row["verdict"] for row in rows) == ["anomalous"] * 2 + ["normal"] * 2  # equal counts as anomalous
    assert "anomalous  " in cli("predict", parts, "--threshold", "0").out


def test_a_third_verdict_and_rules(cli, parts, tmp_path):
    scores = [row["anomaly_score"] for row in json.loads(cli("predict", parts, "--json").out)["results"]]
    lowest, below, above, _ = sorted(scores)
    low, high = lowest / 2, (below + above) / 2
    levels = ("--threshold", repr(high), "--review-threshold", repr(low))
    document = json.loads(cli("predict", parts, "--json", *levels).out)
    assert [row["verdict"] for row in document["results"]] == [
        "anomalous" if score >= high else "review" for score in scores
    ]
    assert (document["anomalous"], document["review"]) == (2, 2)
    assert {row["review_threshold"] for row in document["results"]} == {low}
    assert all(row["reason"].startswith("score ") for row in document["results"])
    file = tmp_path / "rules.toml"
    file.write_text("""
        verdict.mm_per_pixel = 0.1
        rules = [{ name = "all of them", area = "> 0 mm2", then = "ignore" }]
    """)
    cli("predict", parts, "--out", tmp_path / "out", *levels, "--rules", file, "--report")
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["normal"] * 4
    assert all("ignored: all of them: area " in row["reason"] for row in rows)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as table:
        assert [line["reason"] for line in csv.DictReader(table)] == [row["reason"] for row in rows]
    assert "ignored: all of them" in (tmp_path / "out" / "report.html").read_text()
    assert "ignored: all of them" in cli("predict", parts, *levels, "--rules", file).out
    contradicted = cli("predict", parts, *levels, "--rules", tmp_path / "two.toml")
    assert contradicted.code == 2
    (tmp_path / "two.toml").write_text("verdict = { threshold = 0.9, review_threshold = 0.1 }")
    contradicted = cli("predict", parts, "--threshold", "0.5", "--rules", tmp_path / "two.toml")
    assert "--threshold: got 0.5, but [verdict] of the rules says 0.9" in contradicted.err


def test_raw_maps_are_the_maps(cli, parts, tmp_path, small_model):
    cli("predict", parts / "part0.png", "--out", tmp_path, "--raw-maps", "--no-overlays")
    (row,) = rows_in(tmp_path)
    assert [file.name for file in (tmp_path / "maps").iterdir()] == [Path(row["map"]).name]
    with np.load(tmp_path / row["map"]) as arrays:
        anomaly_map = arrays["anomaly_map"]
    assert (anomaly_map.dtype, anomaly_map.shape) == (np.float32, SIZE_WH[::-1])
    expected = small_model.predict(parts / "part0.png").anomaly_map
    np.testing.assert_allclose(anomaly_map, expected, rtol=0, atol=1e-6)


def test_overlays_and_raw_maps_lie_side_by_side(cli, parts, tmp_path):
    cli("predict", parts / "part0.png", "--out", tmp_path, "--raw-maps")
    (row,) = rows_in(tmp_path)
    assert Path(row["map"]).suffix == ".png"
    assert (tmp_path / row["map"]).with_suffix(".npz").is_file()


def test_no_overlays_writes_no_maps(cli, parts, tmp_path):
    cli("predict", parts, "--out", tmp_path, "--no-overlays")
    assert {row["map"] for row in rows_in(tmp_path)} == {None}
    assert not (tmp_path / "maps").exists()


def test_the_bundled_model_from_the_environment(cli, textile, tmp_path, monkeypatch):
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")
    options = ("--recipe", "paper", "--class", "textile", "--out", tmp_path, "--json")
    done = cli("predict", textile[0], *options, model=False)
    assert done.code == 0
    assert json.loads((tmp_path / "run.json").read_text())["model"] == "winspect-tiny"


def test_the_model_that_is_named_wins_over_the_environment(cli, parts, tmp_path, monkeypatch):
    monkeypatch.setenv("WINSPECT_MODEL", "no-such-model")
    assert cli("predict", parts, "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "run.json").read_text())["model"] == SMALL
    refused = cli("predict", parts, model=False)
    assert refused.code == 2
    assert "no-such-model" in refused.err


def test_few_shot_takes_the_first_shots(cli, parts, tmp_path):
    good = fill(tmp_path / "good", 3)
    plain = json.loads(cli("predict", parts, "--json").out)["results"]
    out = tmp_path / "out"
    shown = json.loads(cli("predict", parts, "--json", "--reference", good, "--shots", 2, "--out", out).out)["results"]
    assert all(a["anomaly_score"] != b["anomaly_score"] for a, b in zip(plain, shown, strict=True))
    used = json.loads((out / "run.json").read_text())["references"]
    assert used == [str(good / "part0.png"), str(good / "part1.png")]


def test_recipe_settings_reach_the_model(cli, parts, tmp_path):
    settings = ("--set", "temperature=0.05", "--set", "scales=2", "--set", "text_average=normalised")
    cli("predict", parts, "--recipe", "tiles", *settings, "--out", tmp_path)
    recipe = json.loads((tmp_path / "run.json").read_text())["recipe"]
    assert recipe == {
        "name": "tiles",
        "tiling": True,
        "tile_stride": 0.8,
        "temperature": 0.05,
        "text_average": "normalised",
        "scales": [2],
        "stride": 1,
        "fusion": "sum",
        "repeat_last": True,
        "tile_references": "pooled",
        "patch_norm": False,
        "underscores": "space",
    }


def test_own_prompts_change_the_scores(cli, parts, tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("normal_states: ['clean {}']\n")
    plain = json.loads(cli("predict", parts / "part0.png", "--json").out)["results"][0]
    own = json.loads(cli("predict", parts / "part0.png", "--json", "--prompts", file).out)["results"][0]
    assert own["anomaly_score"] != plain["anomaly_score"]


def test_names_of_every_kind_are_written(cli, parts, tmp_path):
    """Bytes that are no UTF-8, a long name in a script of three bytes a letter, a line break, a quote."""
    names = [os.fsdecode(b"sch\xe4den.png"), "瓶" * 80 + ".png", 'a "b"\n,c.png', "Gewährleistung ✓.png"]
    folder = tmp_path / "names"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes((parts / "part0.png").read_bytes())
    done = cli("predict", folder, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    rows = json.loads(done.out)["results"]
    assert {Path(row["path"]).name for row in rows} == set(names)
    assert rows_in(tmp_path / "out") == rows
    assert all((tmp_path / "out" / row["map"]).is_file() for row in rows)
    assert cli("predict", folder).code == 0
    assert cli("predict", folder, "--out", tmp_path / "out", "--resume").code == 0


def test_results_among_the_pictures_are_not_judged(cli, parts):
    """The second run over a folder must not take the heat maps of the first for pictures."""
    out = parts / "out"
    assert json.loads(cli("predict", parts, "--json", "--out", out).out)["done"] == 4
    assert json.loads(cli("predict", parts, "--json", "--out", out).out)["done"] == 4
    assert json.loads(cli("predict", parts, "--json", "--out", out, "--resume").out)["resumed"] == 4


def test_a_report_of_the_run(cli, mixed, tmp_path):
    out = tmp_path / "out"
    options = ("predict", mixed, "--threshold", "0.5", "--out", out)
    done = cli(*options, "--report", "--json")
    rows = [row for row in json.loads(done.out)["results"] if row["error"] is None]
    assert (done.code, len(rows)) == (3, 5)
    page = (out / "report.html").read_text()
    ranked = sorted(rows, key=lambda row: -row["anomaly_score"])
    for pattern in (r"<figcaption><span>([^<]+)<", r"<tr><td>([^<]+)<"):
        assert re.findall(pattern, page) == [row["path"] for row in ranked]
    assert re.findall(r'<td class="number">([\d.]+)<', page) == [f"{row['anomaly_score']:.4f}" for row in ranked]
    assert page.count("data:image/jpeg") == 10
    assert "8 pictures" in page and "3 failed" in page and f"model {SMALL}" in page
    assert cli(*options, "--report", "--resume").code == 3
    assert re.sub(r"\d{4}-.. UTC", "", (out / "report.html").read_text())[-2000:] == page[-2000:]
    cli(*options)
    assert not (out / "report.html").exists(), "it would be that of another run"
    refused = cli("predict", mixed, "--report")
    assert (refused.code, "--report needs --out DIR" in refused.err) == (2, True)


def test_a_report_without_jinja2_is_refused_at_once(cli, parts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    refused = cli("predict", parts, "--report", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "a report needs: pip install" in refused.err and "[full]" in refused.err
    assert not (tmp_path / "out").exists()


def test_a_batch_that_was_stopped_is_scored_as_a_whole(cli, parts, tmp_path):
    settings = ("--set", "size=96", "--set", "neighbours=[]", "--engine", "torch")
    options = ("predict", parts, "--recipe", "mutual", *settings, "--out", tmp_path / "out")
    assert cli(*options).code == 0
    rows = (tmp_path / "out" / "predictions.jsonl").read_text()
    (tmp_path / "out" / "predictions.jsonl").write_text("".join(rows.splitlines(keepends=True)[:2]))
    assert cli(*options, "--resume").code == 0
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == rows
    alone = cli(*options[:1], parts / "part0.png", *options[2:])
    assert alone.code == 2
    assert "need at least 4" in alone.err


# What is refused: exit status 2, nothing on stdout, a message that names the fix


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--class", ""], ["empty class name", "--class"]),
        (["--class", "x" * 500], ["500 characters", "at most 100"]),
        (["--class", "{x}"], ["'{x}'", "braces", "leave them out"]),
        (["--class", "\U0001f9ea" * 40], ["tokens", "shorter class name"]),
        (["--device", "gpu"], ["'gpu'", "cuda:N"]),
        (["--device", "cuda:97"], ["'cuda:97'", "--device auto or cpu"]),
        (["--precision", "fp8"], ["'fp8'", "fp32, bf16, fp16, int8"]),
        (["--precision", "int8", "--engine", "torch"], ["int8", "needs engine openvino"]),
        (["--precision", "int8", "--int8-pictures", "nowhere"], ["--int8-pictures", "nowhere", "no such file"]),
        (["--precision", "fp32", "--int8-pictures", str(ROOT / "examples" / "textile")], ["int8_pictures", "leave"]),
        (["--engine", "tensorrt"], ["'tensorrt'", "auto, torch, openvino, onnx"]),
        (["--engine", "onnx", "--precision", "bf16"], ["bf16", "onnx", "fp32"]),
        (["--device", "openvino:GPU.9"], ["openvino:GPU.9", "CPU"]),
        (["--engine", "torch", "--device", "openvino:CPU"], ["openvino:CPU", "use engine openvino"]),
        (["--plan", "paper"], ["'paper'", "serial, tile-batch, prefetch"]),
        (["--recipe", "soup"], ["'soup'", "paper, tiles, log"]),
        (["--recipe", "log"], ["winspect-tiny", "recipe paper"]),
        (["--set", "colour=red"], ["colour", "temperature"]),
        (["--set", "temperature"], ["temperature", "NAME=VALUE"]),
        (["--set", "temperature=[1"], ["temperature=[1", "not a number"]),
        (["--set", "temperature=0"], ["temperature", "above 0"]),
        (["--set", "temperature=hot"], ["'hot'", "above 0"]),
        (["--set", "scales=two"], ["scales", "whole numbers"]),
        (["--set", "scales=9"], ["scale 9", "4x4"]),
        (["--set", "stride=3"], ["stride", "from 1 to 2"]),
        (["--prompts", "nowhere.yaml"], ["nowhere.yaml", "cannot read"]),
        (["--batch-size", "0"], ["batch_size", "from 1"]),
        (["--workers", "-1"], ["workers", "from 1"]),
        (["--threshold", "nan"], ["threshold", "nan"]),
        (["--threshold", "1.7"], ["--threshold: got 1.7", "run from 0 to 1"]),
        (["--threshold", "-3"], ["--threshold: got -3.0", "run from 0 to 1"]),
        (["--shots", "2"], ["--reference"]),
        (["--resume"], ["--resume needs --out"]),
        (["--raw-maps"], ["--raw-maps needs --out"]),
        (["--reference", "nowhere"], ["--reference", "nowhere", "no such file"]),
        (["--weights", "nowhere.pt"], ["nowhere.pt"]),
        (["--model", "ViT-Z-99"], ["ViT-Z-99"]),
        (["nowhere.png"], ["nowhere.png", "no such file"]),
        (["*.nothing"], ["*.nothing", "check the pattern"]),
        (["--review", "0.05"], ["--review", "--calibration"]),
        (["--review", "0.05", "--threshold", "0.5"], ["--review", "--threshold", "--review-threshold"]),
        (["--review-threshold", "0.5"], ["--review-threshold: needs --threshold"]),
        (["--threshold", "0.5", "--review-threshold", "0.5"], ["--review-threshold: got 0.5", "below --threshold"]),
        (["--threshold", "nan"], ["--threshold: got nan"]),
        (["--rules", "nowhere.toml", "--threshold", "0.5"], ["nowhere.toml"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_use_is_refused(cli, parts, small_checkpoint, arguments, words):
    if arguments[0].startswith("-"):
        # What comes later on a command line wins, so that the options under test stand behind those of the model.
        model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
        refused = cli("predict", parts, *model, *arguments, model=False)
    else:
        refused = cli("predict", *arguments)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.startswith("winspect: error: ")
    for word in words:
        assert word in refused.err


@pytest.mark.parametrize(("engine", "extra"), [("openvino", "full"), ("onnx", "onnx")])
def test_an_engine_that_is_not_installed(cli, parts, monkeypatch, engine, extra):
    for module in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    refused = cli("predict", parts, "--engine", engine)
    assert refused.code == 2
    assert refused.out == ""
    assert install_command(extra) in refused.err


def test_precision_int8_without_nncf(cli, parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    refused = cli("predict", parts, "--precision", "int8")
    assert refused.code == 2
    assert refused.out == ""
    assert install_command("int8") in refused.err


@pytest.fixture
def broken_openvino(monkeypatch, tmp_path):
    def fails(*_):
        raise RuntimeError("Check 'shape' failed")

    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))  # no graphs of earlier starts
    monkeypatch.setattr("winspect.engines.openvino_engine.OpenVINOEngine._model", fails)


def test_an_engine_that_cannot_be_built_is_replaced_with_a_warning(cli, parts, broken_openvino):
    done = cli("predict", parts, "--json")
    assert done.code == 0
    assert json.loads(done.out)["done"] == 4
    assert "engine openvino cannot build its graph: Check 'shape' failed; falling back to engine torch" in done.err


def test_an_engine_by_name_that_cannot_be_built_is_an_error(cli, parts, broken_openvino):
    refused = cli("predict", parts, "--engine", "openvino")
    assert refused.code == 2
    assert "winspect: error: engine openvino cannot build its graph" in refused.err


def test_what_ran_is_written_down(cli, parts, tmp_path, broken_openvino):
    """The engine is known before results are written, also where it had to be replaced."""
    assert cli("predict", parts, "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "run.json").read_text())["engine"] == "torch"


@pytest.mark.parametrize("plan", ["serial", "tile-batch", "prefetch"])
def test_plans_give_the_same_scores(cli, parts, plan, small_model):
    done = cli("predict", parts, "--json", "--plan", plan, "--engine", "torch", "--batch-size", 3)
    assert done.code == 0
    assert ("running as tile-batch" in done.err) == (plan == "prefetch")
    for row in json.loads(done.out)["results"]:
        assert row["anomaly_score"] == pytest.approx(small_model.predict(row["path"]).anomaly_score, abs=1e-5)


def test_a_folder_without_pictures(cli, tmp_path):
    (tmp_path / "notes.txt").write_text("none here")
    refused = cli("predict", tmp_path)
    assert refused.code == 2
    assert f"no pictures in {tmp_path}" in refused.err
    assert "looked for JPEG, PNG" in refused.err and "1 file left out: .txt 1" in refused.err


def test_fewer_references_than_asked(cli, parts, tmp_path):
    refused = cli("predict", parts, "--reference", fill(tmp_path / "good", 2), "--shots", 3)
    assert refused.code == 2
    assert "asked for 3 reference pictures" in refused.err
    assert "found 2" in refused.err


def test_an_unreadable_reference(cli, mixed):
    refused = cli("predict", mixed / "part0.png", "--reference", mixed)
    assert refused.code == 2
    assert str(mixed / "part1.png") in refused.err
    assert "reference" in refused.err


def test_a_class_that_is_refused_leaves_earlier_results_alone(cli, parts, tmp_path):
    out = tmp_path / "out"
    cli("predict", parts, "--out", out)
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    assert cli("predict", parts, "--out", out, "--class", "{x}").code == 2
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("arguments", [[], ["predict"], ["judge"], ["predict", "a.png", "--shots", "two"]])
def test_argparse_refuses_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().out == ""


# The folder for results


def test_out_below_a_file(cli, parts, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = cli("predict", parts, "--out", out)
        assert refused.code == 2
        assert f"{out}: cannot write" in refused.err
        assert "choose another --out" in refused.err


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "no permission"), (errno.EROFS, "read-only")])
def test_out_not_writable(cli, parts, tmp_path, monkeypatch, number, words):
    """The tests may run as root, who may write anywhere: here the system says no."""

    def refuse(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    refused = cli("predict", parts, "--out", tmp_path / "out")
    assert refused.code == 2
    assert words in refused.err
    assert "choose another --out" in refused.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_out_on_a_full_disk(cli, parts, tmp_path):
    (tmp_path / "predictions.jsonl").symlink_to("/dev/full")
    refused = cli("predict", parts, "--out", tmp_path, "--json")
    assert refused.code == 2
    assert "the disk is full" in refused.err
    assert str(tmp_path / "predictions.jsonl") in refused.err
    json.loads(refused.out)


def test_the_disk_fills_up_while_maps_are_written(cli, parts, tmp_path, monkeypatch):
    """What was written before stays whole, and nothing half-written is left."""
    saved = []

    def save(rgb, path):
        with replacing(path) as temporary:
            temporary.write_bytes(b"half a ")
            saved.append(path)
            if len(saved) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("winspect.outputs.maps.save_png", save)
    monkeypatch.setattr(Recorder, "WRITERS", 1)
    refused = cli("predict", parts, "--out", tmp_path)
    assert refused.code == 2
    assert "the disk is full" in refused.err
    assert [row["path"] for row in rows_in(tmp_path)] == [str(parts / "part0.png"), str(parts / "part1.png")]
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == ["000000_part0.png", "000001_part1.png"]


# Interrupted, and going on


def assert_same_results(resumed: Path, whole: Path) -> None:
    for name in ("predictions.jsonl", "predictions.csv", "run.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert {file.name for file in (resumed / "maps").iterdir()} == {file.name for file in (whole / "maps").iterdir()}


@pytest.mark.parametrize("after", [0, 1, 5, 8])
def test_ctrl_c_leaves_whole_rows_and_resume_goes_on(cli, mixed, tmp_path, monkeypatch, after):
    options = ("predict", mixed, "--batch-size", 1)
    cli(*options, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, after)
        stopped = cli(*options, "--out", tmp_path / "out")
    assert stopped.code == 130
    assert f"interrupted after {after} of 8 pictures" in stopped.err
    assert "--resume goes on" in stopped.err
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "whole")[:after]
    done = cli(*options, "--out", tmp_path / "out", "--resume")
    assert done.code == 3  # the failures of the first part count
    assert "8 of 8 pictures" in done.err
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_a_resumed_run_of_larger_batches_agrees_to_rounding(cli, tmp_path, monkeypatch):
    """Which pictures share a batch decides the last bits of a score, and an interruption shifts the batches."""
    pictures = fill(tmp_path / "pictures", 9)
    cli("predict", pictures, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        cli("predict", pictures, "--out", tmp_path / "out")
    assert cli("predict", pictures, "--out", tmp_path / "out", "--resume").code == 0
    for row, whole in zip(rows_in(tmp_path / "out"), rows_in(tmp_path / "whole"), strict=True):
        assert row.pop("anomaly_score") == pytest.approx(whole.pop("anomaly_score"), abs=1e-6)
        assert row == whole


def test_a_resumed_json_run_tells_old_from_new(cli, parts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        stopped = json.loads(cli("predict", parts, "--out", tmp_path, "--json").out)
    assert (stopped["done"], stopped["interrupted"], len(stopped["results"])) == (3, True, 3)
    done = json.loads(cli("predict", parts, "--out", tmp_path, "--resume", "--json").out)
    assert (done["done"], done["resumed"], done["interrupted"]) == (4, 3, False)
    assert [row["path"] for row in done["results"]] == [str(parts / "part3.png")]


def test_ctrl_c_without_out_says_how_a_run_can_be_resumed(cli, parts, monkeypatch):
    interrupt_after(monkeypatch, 2)
    stopped = cli("predict", parts)
    assert stopped.code == 130
    assert "interrupted after 2 of 4" in stopped.err
    assert "--out" in stopped.err


def test_ctrl_c_between_writing_a_row_and_counting_it(cli, parts, tmp_path, monkeypatch):
    """Python delivers Ctrl-C between any two steps: no row may be doubled or lost."""

    class Interrupting:
        """The file of rows; the Ctrl-C comes when the second row has just been flushed."""

        def __init__(self, file):
            self.file, self.flushes = file, 0

        def __getattr__(self, name):
            return getattr(self.file, name)

        def flush(self):
            self.file.flush()
            self.flushes += 1
            if self.flushes == 2:
                os.kill(os.getpid(), signal.SIGINT)

    enter = Recorder.__enter__

    def entered(self):
        enter(self)
        self._rows = Interrupting(self._rows)
        return self

    whole = tmp_path / "whole"
    cli("predict", parts, "--batch-size", 1, "--out", whole)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "__enter__", entered)
        patch.setattr(Recorder, "MOST_WAITING", 0)
        stopped = cli("predict", parts, "--batch-size", 1, "--out", tmp_path / "out")
    assert stopped.code == 130
    rows = rows_in(tmp_path / "out")
    assert rows == rows_in(whole)[: len(rows)]
    assert cli("predict", parts, "--batch-size", 1, "--out", tmp_path / "out", "--resume").code == 0
    assert_same_results(tmp_path / "out", whole)


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_torn_last_line_is_judged_again(cli, parts, tmp_path, keep):
    options = ("predict", parts, "--batch-size", 1, "--out")
    cli(*options, tmp_path / "whole")
    cli(*options, tmp_path / "out")
    lines = (tmp_path / "out" / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "out" / "predictions.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert cli(*options, tmp_path / "out", "--resume").code == 0
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_resume_without_an_earlier_run_starts_one(cli, parts, tmp_path):
    assert cli("predict", parts, "--out", tmp_path, "--resume").code == 0
    assert len(rows_in(tmp_path)) == 4


def test_without_resume_a_run_starts_anew(cli, parts, tmp_path):
    cli("predict", parts, "--out", tmp_path)
    cli("predict", parts / "part3.png", "--out", tmp_path)
    assert [row["path"] for row in rows_in(tmp_path)] == [str(parts / "part3.png")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "nut"], "class"),
        (["--recipe", "tiles"], "recipe"),
        (["--threshold", "0.4"], "threshold"),
        (["--precision", "bf16"], "precision"),
        (["--no-overlays"], "overlays"),
        (["--raw-maps"], "raw_maps"),
    ],
)
def test_resume_with_other_settings_is_refused(cli, parts, tmp_path, options, words):
    cli("predict", parts, "--out", tmp_path)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    refused = cli("predict", parts, "--out", tmp_path, "--resume", *options)
    assert refused.code == 2
    assert f"different {words}" in refused.err
    assert "without --resume" in refused.err
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


def test_resume_with_other_pictures_is_refused(cli, parts, tmp_path):
    cli("predict", parts, "--out", tmp_path)
    save_part(parts / "part0a.png", 9)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    refused = cli("predict", parts, "--out", tmp_path, "--resume")
    assert refused.code == 2
    assert "the pictures are not those of the run" in refused.err
    assert (tmp_path / "predictions.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["not JSON", '{"other": 1}', "3"])
def test_resume_on_rows_that_are_none_is_refused(cli, parts, tmp_path, line):
    cli("predict", parts, "--out", tmp_path)
    (tmp_path / "predictions.jsonl").write_text(line + "\n")
    refused = cli("predict", parts, "--out", tmp_path, "--resume")
    assert refused.code == 2
    assert "line 1 is not a row" in refused.err


def test_resume_on_a_run_file_that_is_damaged_is_refused(cli, parts, tmp_path):
    cli("predict", parts, "--out", tmp_path)
    (tmp_path / "run.json").write_text("{")
    refused = cli("predict", parts, "--out", tmp_path, "--resume")
    assert refused.code == 2
    assert "run.json" in refused.err


def test_resume_tells_good_samples_by_their_contents(cli, parts, tmp_path):
    """Before: by their paths, so that other pictures of the same names were taken for the same."""
    first, second = fill(tmp_path / "good", 2), tmp_path / "moved"
    out, reference = tmp_path / "out", ("--reference", tmp_path / "good")
    cli("predict", parts, "--out", out, *reference)
    shutil.copytree(first, second)
    assert cli("predict", parts, "--out", out, "--resume", "--reference", second).code == 0
    save_part(first / "part0.png", 77)
    refused = cli("predict", parts, "--out", out, "--resume", *reference)
    assert refused.code == 2
    assert "different references_sha256" in refused.err


def test_two_runs_never_share_a_folder(cli, parts, tmp_path):
    cli("predict", parts, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    with locked(tmp_path / "out"):
        for resume in ((), ("--resume",)):
            refused = cli("predict", parts / "part3.png", "--out", tmp_path / "out", *resume)
            assert refused.code == 2
            assert "another winspect run is writing there" in refused.err
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before


def test_a_run_that_starts_anew_leaves_no_table_of_the_earlier(cli, parts, tmp_path, monkeypatch):
    cli("predict", parts, "--out", tmp_path)
    interrupt_after(monkeypatch, 1)
    assert cli("predict", parts, "--out", tmp_path, "--threshold", 0.5, "--batch-size", 1).code == 130
    assert len(rows_in(tmp_path)) == 1
    assert not (tmp_path / "predictions.csv").exists()


# Places that are no good


def test_broken_links_fail_alone_and_loops_are_left(cli, parts):
    (parts / "loop").symlink_to(parts)
    (parts / "part9.png").symlink_to(parts / "gone.png")
    done = cli("predict", parts, "--json")
    assert done.code == 3
    rows = json.loads(done.out)["results"]
    assert len(rows) == 5
    (failed,) = [row for row in rows if row["error"]]
    assert failed["path"] == str(parts / "part9.png")
    assert "broken link" in failed["error"]["message"]
    assert "leads back to" in done.err


# Processes

MANY = 200


def test_ctrl_c_ends_a_run_well(program, tmp_path):
    pictures = fill(tmp_path / "pictures", MANY)
    with program(pictures, "--out", tmp_path / "out", "--no-overlays") as process:
        process.stdout.readline()  # the first picture has been judged
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    text = messages.decode()
    assert "Traceback" not in text
    assert "--resume goes on" in text
    rows = rows_in(tmp_path / "out")
    assert 1 <= len(rows) < MANY
    assert f"interrupted after {len(rows)} of {MANY} pictures" in text


def test_json_is_whole_when_a_polite_kill_ends_the_run(program, tmp_path):
    pictures = fill(tmp_path / "pictures", MANY)
    with program(pictures, "--json") as process:
        start = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in messages
    document = json.loads(start + rest)
    assert document["interrupted"] is True
    assert 1 <= len(document["results"]) == document["done"] < MANY


def test_a_reader_that_goes_away_is_no_error(program, tmp_path):
    pictures = fill(tmp_path / "pictures", 12)
    with program(pictures) as process:
        process.stdout.readline()
        process.stdout.close()
        messages = process.stderr.read().decode()
        process.wait(timeout=60)
    assert "Traceback" not in messages
    assert "Exception ignored" not in messages
    assert process.returncode == 0


def test_a_run_with_out_goes_on_when_its_reader_goes_away(program, tmp_path):
    pictures = fill(tmp_path / "pictures", 12)
    with program(pictures, "--out", tmp_path / "out") as process:
        process.stdout.readline()
        process.stdout.close()
        messages = process.stderr.read().decode()
        assert process.wait(timeout=60) == 0
    assert "Traceback" not in messages
    assert len(rows_in(tmp_path / "out")) == 12


def test_an_output_that_is_full_is_said(program, tmp_path):
    pictures = fill(tmp_path / "pictures", 1)
    with open("/dev/full", "w") as full, program(pictures, "--json", stdout=full) as process:
        messages = process.stderr.read().decode()
        assert process.wait(timeout=60) == 2
    assert "cannot write the output: " in messages
    assert "Traceback" not in messages


# One scale for all heat maps


def painted(out, row):
    with Image.open(out / row["map"]) as overlay:
        return np.asarray(overlay).astype(int)


def test_heat_maps_are_on_one_scale_unless_stretched(cli, parts, tmp_path):
    """The same picture has the same colours whatever stands beside it, and equal colours are equal values."""
    for folder, options in ((tmp_path / "one", ()), (tmp_path / "own", ("--stretch",))):
        cli("predict", parts, "--out", folder, "--raw-maps", *options)
    (fixed, *_), (stretched, *_) = rows_in(tmp_path / "one"), rows_in(tmp_path / "own")
    with Image.open(fixed["path"]) as picture, np.load(tmp_path / "one" / fixed["map"].replace("png", "npz")) as file:
        rgb, heat = np.asarray(picture.convert("RGB")), file["anomaly_map"]
    assert (painted(tmp_path / "one", fixed) == heat_overlay(rgb, heat, (0, 1))).all()  # too small to draw on
    assert (painted(tmp_path / "own", stretched) == heat_overlay(rgb, heat)).all()
    assert (painted(tmp_path / "one", fixed) != painted(tmp_path / "own", stretched)).any()


def test_the_scale_follows_the_good_samples(cli, parts, tmp_path, small_checkpoint):
    new = save(tmp_path / "new.png", part(77, defective=True)[0])
    cli("predict", new, "--reference", parts, "--out", tmp_path / "out", "--raw-maps")
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu")
    assert model.good_levels() == ()
    references = sorted(parts.iterdir())
    model.reference(references)
    levels = model.good_levels()
    assert len(levels) == len(references) == 4
    for number, reference in enumerate(references):
        model.reference([*references[:number], *references[number + 1 :]])
        assert levels[number] == pytest.approx(model.predict(reference).tile_maps.max(), abs=1e-6)
    row = rows_in(tmp_path / "out")[0]
    with Image.open(row["path"]) as picture, np.load(tmp_path / "out" / row["map"].replace("png", "npz")) as file:
        expected = heat_overlay(np.asarray(picture.convert("RGB")), file["anomaly_map"], run_range(levels))
    assert abs(painted(tmp_path / "out", row) - expected).mean() < 1
