"""``winspect batch`` as a user meets it: what it refuses, prints and returns. Whole runs: ``tests/cluster``."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import pytest

import winspect.cluster
from winspect.calibration.rules import Rules
from winspect.calibration.verdicts import Verdicts
from winspect.cli.main import main
from winspect.cluster import run

SUMMARY = {
    "inputs": 12_000,
    "judged": 11_998,
    "failed": 2,
    "warned": 0,
    "anomalous": 1_998,
    "review": 0,
    "normal": 10_000,
    "scores": {"min": 0.125, "0.5": 0.25, "max": 0.75},
    "shards": 47,
    "bytes": 2_345_678,
    "errors": {"PictureError": {"count": 2, "example": {"id": "a", "path": "a.png", "message": "a.png: is cut off"}}},
    "judged_now": 1_200,
    "pictures_per_s": 16.5,
    "slowest_stage": "judge",
    "stages": {"judge": {"seconds": 60.0, "ms_per_picture": 50.0, "processes": 2, "busy": 0.973}},
    "seconds": 72.7,
}


@pytest.fixture
def cli(cli, monkeypatch):
    """Run ``winspect batch`` in this process; no cluster is ever reached."""
    monkeypatch.setattr(run, "connect", lambda *_, **__: pytest.fail("a cluster was asked for"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return lambda *arguments: cli("batch", *arguments)


@pytest.fixture
def called(monkeypatch):
    """What the library is asked for; it gives ``summary``, or raises it."""
    seen = SimpleNamespace(summary=SUMMARY)

    def batch(*arguments, **options):
        seen.arguments, seen.options = arguments, options
        if isinstance(seen.summary, BaseException):
            raise seen.summary
        return seen.summary

    monkeypatch.setattr(winspect.cluster, "batch", batch)
    return seen


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# What it says


def test_text(cli, called):
    done = cli("parts", "--out", "results")
    assert done.code == 3
    assert done.out.splitlines() == [
        "12,000 pictures: 11,998 judged, 2 failed; 1,200 in 1 min 13 s, 16.5 pictures/s",
        "verdicts: 1,998 anomalous, 10,000 normal",
        "scores: min 0.1250  0.5 0.2500  max 0.7500",
        "slowest stage: judge, 50.0 ms a picture in 2 processes, 97% busy",
        "2 failed: PictureError, as a.png: is cut off",
        "results: results (47 shards, 2.3 MB)",
    ]


def test_text_where_nothing_was_decided_or_done(cli, called):
    nothing = {
        "failed": 0,
        "anomalous": None,
        "review": None,
        "normal": None,
        "scores": None,
        "errors": {},
        "judged_now": 0,
    }
    called.summary = {**SUMMARY, **nothing, "pictures_per_s": None, "slowest_stage": None, "stages": {}}
    done = cli("parts", "--out", "results")
    assert done.code == 0
    assert done.out.splitlines() == [
        "12,000 pictures: 11,998 judged, 0 failed; 0 in 1 min 13 s",
        "results: results (47 shards, 2.3 MB)",
    ]


def test_json_alone(cli, called):
    done = cli("parts", "--out", "results", "--json")
    assert (done.code, json.loads(done.out), done.err) == (3, SUMMARY, "")


@pytest.mark.parametrize("terminated", [False, True])
def test_an_interruption_says_how_to_go_on(cli, called, out, monkeypatch, terminated):
    called.summary = KeyboardInterrupt()
    if terminated:  # a polite kill, while the library works
        monkeypatch.setattr(winspect.cluster, "batch", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    done = cli("parts", "--out", out)
    assert (done.code, done.out) == (130, "")
    assert done.err == f"winspect: interrupted; go on with what is in {out}: --resume\n"


def test_help(cli, capsys):
    with pytest.raises(SystemExit) as ended:
        cli("--help")
    told = capsys.readouterr().out
    assert ended.value.code == 0
    options = (
        "--class",
        "--address",
        "--pool",
        "--workers",
        "--out",
        "--resume",
        "--maps",
        "--shard-rows",
        "--bundle",
        "--device",
    )
    assert all(option in told for option in options)
    assert "3 done, but some pictures failed" in told


# What it passes on


def test_what_is_not_given_is_the_librarys(cli, called, monkeypatch):
    monkeypatch.delenv("WINSPECT_MODEL", raising=False)
    cli("parts", "more", "--out", "results")
    assert called.arguments == (["parts", "more"], "results")
    given = {name for name, value in called.options.items() if value not in (None, False, [])}
    assert given == {"device", "maps", "progress", "rules", "verdicts"}
    assert (called.options["rules"], called.options["verdicts"]) == (Rules(), Verdicts())
    assert (called.options["device"], called.options["maps"]) == ("auto", "none")


def test_what_is_given_is_passed_on(cli, called, textile):
    cli(
        *("parts", "--out", "s3://bucket/results", "--class", "metal nut", "--address", "ray://head:10001"),
        *("--pool", "2-8", "--device", "cuda", "--reference", textile[0], "--shots", "1", "--threshold", "0.25"),
        *("--maps", "both", "--shard-rows", "500", "--resume", "--model", "winspect-tiny", "--batch-size", "4", "-v"),
        *("--dashboard", "--decode-threads", "6"),
    )
    assert called.options == {
        "class_name": "metal nut",
        "address": "ray://head:10001",
        "workers": "2-8",
        "decode_threads": 6,
        "device": "cuda",
        "references": [str(textile[0])],
        "shots": 1,
        "threshold": 0.25,
        "calibration": None,
        "rules": Rules(),
        "verdicts": Verdicts(threshold=0.25),
        "product": None,
        "regions": None,
        "stretch": False,
        "maps": "both",
        "shard_rows": 500,
        "resume": True,
        "progress": True,
        "dashboard": True,
        "verbose": True,
        "model": "winspect-tiny",
        "batch_size": 4,
    }


def test_a_bundle_is_passed_on_alone(cli, called, monkeypatch, tmp_path):
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")  # of no concern to a bundle
    cli("parts", "--out", "results", "--bundle", tmp_path)
    assert called.options["bundle"] == str(tmp_path) and "model" not in called.options


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bundle", "b", "--model", "winspect-tiny"], "--bundle brings its own model: leave these options out"),
        (["--bundle", "b", "--recipe", "log", "--device", "cpu"], "--bundle brings its own device, recipe: leave"),
        (["--shots", "2"], "--shots needs --reference"),
        (["--threshold", "nan"], "--threshold: got nan, need a score such as 0.5"),
        (["--threshold", "1.7"], "--threshold: got 1.7, need a score such as 0.5: scores of this recipe run from 0 to"),
        (["--maps", "all"], "maps: got 'all', need one of none, arrays, overlays, both"),
        (["--class", "{}"], "class"),
        (["--reference", "nowhere"], "--reference: 'nowhere': no such file or folder"),
        (["--calibration", "nowhere.json"], "nowhere.json"),
        (["--set", "stride"], "--set stride: need NAME=VALUE"),
    ],
)
def test_a_bad_call(cli, out, textile, arguments, words):
    done = cli(textile[0], "--out", out, *arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("winspect: error: ") and words in line
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments", [[], ["parts"], ["--out", "results"], ["parts", "--out", "r", "--shard-rows", "x"]]
)
def test_a_call_that_is_not_whole(cli, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli(*arguments)
    assert ended.value.code == 2 and "usage: winspect batch" in capsys.readouterr().err


def test_bad_sources_and_places(cli, tmp_path, out, textile):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.csv").write_text(f"id,path\na,{textile[0]}\na,{textile[1]}\n")
    (tmp_path / "bad.csv").write_text(f"id,path\na,{textile[0]}\nb,\n")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").touch()
    for source, place, words in (
        (tmp_path / "nowhere", out, "no such file or folder"),
        (tmp_path / "empty", out, "no pictures in"),
        (tmp_path / "twice.csv", out, "1 row has an id that came before"),
        (tmp_path / "bad.csv", out, "1 row cannot be used, mend or remove them: "),
        (textile[0], tmp_path / "used", "holds files of no winspect batch (notes.txt)"),
        (textile[0], "ftp://host/results", "ftp://host/results"),
    ):
        done = cli(source, "--out", place)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
        assert done.err.startswith("winspect: error: ") and words in done.err


@pytest.fixture
def machine(monkeypatch):
    """A cluster of two cores that gives its books away, and nothing else."""
    from contextlib import nullcontext

    from winspect.cluster.cluster import Cluster, Node

    found = Cluster(True, None, (Node("1", "h", 2.0, 0.0, 0.0),))
    monkeypatch.setattr(run, "connect", lambda *_, **__: nullcontext(found))
    monkeypatch.setattr(run, "Pool", lambda *_, **__: pytest.fail("a worker was started"))


@pytest.mark.parametrize("option", ["--pool", "--workers"])  # the name of today, and the earlier one
@pytest.mark.parametrize("workers", ["0", "two", "8-2", "1.5"])
def test_workers_that_are_no_number(cli, machine, out, textile, option, workers):
    done = cli(textile[0], "--out", out, option, workers)
    assert done.code == 2
    assert f"got {workers!r} workers: need a number from 1, or two, as in 2-8" in done.err


def test_a_device_that_no_machine_has(cli, machine, out, textile):
    done = cli(textile[0], "--out", out, "--device", "cuda")
    assert done.code == 2 and "no machine of the cluster offers Ray a GPU; use --device cpu" in done.err


def test_an_address_that_is_none(capsys, process_as_before, out, textile, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert main(["batch", str(textile[0]), "--out", str(out), "--address", "nonsense"]) == 2
    assert "nonsense: got no address of a cluster, need auto, HOST:PORT or ray://HOST:PORT" in capsys.readouterr().err
