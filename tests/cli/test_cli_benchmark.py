"""``winspect benchmark`` as a user meets it: what it prints, writes and refuses, and its exit codes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from checkpoints import SMALL
from fake_workers import fake_serve, small_serve
from PIL import Image

from winspect.cli.main import main
from winspect.speed import benchmark
from winspect.speed.benchmark import run_benchmark


@pytest.fixture
def parts(tmp_path):
    """Four pictures, three times as wide as high: recipe tiles cuts four tiles from each."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (60, 180, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"part{number}.png")
    return folder


@pytest.fixture
def cli(cli, monkeypatch):
    """Run ``winspect benchmark`` in this process; ``serve`` is what its workers run, ``model`` what they are told."""

    def run(*arguments, serve=fake_serve, **told):
        def pretend(*given, model, **options):
            return run_benchmark(*given, model={**model, **told}, serve=serve, **options)

        monkeypatch.setattr(benchmark, "run_benchmark", pretend)
        return cli("benchmark", *arguments)

    return run


def test_a_table_of_all_runs_and_progress_beside_it(cli, parts):
    done = cli(parts, "--engines", "torch,openvino", "--plans", "serial,prefetch,paper", "--rounds", 2)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "fake: 4 pictures, 8 tiles, 2 rounds, 1 to warm up"
    cells = [line.split() for line in lines[3:9]]
    assert [cell[:5] for cell in cells] == [
        ["serial", "torch", "fp32", "no", "2.000"],
        ["serial", "openvino", "fp32", "no", "4.000"],
        ["prefetch", "torch", "fp32", "no", "4.000"],
        ["prefetch", "openvino", "fp32", "no", "8.000"],
        ["paper", "torch", "fp32", "full", "0.500"],
        ["paper", "openvino", "fp32", "full", "1.000"],
    ]
    # 1,000 ms / 2 a second; twice the baseline; 300 MB; 2 tiles of 1 GFLOP twice a second of the machine's 100.
    assert cells[0][5:] == ["500.0", "500.0", "500.0", "1.00", "300", "4.00", "%"]
    assert cells[1][8] == "2.00"
    assert "the fastest engine's: fp32 100, bf16 200 GFLOP/s" in done.out
    assert "x serial: against serial, torch fp32" in done.out
    assert done.out.count("- prefetch is the same as tile-batch") == 1
    assert "round 2 of 2: paper torch fp32: 0.5 images/s" in done.err


def test_json_alone_on_stdout_and_files_in_out(cli, parts, tmp_path):
    done = cli(parts, "--json", "--out", tmp_path / "out", "--plans", "serial", "--rounds", 1, "--images", 3)
    assert done.code == 0
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "out/benchmark.json").read_text())
    assert found["pictures"]["names"] == ["part0.png", "part2.png", "part3.png"]  # at even steps, rounded
    assert (found["rounds"], found["warm_up"], list(found["plans"])) == (1, 1, ["serial"])
    assert (tmp_path / "out/benchmark.svg").read_text().startswith("<svg")
    assert "benchmark.svg" in done.err


def test_the_defaults(cli, parts):
    found = json.loads(cli(parts, "--json").out)
    assert list(found["plans"]) == ["serial", "tile-batch", "prefetch", "paper"]
    assert {(run["asked"]["engine"], run["asked"]["precision"]) for run in found["runs"]} == {("auto", "fp32")}
    assert (found["rounds"], found["class"], found["maps"]) == (5, "object", False)


def test_options_reach_the_workers(cli, parts):
    arguments = ("--engine", "openvino", "--precision", "bf16", "--maps", "--class", "nut", "--plans", "serial")
    found = json.loads(cli(parts, "--json", "--rounds", 1, "--warm-up", 0, *arguments).out)
    (run,) = found["runs"]
    assert (run["engine"], run["precision"], run["maps"]) == ("openvino", "bf16", True)
    assert (found["class"], found["warm_up"], found["maps"]) == ("nut", 0, True)


def test_model_options_are_passed_on(cli, parts, monkeypatch):
    seen = {}

    def watch(*given, model, **options):
        seen.update(model)
        return run_benchmark(*given, model={}, serve=fake_serve, **options)

    options = [
        "--skip-gate",
        "--int8-pictures",
        str(parts),
        "--weights",
        "w.pt",
        "--device",
        "cpu",
        "--set",
        "scales=2",
        "--workers",
        "3",
        "--batch-size",
        "2",
    ]
    monkeypatch.setenv("WINSPECT_MODEL", "ViT-B-16")
    monkeypatch.setattr(benchmark, "run_benchmark", watch)
    assert main(["benchmark", str(parts), "--rounds", "1", "--plans", "serial", *options]) == 0
    told = {"model": "ViT-B-16", "weights": "w.pt", "device": "cpu", "workers": 3, "batch_size": 2}
    calibration = [parts / f"part{number}.png" for number in range(4)]
    assert seen == {**told, "settings": {"scales": [2]}, "gate": "skip", "int8_pictures": calibration}


def test_what_failed_is_named_and_the_rest_is_there(cli, parts):
    (parts / "part2.png").rename(parts / "bad.png")
    done = cli(
        parts, "--engines", "torch,onnx,openvino", "--plans", "serial", "--rounds", 2, "--json",
        broken={"onnx": "refused", "openvino": "killed"},
    )  # fmt: skip
    assert done.code == 3
    found = json.loads(done.out)
    assert [run["engine"] for run in found["runs"]] == ["torch"]
    assert "failed: serial onnx fp32: onnx is not installed" in done.err
    assert "failed: serial openvino fp32: the worker process was ended by SIGKILL" in done.err
    assert "bad.png: cannot be read" in done.err


def test_a_table_without_a_single_run(cli, parts):
    done = cli(parts, "--engines", "onnx", "--rounds", 1, broken={"onnx": "refused", "gemm_open": "exits"})
    assert done.code == 3
    assert "matrix products of this machine, the fastest engine's: not measured" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plans", "serial,quick"], "plans: got 'quick', need some of serial, tile-batch, prefetch, paper"),
        (["--plans", ","], "plans: got none"),
        (["--engines", "tensorrt"], "engines: got 'tensorrt', need some of auto, torch, openvino, onnx"),
        (["--precisions", "fp32,fp8"], "precisions: got 'fp8', need some of auto, fp32, bf16, fp16, int8"),
        (["--recipe", "tiles"], "--recipe tiles: a plan has its own recipe"),
        (["--plan", "serial"], "--plan serial: say which plans are measured with --plans serial"),
        (["--engine", "torch", "--engines", "torch"], "got --engines torch and --engine torch"),
        (["--images", "0"], "--images: got 0"),
        (["--rounds", "0"], "rounds: got 0"),
        (["--warm-up", "-1"], "warm_up: got -1"),
        (["nowhere"], "nowhere"),
    ],
)
def test_wrong_use(cli, parts, arguments, said):
    done = cli(parts, *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_an_out_that_cannot_be_written_is_said_first(cli, parts, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli(parts, "--out", tmp_path / "file")
    assert done.code == 2
    assert "choose another --out" in done.err
    assert "loading" not in done.err


def test_without_pictures_and_without_the_package(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "conformal_clip_data", None)
    done = cli()
    assert done.code == 2
    assert "name files or folders of your own" in done.err


def test_fewer_pictures_than_asked_for_is_said(cli, parts):
    done = cli(parts, "--images", 9, "--rounds", 1, "--plans", "serial")
    assert done.code == 0
    assert "found 4 pictures, fewer than the 9 asked for" in done.err


def test_a_real_model_in_real_workers(cli, parts, small_checkpoint, monkeypatch):
    for module in ("openvino", "onnxruntime"):  # for the matrix products: each takes seconds
        monkeypatch.setitem(sys.modules, module, None)
    model = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu")
    what = ("--plans", "tile-batch", "--engines", "torch", "--images", 2, "--rounds", 1)
    done = cli(parts, *model, *what, "--json", serve=small_serve)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (run,) = found["runs"]
    assert (run["plan"], run["engine"], run["precision"], run["images"], run["tiles"]) == (
        "tile-batch",
        "torch",
        "fp32",
        2,
        8,
    )
    assert run["images_per_s"] > 0
    assert run["peak_rss_mb"] is None or run["peak_rss_mb"] > 50
    assert 0 < run["roofline_fraction"] < 1
    assert run["score_max_difference"] == 0
    assert found["model"] == SMALL
    assert {product["rows"] for product in found["gemm"]} == {4 * 17, 17 + 9 * 5 + 4 * 10}
