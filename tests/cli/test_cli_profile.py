"""``winspect profile`` as a user meets it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from PIL import Image

from winspect.engines.torch_engine import TorchEngine
from winspect.speed import plans as default_pictures
from winspect.speed import profile
from winspect.speed.roofline import measure_bandwidth
from winspect.system.installation import install_command

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_arrays(monkeypatch):
    """Bandwidth is measured on little memory: quick, and not what is tested."""
    monkeypatch.setattr(profile, "measure_bandwidth", functools.partial(measure_bandwidth, array_bytes=1 << 20))


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(folder / f"part{number}.png")
    return folder


@pytest.fixture
def cli(cli, small_checkpoint):
    """Run ``winspect profile`` in this process on the small model."""

    def run(*arguments):
        given = ("--model", SMALL, "--weights", small_checkpoint, "--device", "cpu", "--precision", "fp32")
        chosen = () if "--engine" in arguments else ("--engine", "torch")
        return cli("profile", *arguments, *given, *chosen)

    return run


def test_json_alone_is_on_stdout(cli, parts, tmp_path):
    done = cli(parts, "--repeat", "1", "--json", "--out", tmp_path / "out")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["pictures"] == 3
    assert (found["engine"], found["precision"], found["device"], found["repeat"]) == ("torch", "fp32", "cpu", 1)
    assert json.loads((tmp_path / "out" / "profile.json").read_text("utf-8")) == found
    assert (tmp_path / "out" / "profile.svg").read_text("utf-8").startswith("<svg ")
    assert f"written: {tmp_path / 'out' / 'profile.svg'}" in done.err


def test_tables(cli, parts):
    done = cli(parts / "part0.png", "--repeat", "1")
    assert done.code == 0
    assert f"{SMALL}, torch fp32 on cpu, recipe paper: 1 picture, 1 tile, per picture:" in done.out
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    for name, reported in (("linear", "41.2"), ("attention", "15.1"), ("LayerNorm", "10.5"), ("other", "33.2")):
        assert rows[name][3] == reported
        assert rows[name][8] in ("compute", "memory")
    assert sum(float(rows[name][2]) for name in ("linear", "attention", "LayerNorm", "other")) == pytest.approx(
        100, abs=0.3
    )
    assert "reported: for an Ascend 910B4-1, recipe tiles; not measured here" in done.out
    assert "limits of this machine, measured: matrix products " in done.out
    assert "aten::addmm" in rows
    assert {"decode", "resize", "scoring", "together"} <= set(rows)


def test_bad_pictures_are_named_and_left_out(cli, parts):
    (parts / "part1.png").write_text("no picture")
    done = cli(parts, "--repeat", "1", "--json")
    assert done.code == 3
    assert json.loads(done.out)["pictures"] == 2
    assert f"failed: {parts / 'part1.png'}" in done.err


def test_of_many_pictures_some_are_taken(cli, parts):
    for number in range(14):
        shutil.copy(parts / "part0.png", parts / f"copy{number}.png")
    done = cli(parts, "--repeat", "1", "--json")
    assert json.loads(done.out)["pictures"] == 16
    assert "found 17 pictures; 16 of them show as much" in done.err


def test_without_pictures_those_of_a_package(cli, parts, monkeypatch):
    monkeypatch.setattr(default_pictures, "packaged_pictures", lambda: sorted(parts.iterdir()))
    assert json.loads(cli("--repeat", "1", "--json").out)["pictures"] == 2


def test_without_pictures_and_without_the_package(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "conformal_clip_data", None)
    done = cli()
    assert (done.code, done.out) == (2, "")
    assert install_command("demo") in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repeat", "0"), "--repeat: got 0"),
        (("--engine", "abacus"), "abacus"),
        (("nowhere.png",), "no such file"),
    ],
)
def test_wrong_use(cli, parts, arguments, said):
    done = cli(parts, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_no_usable_picture(cli, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    done = cli(tmp_path / "bad.png")
    assert done.code == 2
    assert "none of 1 pictures can be used" in done.err


def test_an_output_that_cannot_be_written_is_found_before_the_work(cli, parts, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli(parts, "--out", tmp_path / "file", "--engine", "no such engine, as loading the model would find")
    assert done.code == 2
    assert "not a folder" in done.err


def test_an_engine_without_times(cli, parts, monkeypatch):
    monkeypatch.setattr(TorchEngine, "timings", None)
    done = cli(parts)
    assert done.code == 2
    assert "engine torch cannot say how long its operators take" in done.err


def test_help_imports_no_torch():
    code = (
        "import sys; from winspect.cli.main import main\n"
        "try: main(['profile', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert "profile.svg" in done.stdout
