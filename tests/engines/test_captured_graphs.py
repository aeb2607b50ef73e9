"""Graphs for fixed batch sizes, on a stand-in that captures and replays as an accelerator does.

The stand-in records every operator of a capture with the memory it read and wrote, and a replay runs those operators
again on that very memory: values that a pass took from the host stay as they were, and an input that was not copied
into the graph's own has no effect.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from checkpoints import SMALL, build
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engines.towers import needs
from winspect.backbones.embeddings import Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.engines.accelerators.ascend import WeightPrefetch
from winspect.engines.accelerators.captured_graphs import BUCKETS, CapturedGraphs, bucket_of, check_buckets, fill_up
from winspect.errors import EngineError, SettingsError

NPU = SimpleNamespace(type="npu", index=0)
RELEASES = json.loads((Path(__file__).parents[1] / "fixtures/torch_npu_signature.json").read_text())["releases"]


class Graph(TorchDispatchMode):
    """Operators with their arguments and results; a replay writes the results anew, where they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list = []
        self.replays = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        self.steps.append((function, args, kwargs or {}, results))
        return results

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, results in self.steps:
            read = {storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and storage(old) not in read:  # not a view of what it read
                    old.copy_(new)


def storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Runtime:
    """``torch.npu`` as far as graphs know it; a stream is its name."""

    def __init__(self, capture_signatures, error: Exception | None = None) -> None:
        self.graphs: list[Graph] = []
        self.events: list[str] = []
        self.current = "main"
        self.error = error
        self.signatures = capture_signatures

    def NPUGraph(self) -> Graph:  # noqa: N802  (torch_npu's name)
        return Graph()

    def Stream(self, device) -> SimpleNamespace:  # noqa: N802
        return self.named("side")

    def current_stream(self, device) -> SimpleNamespace:
        return self.named(self.current)

    def named(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.events.append(f"{name} waits for {other.name}")
        )

    @contextlib.contextmanager
    def stream(self, chosen):
        before, self.current = self.current, chosen.name
        yield
        self.current = before

    @contextlib.contextmanager
    def device(self, device):
        assert device is NPU
        yield

    def graph_pool_handle(self) -> str:
        self.events.append("pool")
        return "the pool"

    @contextlib.contextmanager
    def graph(self, *args, **kwargs):
        for signature in self.signatures:
            given = signature.bind(*args, **kwargs).arguments
            assert given["pool"] == "the pool"
            assert given["capture_error_mode"] in ("global", "thread_local", "relaxed")
        self.events.append(f"capture from {self.current}")
        with args[0]:
            yield
            if self.error is not None:
                raise self.error
        self.graphs.append(args[0])


def signature_of(text: str) -> inspect.Signature:
    """The signature that a line such as ``graph(npu_graph, pool=None)`` declares."""
    scope: dict = {}
    exec(f"def {text}: ...", scope)
    return inspect.signature(scope["graph"])


@pytest.fixture
def runtime(monkeypatch) -> Runtime:
    """``torch.npu``, with the real torch_npu's ``graph``."""
    runtime = Runtime([signature_of(release["graphs"]["capture"]) for release in RELEASES])
    monkeypatch.setattr(torch, "npu", runtime, raising=False)
    return runtime


@pytest.fixture(scope="module")
def tower():
    return ImageTower(build(SMALL).visual).eval()


def tiles(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def eager(tower, pixels, options) -> Embeddings:
    with torch.inference_mode():
        return tower(pixels, options)


def assert_same(ours: Embeddings, plain: Embeddings) -> None:
    assert set(ours.windows) == set(plain.windows)
    assert set(ours.patches) == set(plain.patches)
    pairs = [(ours.image, plain.image), *((ours.windows[scale], plain.windows[scale]) for scale in plain.windows)]
    for one, other in [*pairs, *((ours.patches[layer], plain.patches[layer]) for layer in plain.patches)]:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # a batch of another size may round otherwise


# Buckets


@pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (17, 32), (32, 32)])
def test_the_next_bucket(count, bucket):
    assert bucket_of(count, BUCKETS) == bucket


@pytest.mark.parametrize("count", [0, -1, 33])
def test_batches_without_a_bucket(count):
    with pytest.raises(SettingsError, match=f"got a batch of {count} tiles, need 1 to 32, the largest bucket"):
        bucket_of(count, BUCKETS)


def test_buckets_are_sorted_and_each_counts_once():
    assert check_buckets([8, 1, 8, 2]) == (1, 2, 8)
    assert check_buckets(BUCKETS) == BUCKETS


@pytest.mark.parametrize("buckets", [(), [0], [1, -2], [1.0], ["4"], [True]])
def test_bad_buckets(buckets, runtime, tower):
    with pytest.raises(SettingsError, match=r"buckets: got .* need at least one batch size, whole numbers from 1"):
        check_buckets(buckets)
    with pytest.raises(SettingsError, match="buckets"):
        CapturedGraphs(tower, NPU, buckets=buckets)


def test_filling_up_keeps_the_tiles_in_front():
    pixels = tiles(3)
    filled = fill_up(pixels, 4)
    assert filled.shape == (4, 3, 64, 64)
    assert torch.equal(filled[:3], pixels)
    assert not filled[3].any()
    assert storage(fill_up(pixels, 3)) != storage(pixels)


# Graphs


def test_captured_graphs_give_what_the_tower_gives(runtime, tower):
    """Each batch size, new pixels each time: the second round replays what the first one captured."""
    graphs = CapturedGraphs(tower, NPU, buckets=(1, 2, 4))
    for seed, count in enumerate([1, 2, 3, 4, 3, 1, 2]):
        pixels = tiles(count, seed)
        options = needs((2, 3), 1, True)
        assert_same(graphs(pixels, options), eager(tower, pixels, options))
    assert [graph.replays for graph in runtime.graphs] == [2, 2, 3]
    assert graphs.failure is None


def test_a_graph_for_each_kind_of_pass(runtime, tower):
    graphs = CapturedGraphs(tower, NPU, buckets=(2,))
    kinds = [
        needs((), 1, False),
        needs((2,), 1, False),
        needs((2,), 2, False),
        needs((2,), 1, True),
    ]
    for _ in range(2):
        for options in kinds:
            assert_same(graphs(tiles(2), options), eager(tower, tiles(2), options))
    assert [graph.replays for graph in runtime.graphs] == [2] * 4


def test_results_are_the_callers_own(runtime, tower):
    graphs = CapturedGraphs(tower, NPU, buckets=(2,))
    options = needs((2,), 1, False)
    first = graphs(tiles(2, 1), options)
    kept = first.map(torch.clone)
    graphs(tiles(2, 2), options)
    assert_same(first, kept)


def test_filled_in_rows_change_nothing(runtime, tower):
    """One tile after three: what the larger batch left behind it in the graph's input does no harm."""
    graphs = CapturedGraphs(tower, NPU, buckets=(4,))
    options = needs((2,), 1, False)
    graphs(torch.full((3, 3, 64, 64), float("nan")), options)
    ours = graphs(tiles(1), options)
    assert len(ours.image) == 1
    assert_same(ours, eager(tower, tiles(1), options))


def test_the_stand_in_notices_a_value_baked_into_the_graph(runtime, tower):
    """A pass that reads its pixels on the host gives, replayed, the embeddings of the pixels it was captured with."""

    def through_the_host(pixels, options):
        return tower(torch.tensor(pixels.tolist()), options)

    graphs = CapturedGraphs(through_the_host, NPU, buckets=(1,))
    options = needs((), 1, False)
    graphs(tiles(1, 1), options)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_same(graphs(tiles(1, 2), options), eager(tower, tiles(1, 2), options))


def test_capture_follows_the_rules_of_the_runtime(runtime):
    """Warm up on a side stream that waits for the input, come back, then capture; one pool for all graphs."""

    def encode(pixels, options):
        runtime.events.append(f"pass on {runtime.current}")
        return Embeddings(pixels.mean(dim=(1, 2, 3))[:, None])

    graphs = CapturedGraphs(encode, NPU, buckets=(1, 2))
    for count in (1, 2, 2):
        graphs(tiles(count), needs((), 1, False))
    warm = ["side waits for main", *["pass on side"] * 3, "main waits for side"]
    captured = ["capture from main", "pass on main"]
    assert runtime.events == [*warm, "pool", *captured, *warm, *captured]


def test_a_prefetch_is_captured_with_the_pass_and_joined(runtime, tower, monkeypatch):
    module = ModuleType("torch_npu")
    module.npu_prefetch = lambda weight, tokens, size: runtime.events.append(f"prefetch on {runtime.current}")
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    prefetch = WeightPrefetch(tower)

    def encode(pixels, options):
        embeddings = tower(pixels, options, before_blocks=prefetch)
        prefetch.join()
        return embeddings

    graphs = CapturedGraphs(encode, NPU, buckets=(2,))
    options = needs((2,), 1, False)
    assert_same(graphs(tiles(2), options), eager(tower, tiles(2), options))
    captured = runtime.events[runtime.events.index("capture from main") + 1 :]
    assert captured == ["side waits for main", *["prefetch on side"] * 12, "main waits for side"]


def test_too_many_tiles(runtime, tower):
    graphs = CapturedGraphs(tower, NPU, buckets=(1, 2))
    with pytest.raises(SettingsError, match="got a batch of 3 tiles, need 1 to 2"):
        graphs(tiles(3), needs((), 1, False))


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("meta")])
def test_devices_without_graphs(device, tower):
    with pytest.raises(EngineError, match=f"got the device {device}, which has no graphs; need cuda or npu"):
        CapturedGraphs(tower, device)


def test_cuda_has_what_graphs_need(tower):
    """The names and arguments used, in torch itself; no GPU is needed to look them up."""
    CapturedGraphs(tower, torch.device("cuda:0"))
    assert inspect.isclass(torch.cuda.CUDAGraph)
    given = inspect.signature(torch.cuda.graph).bind(object(), pool=object(), capture_error_mode="thread_local")
    assert set(given.arguments) == {"cuda_graph", "pool", "capture_error_mode"}
    for name in ("Stream", "current_stream", "stream", "device", "graph_pool_handle"):
        assert callable(getattr(torch.cuda, name))


# When it does not work


def test_a_failed_capture_is_said_and_passes_go_on(runtime, tower, caplog):
    """torch_npu's own words for a capture under TASK_QUEUE_ENABLE=2."""
    words = "Do not support TASK_QUEUE_ENABLE = 2 during NPU graph capture, please export TASK_QUEUE_ENABLE=1/0."
    graphs = CapturedGraphs(tower, NPU, buckets=(1, 2))
    options = needs((2,), 1, False)
    graphs(tiles(1), options)
    runtime.error = RuntimeError(words)
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            pixels = tiles(2, seed)
            assert_same(graphs(pixels, options), eager(tower, pixels, options))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "cannot capture a graph of 2 tiles" in record.message
    assert record.message.endswith(f"({words}); going on without graphs")
    assert graphs.failure == words
    runtime.error = None
    assert_same(graphs(tiles(1, 5), options), eager(tower, tiles(1, 5), options))
    assert [graph.replays for graph in runtime.graphs] == [1]


def test_errors_of_the_pass_itself_are_not_hidden(runtime, caplog):
    """Running out of memory is the engine's to handle: it halves the batch."""
    error = RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB")

    def encode(pixels, options):
        raise error

    graphs = CapturedGraphs(encode, NPU)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError) as stop:
        graphs(tiles(2), needs((), 1, False))
    assert stop.value is error
    assert graphs.failure is None
    assert not caplog.records


def test_threads_do_not_mix_their_tiles(runtime):
    """A graph has one input: another thread's tiles must not come in between."""
    inside: list[int] = []

    def encode(pixels, options):
        return Embeddings(pixels[:, :1, 0, 0] * 2)

    graphs = CapturedGraphs(encode, NPU, buckets=(2,))
    replay = Graph.replay

    def slow_replay(graph):
        inside.append(1)
        assert len(inside) == 1
        threading.Event().wait(0.005)
        replay(graph)
        inside.pop()

    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            image = graphs(torch.full((2, 3, 64, 64), float(number)), needs((), 1, False)).image
            if image.tolist() != [[2.0 * number]] * 2:
                wrong.append(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graph, "replay", slow_replay)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert inside == []
