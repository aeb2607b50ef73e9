"""The benchmark: its arithmetic by hand, its order, and what becomes of workers that refuse, fail or die."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL
from fake_workers import fake_serve
from PIL import Image

from benchmarks import plans as plans_benchmark
from winspect import WinCLIP
from winspect.datasets import packaged
from winspect.errors import MissingExtraError, SettingsError, SourceError
from winspect.speed import gemm
from winspect.speed.benchmark import WorkerPool, run_benchmark
from winspect.speed.benchmark_results import Measured, Survey, baseline_of, gemm_rates, make_results
from winspect.speed.charts import write_benchmark
from winspect.speed.plans import PLANS, Combination, combine, packaged_pictures
from winspect.speed.worker import Jobs, Worker, WorkerError, count_tiles

PICTURES = ["a.png", "b.png"]


@pytest.fixture
def measure(tmp_path):
    """Run a benchmark with workers that only pretend; gives its results and the jobs they were asked, in order."""

    def run(combinations, pictures=PICTURES, **options):
        log = tmp_path / "jobs.log"
        log.unlink(missing_ok=True)
        model = {"log": str(log), "broken": options.pop("broken", {})}
        results = run_benchmark(combinations, pictures, model=model, serve=fake_serve, **options)
        return results, log.read_text().splitlines()

    return run


# Plans and their combinations


def test_every_combination_once_in_the_order_given():
    found = combine(["paper", "serial"], ["torch", "torch"], ["fp32", "bf16"])
    assert [str(own) for own in found] == [
        "paper torch fp32",
        "paper torch bf16",
        "serial torch fp32",
        "serial torch bf16",
    ]


@pytest.mark.parametrize(
    ("plans", "engines", "precisions", "said"),
    [
        (
            ["serial", "fast"],
            ["torch"],
            ["fp32"],
            "plans: got 'fast', need some of serial, tile-batch, prefetch, paper",
        ),
        ([], ["torch"], ["fp32"], "plans: got none"),
        (["serial"], [], ["fp32"], "engines: got none"),
        (["serial"], ["torch"], [], "precisions: got none"),
    ],
)
def test_wrong_combinations(plans, engines, precisions, said):
    with pytest.raises(SettingsError, match=said):
        combine(plans, engines, precisions)


# Rounds


def test_rounds_are_interleaved_and_rotated(measure):
    combinations = combine(["serial", "tile-batch", "paper"], ["torch"], ["fp32"])
    results, jobs = measure(combinations, rounds=3, warm_up=0)
    a, b, c = (str(own) for own in combinations)
    assert jobs[:2] == ["survey: yardstick", "gemm_open: yardstick"]
    asked = [job for job in jobs[2:] if not job.startswith("load")]
    machine = "gemm_round: yardstick"
    rounds = [machine, *(f"round: {own}" for own in (a, b, c)), machine, *(f"round: {own}" for own in (b, c, a))]
    assert asked == [*rounds, machine, *(f"round: {own}" for own in (c, a, b))]
    assert Counter(job for job in jobs if job.startswith("load")) == {f"load: {own}": 1 for own in (a, b, c)}
    assert [len(run["rounds"]) for run in results["runs"]] == [3, 3, 3]


def test_isolated_workers_are_loaded_anew_in_every_round(measure):
    combinations = combine(["serial", "tile-batch", "paper"], ["torch"], ["fp32"])
    _, jobs = measure(combinations, rounds=2, isolate=True)
    a, b, c = (str(own) for own in combinations)
    found = [job for job in jobs if job.startswith(("load", "round"))]
    assert found == [f"{job}: {own}" for own in (a, b, c, b, c, a) for job in ("load", "round")]


def test_workers_are_closed_where_memory_would_not_do():
    # 700 MB hold two workers of 300 MB: the third closes the first, which is loaded again when it is asked.
    a, b, c = combine(["serial", "tile-batch", "paper"], ["torch"], ["fp32"])
    pool, loads = WorkerPool(fake_serve, 700), []
    try:
        for combination in (a, b, c, b, c, a):
            pool.get(combination, lambda _, name=combination: loads.append(name) or 300.0)
    finally:
        pool.close()
    assert loads == [a, b, c, a]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"rounds": 0}, SettingsError, "rounds: got 0, need a whole number from 1"),
        ({"rounds": 1.5}, SettingsError, "rounds: got 1.5"),
        ({"warm_up": -1}, SettingsError, "warm_up: got -1, need a whole number from 0"),
        ({"pictures": ["bad.png"]}, SourceError, "none of 1 pictures can be used.*bad.png.*cannot be read"),
        ({"combinations": []}, SettingsError, "got no combination"),
        ({"broken": {"survey": "refused"}}, WorkerError, "survey is not installed"),
        ({"broken": {"survey": "refused"}, "maps": True}, WorkerError, "survey is not installed"),
    ],
)
def test_what_cannot_be_measured_at_all(measure, options, error, said):
    with pytest.raises(error, match=said):
        measure(**{"combinations": combine(["serial"], ["torch"], ["fp32"]), **options})


def test_a_picture_that_cannot_be_used_is_named_and_left_out(measure):
    results, _ = measure(combine(["serial"], ["torch"], ["fp32"]), ["a.png", "bad.png", "b.png"], rounds=1)
    assert results["failed_pictures"] == [{"path": "bad.png", "message": "cannot be read"}]
    assert results["pictures"] == {"names": ["a.png", "b.png"], "tiles": [2, 2]}


# Workers that refuse, fail or die


def test_a_combination_that_is_refused_does_not_stop_the_others(measure):
    combinations = combine(["serial", "paper"], ["onnx", "torch"], ["fp32"])
    results, _ = measure(combinations, rounds=2, broken={"onnx": "refused"})
    error = {"type": "EngineError", "message": "onnx is not installed"}
    names = {"engine": "onnx", "precision": "fp32", "rounds_done": 0, "error": error}
    # Rounds begin with another combination each, but a refusal is found in the first one.
    assert results["failed"] == [{"plan": "serial", **names}, {"plan": "paper", **names}]
    assert [(run["plan"], len(run["rounds"])) for run in results["runs"]] == [("serial", 2), ("paper", 2)]


@pytest.mark.parametrize(
    ("ending", "said"),
    [("exits", "ended with exit code 7 and without an answer"), ("killed", "ended by SIGKILL.*out of memory")],
)
def test_a_worker_that_dies_is_told_and_the_others_go_on(measure, ending, said):
    combinations = combine(["serial"], ["openvino", "torch"], ["fp32"])
    results, _ = measure(combinations, rounds=3, broken={"openvino": ending})
    (failure,) = results["failed"]
    assert (failure["engine"], failure["rounds_done"], failure["error"]["type"]) == ("openvino", 1, "died")
    assert np.char.find(failure["error"]["message"], said.split(".*")[0]) >= 0
    assert said.rpartition(".*")[2] in failure["error"]["message"]
    assert [(run["engine"], len(run["rounds"])) for run in results["runs"]] == [("torch", 3)]


@pytest.mark.parametrize("job", ["gemm_open", "gemm_round"])
def test_without_the_machines_own_rate_the_rest_is_measured(measure, caplog, job):
    results, _ = measure(combine(["serial"], ["torch"], ["fp32"]), rounds=2, broken={job: "exits"})
    assert results["gemm_gflops"] == {"fp32": None, "bf16": None}
    assert results["roofline_fraction"] == {"serial": None}
    assert results["plans"]["serial"]["images_per_s"] == 2.0
    assert "matrix products is not measured any further" in caplog.text


def test_all_combinations_may_fail(measure):
    results, _ = measure(combine(["serial"], ["onnx"], ["fp32"]), rounds=1, broken={"onnx": "refused"})
    assert (results["plans"], results["runs"], results["baseline"]) == ({}, [], None)
    assert len(results["failed"]) == 1


def test_a_model_without_text_is_refused_before_it_is_loaded():
    asked = {"model": {"model": "timm/vit_tiny_patch16_224"}, "category_name": "part", "pictures": []}
    outcome, (kind, message) = Jobs().answer("survey", asked)
    assert (outcome, kind) == ("failed", "SettingsError")
    assert "compare pictures with text, which timm/vit_tiny_patch16_224 has none of" in message
    assert "winspect profile --recipe memory" in message


def test_a_dead_process_answers_every_further_job_with_the_same_error():
    worker = Worker(fake_serve)
    try:
        for _ in range(2):
            with pytest.raises(WorkerError, match="exit code 7"):
                worker.ask("gemm_open", model={"broken": {"gemm_open": "exits"}})
    finally:
        worker.close()


def test_a_worker_answers_with_what_went_wrong():
    asked = {"model": {"model": "no-such"}, "category_name": "bolt", "pictures": []}
    outcome, (kind, message) = Jobs().answer("survey", asked)
    assert (outcome, kind) == ("failed", "ArchitectureError")
    assert "no-such" in message
    assert Jobs().answer("round", {})[0] == "failed"  # nothing is loaded


# The arithmetic


def measured(plan, engine, precision, rates, latencies=((1.0,),), scores=(0.5,), peaks=(100.0,)):
    described = {"engine": engine, "precision": precision, "device": "cpu", "recipe": PLANS[plan].recipe}
    described |= {"maps": PLANS[plan].maps, "batch_size": 4, "note": None}
    own = Measured(Combination(plan, "auto", precision), described)
    for number, rate in enumerate(rates):
        own.rounds.append(
            {
                "images_per_s": rate,
                "latency_ms": list(latencies[number % len(latencies)]),
                "scores": list(scores),
                "peak_rss_mb": peaks[number % len(peaks)],
            }
        )
    return own


SURVEY = Survey(
    model="m",
    weights=None,
    weights_sha256="0" * 64,
    device="cpu",
    tiles={"wide.png": 3, "square.png": 1},
    failed={},
    flops_per_tile={"image": 10**9, "windows": 25 * 10**9},
    layer={},
)
ASKED = {"class": "object", "rounds": 3, "warm_up": 1, "maps": False}
PRODUCTS = [
    {"engine": "torch", "precision": "fp32", "error": None, "gflops": [90.0, 100.0, 110.0]},
    {"engine": "openvino", "precision": "fp32", "error": None, "gflops": [190.0, 200.0, 900.0]},
    {"engine": "torch", "precision": "bf16", "error": "no bf16", "gflops": []},
]


def test_results_by_hand():
    serial = measured(
        "serial", "torch", "fp32", [1.0, 2.0, 4.0], [(10, 20), (30, 40), (50, 60)], peaks=[90, 120.0, 110]
    )
    batch = measured("tile-batch", "openvino", "fp32", [3.0, 4.0, 4.0], scores=[0.75])
    paper = measured("paper", "torch", "bf16", [0.5, 0.5, 0.5])
    found = make_results(SURVEY, [serial, batch, paper], [], PRODUCTS, asked=ASKED)
    runs = {run["plan"]: run for run in found["runs"]}
    assert [run["images_per_s"] for run in found["runs"]] == [2.0, 4.0, 0.5]
    assert runs["serial"]["latency_ms"] == {"p50": 30, "p95": 60, "p99": 60}
    assert runs["serial"]["peak_rss_mb"] == 120.0
    assert runs["serial"]["speedup_vs_serial"] == 1.0
    assert runs["tile-batch"]["speedup_vs_serial"] == 2.0  # 3, 2 and 1 times in the three rounds, not 4.0 / 2.0 by luck
    assert [(run["images"], run["tiles"]) for run in found["runs"]] == [(2, 4), (2, 4), (2, 2)]
    # Two tiles of 1 GFLOP a picture; 2 pictures/s of 2 GFLOP are 4 GFLOP/s, 2 % of OpenVINO's median of 200.
    assert [run["gflop_per_image"] for run in found["runs"]] == [2.0, 2.0, 25.0]
    assert found["gemm_gflops"] == {"fp32": 200.0, "bf16": None}
    assert found["roofline_fraction"] == {"serial": 0.02, "tile-batch": 0.04, "paper": None}
    assert [run["score_max_difference"] for run in found["runs"]] == [0.0, 0.25, None]


def test_speed_ups_are_ratios_of_the_same_round():
    # Medians alone would say 2.5 / 2: a machine that was slow in one round must not show.
    serial, batch = measured("serial", "torch", "fp32", [1, 2, 9]), measured("tile-batch", "torch", "fp32", [3, 2.5, 9])
    found = make_results(SURVEY, [serial, batch], [], [], asked=ASKED)
    assert [run["speedup_vs_serial"] for run in found["runs"]] == [1.0, 1.25]
    slow = measured("serial", "torch", "fp32", [4, 1, 1]), measured("tile-batch", "torch", "fp32", [8, 2, 9])
    assert make_results(SURVEY, slow, [], [], asked=ASKED)["runs"][1]["speedup_vs_serial"] == 2.0


def test_the_baseline_is_serial_in_torch_fp32_or_the_first_serial_or_unknown():
    batch, bf16 = measured("tile-batch", "torch", "fp32", [9]), measured("serial", "torch", "bf16", [2])
    openvino, torch = measured("serial", "openvino", "fp32", [4]), measured("serial", "torch", "fp32", [1])
    assert baseline_of([batch, bf16, openvino, torch]) is torch
    assert baseline_of([batch, bf16, openvino]) is bf16
    assert baseline_of([batch]) is None
    found = make_results(SURVEY, [batch], [], [], asked=ASKED)
    assert (found["baseline"], found["plans"]["tile-batch"]["speedup_vs_serial"]) == (None, None)


def test_a_plan_stands_for_its_fastest_run():
    slow, fast = measured("serial", "torch", "fp32", [1]), measured("serial", "openvino", "bf16", [3])
    found = make_results(SURVEY, [slow, fast], [], [], asked=ASKED)
    chosen = found["plans"]["serial"]
    assert (chosen["engine"], chosen["precision"], chosen["images_per_s"]) == ("openvino", "bf16", 3)
    assert chosen["asked"] == {"engine": "auto", "precision": "bf16"}
    assert found["baseline"] == {"plan": "serial", "engine": "torch", "precision": "fp32"}


def test_another_devices_rate_says_nothing():
    own = measured("serial", "openvino", "fp32", [1])
    own.described["device"] = "openvino:GPU"
    found = make_results(SURVEY, [own], [], PRODUCTS, asked=ASKED)
    assert found["roofline_fraction"] == {"serial": None}
    assert found["gemm_gflops"]["fp32"] == 200.0


def test_unknown_memory_stays_unknown():
    own = measured("serial", "torch", "fp32", [1], peaks=[None])
    assert make_results(SURVEY, [own], [], [], asked=ASKED)["plans"]["serial"]["peak_rss_mb"] is None


def test_percentiles_are_latencies_that_were_measured():
    own = measured("serial", "torch", "fp32", [1], [list(range(1, 101))])
    found = make_results(SURVEY, [own], [], [], asked=ASKED)["runs"][0]["latency_ms"]
    assert found == {"p50": 50, "p95": 95, "p99": 99}


def test_the_rate_of_a_precision_is_the_fastest_engines_median():
    assert gemm_rates(PRODUCTS) == {"fp32": 200.0, "bf16": None}
    assert gemm_rates([]) == {"fp32": None, "bf16": None}
    assert gemm_rates([{"precision": "int8", "gflops": [3.0, 1.0, 2.0]}])["int8"] == 2.0


def test_the_contract_of_the_file(measure, tmp_path):
    combinations = combine(PLANS, ["torch"], ["fp32"])
    results, _ = measure(combinations, rounds=2)
    files = write_benchmark(results, tmp_path / "out")
    assert [path.name for path in files] == ["benchmark.json", "benchmark.svg"]
    found = json.loads(files[0].read_text())
    assert found == results
    assert {"schema", "machine", "model", "recipe", "plans", "gemm_gflops", "roofline_fraction", "runs"} <= set(found)
    assert (found["schema"], found["recipe"], list(found["plans"])) == (1, "tiles", list(PLANS))
    keys = {"engine", "precision", "images", "tiles", "images_per_s", "latency_ms", "peak_rss_mb", "speedup_vs_serial"}
    for plan in found["plans"].values():
        assert keys <= set(plan)
        assert set(plan["latency_ms"]) == {"p50", "p95", "p99"}
    assert found["plans"]["prefetch"]["note"] == "the same as tile-batch"
    assert found["gemm_gflops"] == {"fp32": 100.0, "bf16": 200.0}
    assert [len(product["gflops"]) for product in found["gemm"]] == [6, 6]  # at least five over two rounds
    assert found["plans"]["paper"]["maps"] is True
    assert found["plans"]["serial"]["maps"] is False
    assert found["scenarios"] == {"images_per_s": "offline", "latency_ms": "single-stream"}


def test_the_bars_are_as_long_as_their_numbers(measure, tmp_path):
    results, _ = measure(combine(["serial", "paper"], ["torch", "openvino"], ["fp32"]), rounds=1)
    drawing = ET.fromstring(write_benchmark(results, tmp_path)[1].read_text())
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.attrib["width"]) for bar in drawing.iter(f"{space}rect") if bar.get("class") == "run"]
    rates = [run["images_per_s"] for run in results["runs"]]
    assert rates == [2.0, 4.0, 0.5, 1.0]
    assert bars == pytest.approx([rate / max(rates) * max(bars) for rate in rates], abs=0.1)
    words = " ".join(text.text for text in drawing.iter(f"{space}text"))
    assert "paper: recipe paper, full maps" in words
    assert "4  (2.00x)" in words


def test_the_chart_of_a_run_without_results(measure, tmp_path):
    results, _ = measure(combine(["serial"], ["onnx"], ["fp32"]), rounds=1, broken={"onnx": "refused"})
    assert "images/s" in write_benchmark(results, tmp_path)[1].read_text()


# Matrix products


@pytest.mark.parametrize("pair", list(gemm.BUILDERS))
def test_products_of_every_engine_are_right(pair):
    pytest.importorskip({"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}[pair[0]])
    if pair[0] == "onnx":
        pytest.importorskip("onnx")
    random = np.random.default_rng(1)
    tokens = random.normal(size=(6, 256)).astype(np.float32)
    weights = [random.normal(0, 0.02, size).astype(np.float32) for size in ((256, 1024), (1024, 256))]
    found = gemm.BUILDERS[pair](tokens, weights, "cpu")()
    found = found.float().numpy() if pair[0] == "torch" else np.asarray(found)
    expected = tokens @ weights[0] @ weights[1]
    tolerance = {"fp32": 1e-5, "bf16": 0.05, "fp16": 0.01, "int8": 0.1}[pair[1]]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_only_what_can_be_had_is_measured():
    layer = {"width": 8, "hidden": 16, "rows": [3, 5]}
    found = gemm.open_gemms(["torch"], ["fp32", "int8"], layer, device="cpu")
    sizes = {"engine": "torch", "precision": "fp32", "width": 8, "hidden": 16, "error": None}
    assert [product.names for product in found] == [{**sizes, "rows": 3}, {**sizes, "rows": 5}]
    assert all(rate > 0 for product in found for rate in product.rates(2))


def test_the_rate_by_hand():
    (product,) = gemm.open_gemms(["torch"], ["fp32"], {"width": 10, "hidden": 50, "rows": [1000]}, device="cpu")
    clock = iter([0.0, 0.004, 10.0, 10.002]).__next__
    # Four layers of 2 * 1000 * 10 * 50 = 1e6 operations, in 4 ms and in 2 ms.
    assert product.rates(2, clock=clock) == pytest.approx([1.0, 2.0])


def test_an_engine_that_cannot_is_told_and_left_out(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gemm.BUILDERS, ("torch", "bf16"), broken)
    (own,) = gemm.open_gemms(["torch"], ["bf16"], {"width": 8, "hidden": 8, "rows": [2]}, device="cpu")
    assert own.names["error"] == "RuntimeError: no such kernel"
    assert own.rates(2) == []
    assert "no matrix products with engine torch in bf16: no such kernel" in caplog.text


# Pictures, and a model that is really measured


def save(path: Path, size_wh) -> str:
    noise = np.random.default_rng(sum(size_wh)).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def test_tiles_are_counted_and_bad_pictures_named(tmp_path, small_model):
    square, wide = save(tmp_path / "square.png", (60, 60)), save(tmp_path / "wide.png", (150, 60))
    (tmp_path / "bad.png").write_text("no picture")
    bad = str(tmp_path / "bad.png")
    tiles, failed = count_tiles(small_model, [square, bad, wide])
    assert tiles == {square: 1, wide: 3}
    assert list(failed) == [bad]
    assert bad not in failed[bad]


def test_without_the_package_pictures_must_be_named(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'name files or folders of your own.*pip install .*\[demo\]"'):
        packaged_pictures()


@pytest.fixture
def load_small(small_checkpoint, tmp_path):
    """Loads a plan; gives the jobs, and what is said of them."""
    model = {"model": SMALL, "weights": str(small_checkpoint), "device": "cpu"}
    pictures = [save(tmp_path / f"{number}.png", size) for number, size in enumerate([(64, 64), (150, 60)])]
    options = {"engine": "torch", "precision": "fp32", "category_name": "bolt", "pictures": pictures, "warm_up": 0}

    def load(plan, *, maps=False):
        jobs = Jobs()
        return jobs, jobs.load(model, plan, **options, maps=maps)

    return load


@pytest.mark.parametrize("plan", list(PLANS))
def test_a_round_of_a_real_model(load_small, small_checkpoint, plan):
    jobs, described = load_small(plan)
    found = tuple(described[name] for name in ("engine", "precision", "device", "recipe"))
    assert found == ("torch", "fp32", "cpu", PLANS[plan].recipe)
    assert described["maps"] is (plan == "paper")
    assert (described["note"] is not None) is (plan == "prefetch")
    figures = jobs.round()
    assert figures["images_per_s"] > 0
    assert len(figures["latency_ms"]) == 2
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", recipe=PLANS[plan].recipe, engine="torch")
    expected = [result.anomaly_score for result in model.predict_many(jobs.pictures, "bolt")]
    assert figures["scores"] == pytest.approx(expected, abs=1e-5)


def test_maps_can_be_asked_for(load_small):
    made = []
    jobs, _ = load_small("serial", maps=True)
    model = jobs.model

    class Watched:
        def predict_many(self, *arguments, **options):
            made.append(options["maps"])
            return model.predict_many(*arguments, **options)

    jobs.model = Watched()
    jobs.round()
    assert made == [True] * 3  # all pictures at once, then each of the two


def test_a_picture_that_goes_missing_is_an_error(load_small):
    jobs, _ = load_small("serial")
    Path(jobs.pictures[0]).unlink()
    with pytest.raises(OSError, match=r"0\.png"):
        jobs.round()


# benchmarks/plans.py


def test_the_bars_of_the_plans():
    runs = [
        measured("serial", "torch", "fp32", [1]),
        measured("tile-batch", "openvino", "fp32", [2.4]),
        measured("tile-batch", "openvino", "bf16", [4.9]),
        measured("serial", "openvino", "bf16", [3]),
        measured("paper", "openvino", "bf16", [9]),
    ]
    bars = plans_benchmark.reached_bars(make_results(SURVEY, runs, [], [], asked=ASKED))
    assert {name: (own["plan"], own["engine"], own["reached"]) for name, own in bars.items()} == {
        "fp32": ("tile-batch", "openvino", True),
        "bf16": ("tile-batch", "openvino", False),
    }
    assert bars["bf16"]["speedup_vs_serial"] == 4.9
    assert plans_benchmark.reached_bars(make_results(SURVEY, runs[1:], [], [], asked=ASKED)) == {}
    assert list(plans_benchmark.reached_bars(make_results(SURVEY, runs[:1], [], [], asked=ASKED))) == ["fp32"]


def test_the_command_of_the_plans_names_no_folder(tmp_path):
    args = plans_benchmark.read_arguments(["--rounds", "2", "--pictures", str(tmp_path), "--maps"])
    assert args.command.startswith("python -m benchmarks.plans --plans serial,tile-batch --engines torch,openvino")
    assert args.command.endswith("--rounds 2 --device cpu --maps")
