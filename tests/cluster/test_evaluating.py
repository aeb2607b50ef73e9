"""Evaluations on a cluster give what an evaluation here gives; most of it is held to that without a cluster."""

from __future__ import annotations

import csv
import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import SMALL
from miniature import make_mvtec

import winspect
from winspect import WinCLIP
from winspect.cli import main as cli_main
from winspect.cluster.cluster import Cluster, Node, connect
from winspect.cluster.evaluating import ClusterScorer, measure
from winspect.cluster.pool import Lost, Worker
from winspect.cluster.workers import Workers, plan_workers
from winspect.datasets import open_dataset
from winspect.errors import ClusterError
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


def worker_with(model):
    worker = Worker(Workers("cpu", 1, 1, cpus=1), {})
    worker.predictor = model
    return worker


@pytest.fixture
def workers(model):
    """What runs on workers runs here, in another folder. ``deadly`` categories take their workers down."""
    seen = SimpleNamespace(asked=[], deadly=())

    class Here:
        def __init__(self):
            self.model, self.here = {}, os.getcwd()
            self.worker = worker_with(model)

        def ask(self, function, *arguments):
            os.chdir("/")
            try:
                return self.worker.run(function, *arguments)
            finally:
                os.chdir(self.here)

        def run(self, units, call, look):
            while units:
                unit = units.popleft()
                seen.asked.append((unit.category, unit.seed))
                yield unit, Lost() if unit.category in seen.deadly else self.ask(*call(unit))
                look(0)

    cluster = Cluster(True, None, (Node("0", "here", 2, 0, 0),))
    seen.model = lambda: ClusterScorer(cluster, Here())
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
    assert len(workers.asked) == 2 * len(options.get("seeds", [0]))
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


def test_nothing_is_left_for_workers(parts, model, workers, tmp_path):
    here = evaluate(model, parts(), tmp_path / "out")
    before = (tmp_path / "out/results.json").read_bytes()
    assert evaluate(workers.model(), parts(), tmp_path / "out") == here
    assert ((tmp_path / "out/results.json").read_bytes(), workers.asked) == (before, [])


def test_an_interrupted_run_goes_on_behind_its_whole_parts(parts, model, workers, tmp_path):
    evaluate(model, parts(), tmp_path / "here", **FEW)
    scorer = workers.model()
    run = scorer.pool.run

    def interrupted(*arguments):
        for number, outcome in enumerate(run(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield outcome

    scorer.pool.run = interrupted
    with pytest.raises(KeyboardInterrupt):
        evaluate(scorer, parts(), tmp_path / "there", **FEW)
    assert not (tmp_path / "there/results.json").exists()
    evaluate(workers.model(), parts(), tmp_path / "there", **FEW)
    assert len(workers.asked) == 4 + 1
    assert_same(tmp_path / "here", tmp_path / "there")


def test_a_report_has_its_heat_maps_from_a_worker(parts, model, workers, tmp_path):
    judges, data = workers.model(), parts()
    results = evaluate(judges, data, tmp_path / "out", **FEW)
    assert judges.identity() == model.identity()
    written = read_parts(tmp_path / "out", results)
    there = write_evaluation_report(tmp_path / "out", results, written, data, judges).read_text(encoding="utf-8")
    here = write_evaluation_report(tmp_path / "out", results, written, data, model).read_text(encoding="utf-8")
    assert there == here and here.count("data:image/") >= 2 * 12
    (tmp_path / "parts/bolt/test/good/000.png").unlink()
    gone, fine = judges.predict_many([Path("parts/bolt/test/good") / name for name in ("000.png", "001.png")], "bolt")
    assert str(gone.error).startswith("parts/bolt/test/good/000.png: ")
    assert fine.path == "parts/bolt/test/good/001.png" and fine.anomaly_score is not None


# What goes wrong


def test_a_part_that_takes_its_workers_down_ends_the_run_behind_the_others(parts, workers, model, tmp_path):
    workers.deadly = ("bolt",)
    words = r"the workers on bolt \(seed 0\) died twice .*: look at Ray's logs; what is done is kept"
    with pytest.raises(ClusterError, match=words):
        evaluate(workers.model(), parts(), tmp_path / "there")
    (done,) = [path.name for path in (tmp_path / "there/categories").iterdir()]
    assert done.endswith("-seed0.json") and "bolt" not in done
    workers.deadly = ()
    assert evaluate(workers.model(), parts(), tmp_path / "there") == evaluate(model, parts(), tmp_path / "here")


def test_a_worker_with_another_model_refuses(model):
    other = replace(model.identity(), weights_sha256="ff")
    with pytest.raises(ClusterError, match=r"^a worker refuses to work: .*: the model there is another one \(weights"):
        worker_with(model).run(measure, None, "/", other)


def test_maps_need_a_folder_that_every_machine_sees(parts, workers, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("winspect.cluster.evaluating.check_nodes", lambda cluster, places: asked.append(places))
    evaluate(workers.model(), parts(), tmp_path / "plain")
    evaluate(workers.model(), parts(), tmp_path / "maps", raw_maps=True)
    here, parts_there = str(tmp_path), str(tmp_path / "parts")  # the root is relative: so must be what it counts from
    assert asked == [[here, parts_there], [here, str(tmp_path / "maps"), parts_there]]


# The command line, and a cluster


@pytest.fixture
def cli(capsys, process_as_before):
    def run(*arguments):
        capsys.readouterr()
        code = cli_main.main(["evaluate", *map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

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
        threads = plan_workers(replace(cluster, is_local=False), "cpu").threads  # the command finds it running
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
