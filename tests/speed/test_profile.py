"""Profiles: times from three engines' profilers, classes, limits by hand, and the results of a small model."""

from __future__ import annotations

import functools
import itertools
import json
import xml.etree.ElementTree as ET
from datetime import timedelta
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest
import timm_models
import torch
from checkpoints import SMALL, build
from PIL import Image

from winspect import WinCLIP
from winspect.backbones.embeddings import Needs
from winspect.backbones.image_tower import ImageTower
from winspect.engines import timing
from winspect.engines.timing import OperatorTime, onnxruntime_times, openvino_fused, openvino_times, torch_times
from winspect.engines.tower_graph import Layout
from winspect.errors import EngineError, OutputError, PictureError, SettingsError, SourceError
from winspect.speed import charts
from winspect.speed import profile as profiling
from winspect.speed.charts import write_profile
from winspect.speed.flops import ATTENTION, CLASSES, LAYER_NORM, LINEAR, OTHER, TowerShape, Work, image_tower_flops
from winspect.speed.operators import class_seconds, operator_class
from winspect.speed.profile import collect, profile
from winspect.speed.roofline import Limits, class_figures, last_cache_bytes, measure_bandwidth

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_arrays(monkeypatch):
    """Bandwidth is measured on little memory: quick, and not what is tested."""
    monkeypatch.setattr(profiling, "measure_bandwidth", functools.partial(measure_bandwidth, array_bytes=1 << 20))


@pytest.fixture(scope="module")
def tower():
    return ImageTower(build(SMALL).visual).eval()


@pytest.fixture(scope="module")
def torch_model(small_checkpoint):
    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="torch", precision="fp32")


@pytest.fixture
def pictures(tmp_path):
    """A square one and one twice as long as high: two tiles, three with the overlap."""
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(((70, 70), (140, 70))):
        paths.append(tmp_path / f"part{number}.png")
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return paths


# Times from the engines' profilers


def test_torch_says_how_long_each_operator_took(tower):
    pixels = torch.zeros(1, 3, 64, 64)

    def run():
        with torch.inference_mode():
            tower(pixels, Needs((2, 3)))

    began = perf_counter()
    times = {own.name: own.seconds for own in torch_times(run, CPU)}
    # Own times do not overlap: together they are no more than what passed.
    assert 0 < sum(times.values()) < perf_counter() - began
    assert {"aten::addmm", "aten::native_layer_norm", "aten::gelu"} <= set(times)
    assert min(times.values()) > 0


def test_torchs_profiler_writes_nothing_of_its_own(tower, capfd):
    torch_times(lambda: torch.ones(2) + 1, CPU)
    assert capfd.readouterr() == ("", "")


def test_on_ascend_operators_are_waited_for_one_by_one(monkeypatch):
    waits, clock = [], itertools.count()
    monkeypatch.setattr(timing, "synchronize", waits.append)
    monkeypatch.setattr(timing, "perf_counter", lambda: float(next(clock)))
    device = torch.device("privateuseone")
    a = torch.ones(2, 2)
    times = torch_times(lambda: torch.relu(torch.mm(a, a)) + torch.relu(a), device)
    by_name = {own.name: own.seconds for own in times}
    # The clock moves on by a second each time it is read: before and after each operator.
    assert by_name == {"aten::mm": 1.0, "aten::relu": 2.0, "aten::add": 1.0}
    assert waits == [device] * 8


def node(name, kind, milliseconds):
    return SimpleNamespace(node_name=name, node_type=kind, real_time=timedelta(milliseconds=milliseconds))


def test_openvinos_means_become_the_times_of_the_last_passes():
    earlier = [node("a", "MVN", 10), node("b", "Gather", 4)]
    now = [node("a", "MVN", 4), node("b", "Gather", 4), node("c", "Constant", 0)]
    # Four passes of which the first took 10 ms: 16 ms together, so the last three took 6.
    times = openvino_times(now, {"a": ("x", "y")}, passes=3, earlier=earlier, earlier_passes=1)
    assert [(own.name, own.kind, own.fused) for own in times] == [("a", "MVN", ("x", "y")), ("b", "Gather", ())]
    assert [own.seconds for own in times] == pytest.approx([0.006, 0.012])
    assert [own.seconds for own in openvino_times(now, passes=2)] == pytest.approx([0.008, 0.008])


def test_an_openvino_model_without_counters_is_named():
    with pytest.raises(EngineError, match="PERF_COUNT"):
        openvino_times([node("a", "MVN", 0)])


def test_openvinos_operators_of_a_real_tower(tower):
    pytest.importorskip("openvino")
    from winspect.engines.compiled import openvino_core
    from winspect.engines.openvino_operators import openvino_model

    # OpenVINO counts whole microseconds: a batch large enough that no operator takes none.
    model = openvino_model(tower, Layout(tower.grid_hw, (2, 3), 1, patches=False, batch=64))
    compiled = openvino_core().compile_model(model, "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    for _ in range(3):
        request.infer({0: np.ones((64 * 17, 64), np.float32)})
    times = openvino_times(request.profiling_info, openvino_fused(compiled), passes=3)
    of_class = {name: [own for own in times if operator_class(own) == name] for name in CLASSES}
    # Three blocks: four products each, five in the last (queries apart), and the projection of the embeddings.
    products = [own for own in of_class[LINEAR] if own.kind == "FullyConnected"]
    assert len(products) == len(of_class[LINEAR]) == 4 + 4 + 5 + 1
    # An MVN for ln_1 and ln_2 of each block and for ln_post; each with weights and biases, where not merged.
    assert len([own for own in of_class[LAYER_NORM] if own.kind == "MVN"]) == 7
    # Three lengths of sequences in each of three blocks.
    assert len(of_class[ATTENTION]) >= 9


def event(name, ts, dur, kind=None):
    category, args = ("Session", {}) if kind is None else ("Node", {"op_name": kind})
    return {"cat": category, "name": name, "ts": ts, "dur": dur, "args": args}


@pytest.fixture
def onnx_file(tmp_path):
    path = tmp_path / "profile.json"
    events = [event("session_initialization", 0, 50)]
    for start, slow in ((100, 40), (200, 10), (300, 20)):
        events += [
            event("a_kernel_time", start, slow, "MatMul"),
            event("a_fence_after", start + slow, 1, "MatMul"),
            event("b_kernel_time", start + slow + 1, 3, "Gelu"),
            event("model_run", start, slow + 5),
        ]
    path.write_text(json.dumps(events))
    return path


def test_onnx_runtimes_profile_by_hand(onnx_file):
    def microseconds(**options):
        return {(own.name, own.kind): own.seconds * 1e6 for own in onnxruntime_times(onnx_file, **options)}

    assert microseconds() == pytest.approx({("a", "MatMul"): 70, ("b", "Gelu"): 9})
    assert microseconds(warm_up=1) == pytest.approx({("a", "MatMul"): 30, ("b", "Gelu"): 6})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a whole profile"),
        ("{}", "no operator"),
        ('[{"cat": "Node"}]', "not a whole profile"),
        ("[3]", "not a whole profile"),
        ("[]", "no operator"),
    ],
)
def test_a_profile_that_is_none(tmp_path, text, said):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(EngineError, match=said):
        onnxruntime_times(path)
    with pytest.raises(EngineError, match=r"profile\.jsonx"):
        onnxruntime_times(f"{path}x")


def test_more_warm_up_than_runs_is_named(onnx_file):
    with pytest.raises(EngineError, match="not a whole profile"):
        onnxruntime_times(onnx_file, warm_up=4)


# Classes


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        # torch
        ("aten::addmm", None, LINEAR),
        ("aten::mm", None, LINEAR),
        ("aten::linear", None, LINEAR),
        ("aten::_addmm_activation", None, LINEAR),
        ("mkldnn::_linear_pointwise", None, LINEAR),
        ("aten::mkldnn_linear", None, LINEAR),
        ("aten::mkldnn_convolution", None, LINEAR),
        ("aten::scaled_dot_product_attention", None, ATTENTION),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", None, ATTENTION),
        ("aten::_flash_attention_forward", None, ATTENTION),
        ("npu::npu_fusion_attention", None, ATTENTION),
        ("aten::_softmax", None, ATTENTION),
        ("aten::bmm", None, ATTENTION),
        ("aten::native_layer_norm", None, LAYER_NORM),
        ("npu::npu_linear", None, LINEAR),
        ("aten::gelu", None, OTHER),
        ("aten::add", None, OTHER),
        ("aten::copy_", None, OTHER),
        ("aten::index", None, OTHER),
        ("aten::resolve_conj", None, OTHER),
        ("aten::upsample_bilinear2d", None, OTHER),
        # OpenVINO
        ("block3/mlp/c_fc/bias", "FullyConnected", LINEAR),
        ("Add_22", "FullyConnected", LINEAR),
        ("MatMul_4877", "MatMul", ATTENTION),
        ("block3/attention/joined9", "Subgraph", ATTENTION),
        ("ScaledDotProductAttention_73", "Subgraph", ATTENTION),
        ("block3/out_proj/joined", "Subgraph", OTHER),
        ("block3/ln_1/mvn", "MVN", LAYER_NORM),
        ("block3/ln_1/scaled", "MulAdd", LAYER_NORM),
        ("MVN_10", "MVN", LAYER_NORM),
        ("Multiply_13", "MulAdd", OTHER),
        ("block3/attention/heads", "Transpose", OTHER),
        ("block0/gather/rows", "Gather", OTHER),
        ("block3/mlp/gelu/gelu", "Gelu", OTHER),
        # ONNX Runtime
        ("block0/in_proj/matmul_7/MatMulAddFusion", "Gemm", LINEAR),
        ("block0/mlp/c_fc/add_9", "Add", OTHER),
        ("block0/attention/matmul_12", "MatMul", ATTENTION),
        ("block0/attention/out_proj/matmul_12", "MatMul", LINEAR),
        ("block0/attention/softmax_13", "Softmax", ATTENTION),
        ("", "SkipLayerNormalization", LAYER_NORM),
        ("", "MultiHeadAttention", ATTENTION),
        ("", "FusedMatMul", LINEAR),
        ("", "MatMulIntegerToFloat", LINEAR),
        ("", "DynamicQuantizeLinear", OTHER),
        ("", "Convert", OTHER),
        ("", "BiasGelu", OTHER),
        # nothing that is known
        ("flux_capacitor", "Flux", OTHER),
        ("", "", OTHER),
    ],
)
def test_operators_by_hand(name, kind, expected):
    assert operator_class(OperatorTime(name, name if kind is None else kind, 1.0)) == expected


def test_what_was_merged_counts_where_the_name_says_nothing():
    assert (
        operator_class(OperatorTime("Transpose_74", "Subgraph", 1.0, ("Softmax_1", "block0/attention/x"))) == ATTENTION
    )
    assert operator_class(OperatorTime("Multiply_13", "MulAdd", 1.0, ("Multiply_13", "block0/ln_2/bias"))) == LAYER_NORM


def test_class_seconds_by_hand():
    times = [OperatorTime("aten::mm", "aten::mm", 3.0), OperatorTime("Flux", "Flux", 1.0)] * 2
    assert class_seconds(times) == {LINEAR: 6.0, ATTENTION: 0.0, LAYER_NORM: 0.0, OTHER: 2.0}


# Limits


def figures_of(work, seconds=1.0, limits=None, precision="fp32", tiles=1.0, per_pass=1.0, name=LINEAR):
    limits = limits or Limits(gemm_gflops=100.0, memory_gbyte_s=10.0)
    found = class_figures(
        {name: seconds}, {name: work}, limits, precision=precision, tiles_per_picture=tiles, tiles_per_pass=per_pass
    )
    return found[name]


def test_a_class_by_hand():
    # Two tiles of 25 GFLOP; each reads and writes 4 bytes x (50 + 200 / 4) million numbers: 0.4 GB.
    work = Work(flops=25_000_000_000, values=50_000_000, weights=200_000_000)
    own = figures_of(work, seconds=2.0, tiles=2.0, per_pass=4.0)
    assert (own["ms"], own["share"]) == (2000, 1)
    assert (own["gflop"], own["gbyte"]) == pytest.approx((50, 0.8))
    assert (own["gflop_s"], own["gbyte_s"]) == pytest.approx((25, 0.4))
    # 50 GFLOP at 100 GFLOP/s take half a second; 0.8 GB at 10 GB/s take 0.08.
    assert (own["limit_ms"], own["bound"]) == (pytest.approx(500), "compute")


@pytest.mark.parametrize(("flops_per_byte", "bound"), [(9.9, "memory"), (10.1, "compute")])
def test_the_machines_balance_decides_what_binds(flops_per_byte, bound):
    # 100 GFLOP/s and 10 GB/s: ten operations for each byte.
    own = figures_of(Work(flops=round(4_000_000 * flops_per_byte), values=1_000_000))
    assert own["bound"] == bound
    assert own["limit_ms"] == pytest.approx(max(0.4, 0.04 * flops_per_byte))


def test_numbers_of_half_the_size_move_half_the_bytes():
    work = Work(flops=1, values=1_000_000_000)
    assert [figures_of(work, precision=name)["gbyte"] for name in ("fp32", "bf16", "fp16", "int8")] == [4, 2, 2, 1]
    # In int8 products alone are in int8.
    assert figures_of(work, precision="int8", name=LAYER_NORM)["gbyte"] == 4


@pytest.mark.parametrize("limits", [Limits(None, 10.0), Limits(100.0, None), Limits(None, None)])
def test_without_a_rate_nothing_is_said_to_bind(limits):
    own = figures_of(Work(flops=10, values=10), limits=limits)
    assert (own["limit_ms"], own["bound"]) == (None, None)
    assert own["gflop_s"] is not None


def test_a_class_without_time_has_no_rate():
    figures = class_figures(
        {LINEAR: 1.0, OTHER: 0.0},
        {LINEAR: Work(1, 1), OTHER: Work(1, 1)},
        Limits(1.0, 1.0),
        precision="fp32",
        tiles_per_picture=1,
        tiles_per_pass=1,
    )
    assert (figures[OTHER]["gflop_s"], figures[OTHER]["gbyte_s"], figures[OTHER]["share"]) == (None, None, 0.0)


def test_shares_sum_to_1():
    seconds = {LINEAR: 3.0, ATTENTION: 0.5, LAYER_NORM: 0.1, OTHER: 0.4}
    work = dict.fromkeys(CLASSES, Work(1, 1))
    figures = class_figures(seconds, work, Limits(1.0, 1.0), precision="fp32", tiles_per_picture=1, tiles_per_pass=1)
    assert [own["share"] for own in figures.values()] == pytest.approx([0.75, 0.125, 0.025, 0.1])
    assert sum(own["share"] for own in figures.values()) == pytest.approx(1, abs=1e-12)


def test_bandwidth_counts_three_arrays_and_takes_the_best():
    # Read before and after each of three passes: 4 s, 2 s, 1 s.
    clock = iter([0.0, 4.0, 10.0, 12.0, 20.0, 21.0]).__next__
    assert measure_bandwidth(CPU, repetitions=2, array_bytes=4000, clock=clock) == pytest.approx(3 * 4000 / 1e9)


def test_the_last_cache_is_the_largest(tmp_path):
    for index, size in enumerate(("48K", "1024K", "65536K", "odd")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 64 << 20
    assert last_cache_bytes(tmp_path / "none") == 0


# Collecting


class Recorded:
    """Stands in for an engine: gives these times, run by run, and counts."""

    name, precision, batch_size, device = "stand-in", "fp32", 4, CPU

    def __init__(self, engine, runs):
        self.engine, self.runs, self.calls = engine, runs, []
        self.tower = engine.tower

    def encode(self, tiles, needs):
        self.calls.append(("encode", len(tiles)))
        return self.engine.encode(tiles, needs)

    def tiles_per_pass(self, needs):
        return 3

    def timings(self, tiles, needs):
        self.calls.append(("timings", len(tiles)))
        return self.runs.pop(0)


class Other:
    """A model with another engine."""

    def __init__(self, model, engine):
        self.model, self.engine = model, engine

    def __getattr__(self, name):
        return getattr(self.model, name)


def test_medians_per_picture_by_hand(torch_model, pictures):
    def run(product, norm):
        return [OperatorTime("a", "MatMul", product), OperatorTime("a", "MatMul", product), *norm]

    norm = [OperatorTime("n", "MVN", 9.0)]
    engine = Recorded(torch_model.engine, [run(1.0, []), run(5.0, norm), run(2.0, norm)])
    measured = collect(Other(torch_model, engine), [*pictures, pictures[0], pictures[0]], repeat=3)
    # Two products of one name per run: 2, 10 and 4 s; the norm 0, 9 and 9 s; four pictures.
    assert measured.operators == (OperatorTime("n", "MVN", 9 / 4), OperatorTime("a", "MatMul", 4 / 4))
    assert (measured.pictures, measured.tiles, measured.tiles_per_pass) == (4, 4, 2.0)
    assert engine.calls == [("encode", 4)] * 4 + [("timings", 4)] * 3
    assert list(measured.stages) == ["decode", "resize", "tower", "scoring"]
    assert min(measured.stages.values()) > 0


def test_an_engine_that_cannot_say_is_named(torch_model, pictures):
    model = Other(torch_model, SimpleNamespace(name="abacus"))
    with pytest.raises(EngineError, match="engine abacus cannot say how long its operators take"):
        collect(model, pictures)


def test_an_engine_that_has_timed_nothing_is_named(torch_model, pictures):
    with pytest.raises(EngineError, match="engine stand-in has timed no operator"):
        collect(Other(torch_model, Recorded(torch_model.engine, [[]])), pictures, repeat=1)


@pytest.mark.parametrize("repeat", [0, -1, 1.5, True, "3"])
def test_a_bad_repeat_is_refused(torch_model, pictures, repeat):
    with pytest.raises(SettingsError, match="repeat: got"):
        collect(torch_model, pictures, repeat=repeat)


def test_no_pictures_and_bad_pictures_are_refused(torch_model, tmp_path):
    with pytest.raises(SourceError, match="no pictures"):
        collect(torch_model, [])
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"bad\.png"):
        collect(torch_model, [tmp_path / "bad.png"])


# Results


@pytest.fixture(scope="module", params=["torch", "openvino", "onnx"])
def any_model(request, small_checkpoint):
    needs = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
    pytest.importorskip(needs[request.param])
    return WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine=request.param, precision="fp32")


def test_the_contract(any_model, pictures):
    found = profile(any_model, pictures, repeat=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["schema"], found["model"], found["recipe"]) == (1, SMALL, "paper")
    assert (found["engine"], found["precision"]) == (any_model.engine.name, "fp32")
    assert (found["pictures"], found["tiles"]) == (2, 2)
    assert list(found["classes"]) == list(CLASSES)
    assert sum(own["share"] for own in found["classes"].values()) == pytest.approx(1)
    assert sum(own["ms"] for own in found["classes"].values()) == pytest.approx(found["operators_ms"], rel=1e-3)
    assert sum(found["rest"].values()) + found["tower_ms"] == pytest.approx(found["picture_ms"], rel=1e-3)
    work = image_tower_flops(TowerShape.of(any_model.engine.tower), Needs((2, 3)))
    for name, own in found["classes"].items():
        assert own["ms"] > 0
        assert own["gflop"] == pytest.approx(work[name].flops / 1e9, rel=1e-3)
        assert own["gflop_s"] == pytest.approx(own["gflop"] / own["ms"] * 1e3, rel=1e-3)
        assert own["bound"] in ("compute", "memory")
    assert 0 < len(found["operators"]) <= 20
    slowest = [own["ms"] for own in found["operators"]]
    assert slowest == sorted(slowest, reverse=True)
    assert min(found["gemm_gflops"], found["memory_gbyte_s"]) > 0
    assert sum(found["reported"]["shares"].values()) == pytest.approx(1)
    assert "not measured here" in found["reported"]["title"]


def test_a_picture_of_several_tiles_costs_as_many(small_checkpoint, pictures):
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="torch", precision="fp32", recipe="tiles")
    found = profile(model, pictures[1:], repeat=1)
    work = image_tower_flops(TowerShape.of(model.engine.tower), Needs((2, 3)))
    assert found["tiles"] == 3
    assert found["classes"][LINEAR]["gflop"] == pytest.approx(3 * work[LINEAR].flops / 1e9, rel=1e-3)


def test_operators_of_all_blocks_are_taken_together():
    times = [OperatorTime(f"block{n}/ln_1/mvn_{7 * n}", "MVN", 1.0 + n) for n in range(12)]
    times += [OperatorTime("block3/mlp/c_fc/matmul_5/MatMulAddFusion", "Gemm", 2.0)]
    times += [OperatorTime(f"Transpose_{n}", "Transpose", 0.25) for n in range(4)]
    assert profiling.slowest_operators(times) == [
        {"name": "block*/ln_1/mvn", "kind": "MVN", "class": LAYER_NORM, "ms": 78_000},
        {"name": "block*/mlp/c_fc/matmul/MatMulAddFusion", "kind": "Gemm", "class": LINEAR, "ms": 2000},
        {"name": "Transpose", "kind": "Transpose", "class": OTHER, "ms": 1000},
    ]
    many = [OperatorTime("", f"Kind{number}", 1.0) for number in range(30)]
    assert len(profiling.slowest_operators(many)) == profiling.OPERATORS_KEPT == 20


def test_on_another_device_of_openvinos_no_limit_is_claimed(torch_model, pictures):
    engine = Recorded(torch_model.engine, [[OperatorTime("a", "MatMul", 1.0)]])
    engine.openvino_device = "GPU"
    found = profile(Other(torch_model, engine), pictures, repeat=1)
    assert (found["gemm_gflops"], found["memory_gbyte_s"]) == (None, None)
    assert {own["bound"] for own in found["classes"].values()} == {None}


# The picture


def results_by_hand(**changes):
    classes = {
        LINEAR: {"ms": 80.0, "share": 0.8, "gflop": 8.0, "gbyte": 0.1, "gflop_s": 100.0, "gbyte_s": 1.25},
        ATTENTION: {"ms": 10.0, "share": 0.1, "gflop": 0.1, "gbyte": 0.02, "gflop_s": 10.0, "gbyte_s": 2.0},
        LAYER_NORM: {"ms": 2.5, "share": 0.025, "gflop": 0.1, "gbyte": 0.02, "gflop_s": 40.0, "gbyte_s": 8.0},
        OTHER: {"ms": 7.5, "share": 0.075, "gflop": 0.1, "gbyte": 0.02, "gflop_s": 13.0, "gbyte_s": 2.7},
    }
    limits = {
        LINEAR: (60.0, "compute"),
        ATTENTION: (2.0, "memory"),
        LAYER_NORM: (5.0, "memory"),
        OTHER: (2.0, "memory"),
    }
    for name, (limit_ms, bound) in limits.items():
        classes[name] |= {"limit_ms": limit_ms, "bound": bound}
    return {
        "schema": 1,
        "model": "<ViT>",
        "engine": "torch",
        "precision": "fp32",
        "recipe": "paper",
        "machine": {"accelerator": None, "cpu": "Example 9000", "processor": "x86_64", "cores": 2},
        "picture_ms": 104.0,
        "tower_ms": 101.0,
        "rest": {"decode": 1.0, "resize": 1.5, "scoring": 0.5},
        "classes": classes,
        "reported": {"title": "another machine, not measured here", "shares": dict(profiling.REPORTED_SHARES)},
        **changes,
    }


SVG = "{http://www.w3.org/2000/svg}"


def shapes(svg, tag, kind):
    found = ET.fromstring(svg).findall(f"{SVG}{tag}[@class='{kind}']")
    return [{name: float(value) for name, value in own.attrib.items() if name in ("x", "width", "x1")} for own in found]


def words(svg):
    return " | ".join(text.text for text in ET.fromstring(svg).findall(f"{SVG}text"))


def test_bars_are_as_long_as_their_times():
    svg = charts.profile_chart(results_by_hand())
    length = charts.RIGHT - charts.LEFT
    for name, milliseconds in ((LINEAR, 80), (ATTENTION, 10), (LAYER_NORM, 2.5), (OTHER, 7.5)):
        (bar,) = shapes(svg, "rect", name)
        assert bar["x"] == charts.LEFT
        assert bar["width"] == pytest.approx(length * milliseconds / 80, abs=0.06)
    marks = [mark["x1"] for mark in shapes(svg, "line", "limit")[::2]]
    assert marks == pytest.approx([charts.LEFT + length * limit / 80 for limit in (60, 2, 5, 2)], abs=0.06)


def test_shares_stand_above_the_reported_ones():
    svg = charts.profile_chart(results_by_hand())
    bars = shapes(svg, "rect", "share")
    length = charts.RIGHT - charts.LEFT
    assert [bar["width"] for bar in bars] == pytest.approx(
        [length * share for share in (0.8, 0.1, 0.025, 0.075, 0.412, 0.151, 0.105, 0.332)], abs=0.11
    )
    assert bars[3]["x"] + bars[3]["width"] == pytest.approx(charts.RIGHT, abs=0.11)
    text = words(svg)
    assert "80.0 %" in text
    assert "2.5 %" not in text  # no room
    assert "shares reported for another machine, not measured here" in text


def test_what_binds_is_said_in_words():
    text = words(charts.profile_chart(results_by_hand()))
    assert "8 GFLOP, 0.1 GB; 100 GFLOP/s, 1.25 GB/s; bound by compute, at 75 % of that limit" in text
    assert "bound by memory, at 200 % of that limit" in text
    assert "torch fp32, recipe paper, Example 9000, 2 cores: 104 ms a picture, 3 ms of them outside the tower" in text


def test_without_limits_there_are_no_marks():
    found = results_by_hand()
    for own in found["classes"].values():
        own |= {"limit_ms": None, "bound": None}
    found["classes"][OTHER] |= {"ms": 0.0, "gflop_s": None, "gbyte_s": None}
    svg = charts.profile_chart(found)
    assert shapes(svg, "line", "limit") == []
    assert "bound" not in words(svg)
    assert "no time was measured" in words(svg)


def test_names_are_escaped():
    svg = charts.profile_chart(results_by_hand())
    assert "<ViT>" not in svg
    assert "<ViT>: where the image tower's time goes" in words(svg)


def test_files_are_written_whole(tmp_path):
    found = results_by_hand()
    paths = write_profile(found, tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["profile.json", "profile.svg"]
    assert json.loads(paths[0].read_text("utf-8")) == found
    assert paths[1].read_text("utf-8") == str(charts.profile_chart(found))
    assert len(list(paths[0].parent.iterdir())) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        write_profile(found, tmp_path / "file")


# Recipes beside WinCLIP's, and timm


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_a_timm_model_on_pictures_of_one_shape(tmp_path, engine):
    timm_models.save_folder(*timm_models.KINDS["registers"], tmp_path / "model")
    model = WinCLIP(
        f"local-dir:{tmp_path / 'model'}",
        recipe="memory",
        settings={"size": 98},
        device="cpu",
        engine=engine,
        precision="fp32",
    )
    pictures = [np.random.default_rng(seed).integers(0, 255, (98, 150, 3), dtype=np.uint8) for seed in range(2)]
    results = profile(model, pictures, repeat=1)
    assert sum(figures["share"] for figures in results["classes"].values()) == pytest.approx(1)
    assert all(results["classes"][name]["ms"] > 0 for name in CLASSES)
    tokens = 1 + 4 + 7 * 10
    attention = 3 * 4 * tokens**2 * 96
    assert results["classes"][ATTENTION]["gflop"] == pytest.approx(attention / 1e9, rel=1e-4)
    with pytest.raises(SourceError, match="recipe memory sees these pictures at several sizes"):
        profile(model, [pictures[0], pictures[1][:, :98]], repeat=1)


@pytest.mark.parametrize("recipe", ["subspace", "mutual", "paper+memory"])
def test_recipes_that_need_more_than_a_picture(small_checkpoint, recipe):
    size = {} if recipe == "paper+memory" else {"size": 64}
    model = WinCLIP(SMALL, weights=small_checkpoint, device="cpu", engine="torch", recipe=recipe, settings=size)
    pictures = [np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8) for seed in range(4)]
    results = profile(model, pictures, repeat=1)
    assert (results["recipe"], results["rest"]["scoring"] > 0) == (recipe, True)
    if recipe == "mutual":
        with pytest.raises(SourceError, match="got 3, need at least 4"):
            profile(model, pictures[:3], repeat=1)
