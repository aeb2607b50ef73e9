"""Evaluations on a cluster give what an evaluation here gives; most of it is held to that without a cluster."""

from __future__ import annotations

import csv
import json
import os
import random
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from checkpoints import SMALL
from miniature import make_mvtec

import winspect
from winspect import WinCLIP
from winspect.cli import main as cli_main
from winspect.cluster import evaluating
from winspect.cluster.cluster import Cluster, Node, connect
from winspect.cluster.evaluating import ClusterModel
from winspect.cluster.filling import Filling
from winspect.cluster.gathering import Gathering
from winspect.cluster.shared import Model
from winspect.cluster.stages import JUDGED, Judge, decode
from winspect.cluster.workers import Workers, plan_workers
from winspect.datasets import open_dataset
from winspect.errors import ClusterError, SourceError
from winspect.evaluation.report import read_parts, write_evaluation_report
from winspect.evaluation.results import METRICS
from winspect.evaluation.run import evaluate
from winspect.evaluation.shots import draw

FEW = {"shots": 1, "seeds": (0, 1)}


@pytest.fixture(scope="module")
def model(small_checkpoint):
    """One tile a pass: scores do not depend on which pictures come together, to the last bit."""
    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu", batch_size=1)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A data set with a relative root: workers are given full paths, and reports the root's own."""
    monkeypatch.chdir(tmp_path)
    make_mvtec(tmp_path / "parts", train=3, good=3, defective=3)
    return lambda: open_dataset("mvtec", "parts")


class Rows(list):
    """Tables of rows, as a pipeline gives them."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def workers(model, monkeypatch):
    """What runs on workers runs here, without Ray. Rows come in any order; ``spoil`` changes a round's tables."""
    seen = SimpleNamespace(rounds=[], spoil=lambda table: table)

    def start(self, ordinals, rows, job):
        seen.rounds.append(sum(map(len, ordinals)))
        judge = Judge(job.model, lambda: job.shared)
        tables = [
            decoded for block in self.inputs.blocks(ordinals, rows) for decoded in decode(block, shared=job.shared)
        ]
        rows = pa.concat_tables([judge(table) for table in tables])
        shuffled = rows.take(random.Random(7).sample(range(len(rows)), len(rows)))
        return Rows(seen.spoil(shuffled.slice(first, 5)) for first in range(0, len(rows), 5))

    monkeypatch.setattr(Model, "load", lambda self: model)
    monkeypatch.setattr(Filling, "_start", start)
    monkeypatch.setattr(evaluating, "on_worker", lambda function, *arguments, **options: function(*arguments))
    monkeypatch.setattr(evaluating, "result_of", lambda result: result)
    cluster = Cluster(True, False, None, (Node("0", "here", 2, 0, 0),))
    seen.model = lambda: ClusterModel(cluster, Workers("cpu", 1, 1, cpus=1), Model())
    return seen


def assert_same(here, there, files=("results.json", "scores.csv")):
    for name in files:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name


def assert_near(here, there, tolerance):
    """All equal, numbers within a tolerance."""
    if isinstance(here, dict):
        assert list(there) == list(here)
        for key in here:
            assert_near(here[key], there[key], tolerance)
    elif isinstance(here, float):
        assert there == pytest.approx(here, abs=tolerance)
    else:
        assert there == here


def rows_in(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def threads_of_torch(wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    yield
    torch.set_num_threads(before)


# The same as here


@pytest.mark.parametrize("options", [{}, FEW, {"shots": 3}])
def test_all_is_the_same_to_the_last_byte(options, parts, model, workers, tmp_path):
    (tmp_path / "parts/bolt/test/good/001.png").write_bytes(b"no picture")
    here = evaluate(model, parts(), tmp_path / "here", overlays=True, raw_maps=True, **options)
    there = evaluate(workers.model(), parts(), tmp_path / "there", overlays=True, raw_maps=True, **options)
    assert there == here and here["categories"]["bolt"]["n_failed"] == 1
    assert here["categories"]["bolt"]["failed"][0]["message"].startswith("parts/bolt/test/good/001.png: ")
    maps = [path.relative_to(tmp_path / "here") for path in (tmp_path / "here/maps").rglob("*.*")]
    assert len(maps) == 2 * 11 * len(options.get("seeds", [0]))
    assert_same(tmp_path / "here", tmp_path / "there", ["results.json", "scores.csv", *maps])
    assert workers.rounds == [12 * len(options.get("seeds", [0]))]
    ranges = {tuple(part["heat_range"]) for part in read_parts(tmp_path / "there", there).values()}
    assert (ranges == {(0.0, 1.0)}) == (options.get("shots", 1) < 2)  # several good samples have a scale


def test_a_reference_that_cannot_be_read_stops_its_part_alone(parts, model, workers, tmp_path):
    data = parts()
    broken = {draw(data, "bolt", **one).references[0].path for one in ({"shots": 1, "seed": 0},)}
    seed = next(s for s in range(1, 9) if draw(data, "bolt", shots=1, seed=s).references[0].path not in broken)
    for path in broken:
        path.write_bytes(b"no picture")
    options = {"shots": 1, "seeds": (0, seed)}
    here = evaluate(model, parts(), tmp_path / "here", **options)
    assert evaluate(workers.model(), parts(), tmp_path / "there", **options) == here
    assert_same(tmp_path / "here", tmp_path / "there")
    bolt = here["categories"]["bolt"]
    assert all(bolt["by_seed"]["0"][metric] is None for metric in METRICS)
    assert type(bolt["by_seed"][str(seed)]["image_auroc"]) is float
    assert bolt["failed"][0]["message"].startswith("cannot use a reference picture: parts/bolt/train/good/")
    assert workers.rounds == [3 * 6]


def test_nothing_to_judge_starts_no_pipeline(parts, model, workers, tmp_path):
    here = evaluate(model, parts(), tmp_path / "out")
    before = (tmp_path / "out/results.json").read_bytes()
    assert evaluate(workers.model(), parts(), tmp_path / "out") == here
    assert ((tmp_path / "out/results.json").read_bytes(), workers.rounds) == (before, [])


def test_an_interrupted_run_goes_on_behind_its_whole_parts(parts, model, workers, tmp_path, monkeypatch):
    evaluate(model, parts(), tmp_path / "here", **FEW)
    measured = ClusterModel._measured

    def interrupted(self, *arguments):
        if len(list((tmp_path / "there/categories").iterdir())) == 3:
            raise KeyboardInterrupt
        return measured(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ClusterModel, "_measured", interrupted)
        evaluate(workers.model(), parts(), tmp_path / "there", **FEW)
    assert not (tmp_path / "there/results.json").exists()
    evaluate(workers.model(), parts(), tmp_path / "there", **FEW)
    assert workers.rounds == [4 * 6, 6]
    assert_same(tmp_path / "here", tmp_path / "there")


def test_a_report_has_its_heat_maps_from_a_worker(parts, model, workers, tmp_path):
    judges, data = workers.model(), parts()
    results = evaluate(judges, data, tmp_path / "out", **FEW)
    assert (judges.recipe.name, judges.weights_sha256) == ("paper", model.weights_sha256)
    judges._reviewer = SimpleNamespace(judge=SimpleNamespace(remote=evaluating._Reviewer(Model()).judge))
    written = read_parts(tmp_path / "out", results)
    there = write_evaluation_report(tmp_path / "out", results, written, data, judges).read_text(encoding="utf-8")
    here = write_evaluation_report(tmp_path / "out", results, written, data, model).read_text(encoding="utf-8")
    assert there == here and here.count("data:image/") >= 2 * 12
    (tmp_path / "parts/bolt/test/good/000.png").unlink()
    gone, fine = judges.predict_many([Path("parts/bolt/test/good") / name for name in ("000.png", "001.png")], "bolt")
    assert str(gone.error).startswith("parts/bolt/test/good/000.png: ")
    assert (fine.path, fine.picture_rgb) == ("parts/bolt/test/good/001.png", None)


def test_an_alarm_comes_from_the_worker(parts, workers, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluating, "embedding_alarm", lambda model, probes: asked.append(probes) or "broken")
    categories = evaluate(workers.model(), parts(), tmp_path / "out", **FEW)["categories"]
    assert {category["alarm"] for category in categories.values()} == {"broken"}
    assert len(asked) == 2 and all(len(probes) == 4 for probes in asked)  # once for all seeds


# What goes wrong


def test_lost_pictures_are_tried_again_alone_and_then_fail(parts, model, workers, tmp_path):
    def lose(table):
        names = [os.path.basename(path) for path in table["path"].to_pylist()]
        first = len(workers.rounds) == 1
        return table.filter([name != "000.png" and (not first or name != "001.png") for name in names])

    workers.spoil = lose
    here = evaluate(model, parts(), tmp_path / "here")
    there = evaluate(workers.model(), parts(), tmp_path / "there")
    assert workers.rounds == [12, 8]
    failed = there["categories"]["bolt"]["failed"]
    assert [one["path"] for one in failed] == ["bolt/test/good/000.png", "bolt/test/scratch/000.png"]
    assert "WorkerLost: the process that worked on this picture died" in failed[0]["message"]
    assert here["categories"]["bolt"]["failed"] == []
    for own, other in zip(*(rows_in(tmp_path / name) for name in ("here", "there")), strict=True):
        assert other["score"] == ("" if own["path"].endswith("000.png") else own["score"])


def test_a_worker_that_refuses_ends_the_run(parts, workers, tmp_path):
    def refuse(table):
        return table.set_column(JUDGED.get_field_index("refusal"), "refusal", pa.array(["no"] * len(table)))

    workers.spoil = refuse
    with pytest.raises(ClusterError, match="a worker refuses to work: no"):
        evaluate(workers.model(), parts(), tmp_path / "out")


def test_a_name_that_is_no_text_is_refused(parts, workers, tmp_path):
    os.rename("parts/bolt/test/good/000.png", b"parts/bolt/test/good/\xff.png")
    with pytest.raises(SourceError, match=r"udcff\.png': a name that is no UTF-8 cannot be sent"):
        evaluate(workers.model(), parts(), tmp_path / "out")


def rows(*ordinals, key="part 0"):
    error = {"type": "PictureError", "message": "a: broken"}
    return pa.Table.from_pylist(
        [
            {"ordinal": number, "id": str(number), "path": str(number), "class": key, "model": "m"}
            | {"weights_sha256": "w", "decode_s": 0.5, "judge_s": 1.0}
            | ({"error": error} if number == 1 else {"anomaly_score": number / 10})
            for number in ordinals
        ],
        schema=JUDGED,
    )


def test_rows_are_gathered_in_any_order_and_once():
    whole, steps = [], []
    gathering = Gathering(
        {"part 0": 3, "none": 0, "part 1": 1}, lambda *part: whole.append(part), lambda: steps.append(1)
    )
    assert whole == [("none", [], 0.0)]
    gathering.add(rows(2, 1))
    gathering.add(rows(2))
    assert (len(whole), gathering.lacking().tolist(), gathering.lacking().dtype) == (1, [0, 3], np.int64)
    gathering.add(rows(3, key="part 1"))
    gathering.add(rows(0))
    assert [(key, [result.anomaly_score for result in results], s) for key, results, s in whole[1:]] == [
        ("part 1", [0.3], 1.5),
        ("part 0", [0.0, None, 0.2], 4.5),
    ]
    assert (gathering.rows_done, gathering.failed, len(steps), gathering.lacking().tolist()) == (4, 1, 4, [])


# The command line, and a cluster


@pytest.fixture
def cli(capsys, process_as_before):
    def run(*arguments):
        capsys.readouterr()
        code = cli_main.main(["evaluate", *map(str, arguments)])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pool", "2"), "--pool needs --address"),
        (("--address", "nowhere"), "nowhere: got no address of a cluster"),
        (("--address", "127.0.0.1:1"), "127.0.0.1:1: cannot be reached"),
    ],
)
def test_wrong_use_ends_with_2(arguments, message, cli, parts, tmp_path):
    done = cli("--dataset", "mvtec", "--root", "parts", "--out", tmp_path / "out", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own ways
def test_a_cluster_gives_the_same_figures(cli, parts, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(winspect.__file__).parents[1]))
    given = ("--dataset", "mvtec", "--root", "parts", "--shots", "1", "--seeds", "0,1")
    given += ("--model", "winspect-tiny", "--engine", "torch", "--device", "cpu", "--batch-size", "1")
    with connect(None) as cluster:
        threads = plan_workers(replace(cluster, is_own=False), "cpu").threads  # the command finds it running
        done = cli(*given, "--address", "auto", "--out", tmp_path / "there")
    assert (done.code, "12 pictures judged, 0 failed" in done.err) == (0, True), done.err
    local = WinCLIP("winspect-tiny", engine="torch", device="cpu", batch_size=1)
    with threads_of_torch(threads):  # other numbers give other last digits
        here = evaluate(local, parts(), tmp_path / "here", **FEW)
    there = json.loads((tmp_path / "there/results.json").read_text())
    assert_near(json.loads(json.dumps({**here, "machine": there["machine"]})), there, 1e-6)
    for own, other in zip(*(rows_in(tmp_path / name) for name in ("here", "there")), strict=True):
        assert float(other.pop("score")) == pytest.approx(float(own.pop("score")), abs=1e-6)
        assert other == own
    # Its heat maps were made on the cluster: none is in the folder.
    report = (tmp_path / "there/report.html").read_text(encoding="utf-8")
    assert "data:image/" in report and "no heat maps" not in report
