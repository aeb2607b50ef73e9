"""Weight prefetch, held to the signature in the real torch_npu: which weights, in which order, before which operator.

No NPU is at hand. The stand-in for ``torch_npu.npu_prefetch`` is an operator registered with torch under the very
schema that torch_npu registers (``fixtures/torch_npu_signature.json``), so that torch's own dispatcher checks every
call: number, names and types of arguments.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import open_clip
import pytest
import torch
from checkpoints import SMALL, build
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engines.towers import needs
from winspect.backbones.image_tower import ImageTower
from winspect.engines.accelerators.ascend import ENVIRONMENT, WeightPrefetch, environment, prefetch_order
from winspect.errors import EngineError, MissingExtraError, SettingsError

MAPS = needs((2, 3))
ROOT = Path(__file__).parents[2]
RELEASES = json.loads((ROOT / "tests/fixtures/torch_npu_signature.json").read_text(encoding="utf-8"))["releases"]
SCHEMAS = sorted({release[source]["schema"] for release in RELEASES for source in ("registered", "declared")})
PARTS = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@dataclass
class Seen:
    """What reached the device, in order: calls of the prefetch, and the names of all operators and stream changes."""

    calls: list[tuple[torch.Tensor, torch.Tensor | None, int, int]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=lambda: ["main"])


class Watch(TorchDispatchMode):
    """Notes every operator that torch dispatches."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.events.append(function.name().split(".")[0].split("::")[1])
        return function(*args, **(kwargs or {}))


class StreamStandIn:
    """A stream of ``torch.npu`` by its name: notes who waits for whom."""

    def __init__(self, seen: Seen, name: str) -> None:
        self.seen, self.name = seen, name

    def wait_stream(self, other: StreamStandIn) -> None:
        self.seen.events.append(f"{self.name} waits for {other.name}")


@pytest.fixture(scope="module")
def operators():
    """npu_prefetch under each schema, by the name of its first argument; ``record`` is what they call."""
    record: list = []
    libraries, found = [], {}
    for number, schema in enumerate(SCHEMAS):
        library = torch.library.Library(f"winspect_stand_in_{number}", "DEF")
        library.define(schema)

        def kernel(weight, dependency, max_size, offset=0):
            # The limits that torch_npu checks itself; see "checks" in the fixture.
            if max_size <= 0 or offset < 0:
                raise RuntimeError(f"The max_size should be greater than zero, but got {max_size}.")
            record[-1].calls.append((weight, dependency, max_size, offset))
            record[-1].events.append(f"prefetch on {record[-1].streams[-1]}")

        library.impl("npu_prefetch", kernel, "CompositeExplicitAutograd")
        libraries.append(library)
        name = re.search(r"\(Tensor (\w+)", schema)[1]
        found[name] = getattr(torch.ops, f"winspect_stand_in_{number}").npu_prefetch
    yield record, found
    for library in libraries:
        library._destroy()


@pytest.fixture(params=["input", "self"])
def npu(request, operators, monkeypatch) -> Seen:
    """A machine with torch_npu, as far as the prefetch knows it."""
    record, found = operators
    seen = Seen()
    record.append(seen)

    @contextlib.contextmanager
    def stream(chosen):
        seen.streams.append(chosen.name)
        yield
        seen.streams.pop()

    module = ModuleType("torch_npu")
    module.npu_prefetch = found[request.param]
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    runtime = SimpleNamespace(
        Stream=lambda device: StreamStandIn(seen, "own"),
        current_stream=lambda device: StreamStandIn(seen, seen.streams[-1]),
        stream=stream,
    )
    monkeypatch.setattr(torch, "npu", runtime, raising=False)
    return seen


def clip_of(layers: int = 12):
    """A small CLIP with random weights and as many layers as asked for, each with its own weights."""
    clip = build(SMALL)
    blocks = clip.visual.transformer.resblocks
    deep = [copy.deepcopy(blocks[number % len(blocks)]) for number in range(layers)]
    clip.visual.transformer.resblocks = torch.nn.ModuleList(deep)
    return clip


def pixels_like(tower, batch=2):
    noise = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return noise.to(tower.dtype)


def expected(visual) -> list[tuple[str, torch.Tensor]]:
    """The same weights by open_clip's own names, past our blocks."""
    parameters = dict(visual.named_parameters())
    layers = len(visual.transformer.resblocks)
    names = [f"transformer.resblocks.{layer}.{part}" for layer in range(layers) for part in PARTS]
    return [(name, parameters[name]) for name in names]


def check(seen: Seen, visual, *, max_bytes=None) -> None:
    """Every weight once, itself and not a copy, in layer order; whole, or its first bytes; after the same tokens."""
    weights = [weight for _, weight in expected(visual)]
    assert [call[0].data_ptr() for call in seen.calls] == [weight.data_ptr() for weight in weights]
    sizes = [weight.numel() * weight.element_size() for weight in weights]
    assert [call[2] for call in seen.calls] == [min(size, max_bytes or size) for size in sizes]
    assert {call[3] for call in seen.calls} == {0}
    assert len({call[1].data_ptr() for call in seen.calls}) == 1


def run(tower, seen: Seen, prefetch=None, needed=MAPS):
    with torch.inference_mode(), Watch(seen):
        return tower(pixels_like(tower), needed, before_blocks=prefetch)


# The signature


def test_the_releases_agree_and_are_the_ends_of_what_the_extra_allows():
    assert [release["version"] for release in RELEASES] == ["2.6.0", "2.14.0"]
    assert len(SCHEMAS) == 2  # they differ in the first argument's name alone
    assert 'ascend = ["winspect[full]", "torch_npu>=2.10,<3"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_stand_in_refuses_what_the_signature_does(npu):
    prefetch = sys.modules["torch_npu"].npu_prefetch
    weight = torch.zeros(4)
    for arguments in [(weight,), (weight, None), (weight, None, "all"), (weight, None, None), (4, weight, 16)]:
        with pytest.raises((RuntimeError, TypeError)):
            prefetch(*arguments)
    with pytest.raises(RuntimeError, match="greater than zero"):
        prefetch(weight, None, 0)
    assert npu.calls == []
    prefetch(weight, None, 16)
    assert [call[1:] for call in npu.calls] == [(None, 16, 0)]


@pytest.mark.skipif(importlib.util.find_spec("torch_npu") is None, reason="needs the real torch_npu, with CANN")
def test_the_installed_torch_npu_has_that_signature():
    torch_npu = importlib.import_module("torch_npu")
    schema = str(torch_npu.npu_prefetch.default._schema).removeprefix("npu::")
    assert schema in SCHEMAS


# Which weights, in which order


def test_the_order_is_attention_then_mlp_layer_by_layer():
    tower = ImageTower(build(SMALL).visual)
    names = [name for name, _ in prefetch_order(tower)]
    assert names[:5] == [
        "transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.0.attn.out_proj.weight",
        "transformer.resblocks.0.mlp.c_fc.weight",
        "transformer.resblocks.0.mlp.c_proj.weight",
        "transformer.resblocks.1.attn.in_proj_weight",
    ]
    assert len(names) == 4 * 3


def test_the_default_model_has_48_weights_of_462_mb():
    """By hand: 12 layers, each 3 + 1 + 4 + 4 matrices of 896 x 896, four bytes a number."""
    config = open_clip.get_model_config("ViT-B-16-plus-240")
    with torch.device("meta"):
        visual = open_clip.model.CLIP(**config).visual
    order = prefetch_order(ImageTower(visual))
    assert len(order) == 48
    assert sum(weight.numel() * 4 for _, weight in order) == 12 * 12 * 896 * 896 * 4 == 462_422_016


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [1, 12])
def test_every_weight_of_the_image_tower_once_and_in_order(npu, layers, dtype):
    clip = clip_of(layers)
    tower = ImageTower(clip.visual).to(dtype)
    run(tower, npu, WeightPrefetch(tower))
    assert len(npu.calls) == 4 * layers
    assert {call[0].dtype for call in npu.calls} == {dtype}
    check(npu, clip.visual)


def test_a_tower_that_changes_its_precision_later_prefetches_its_new_weights(npu):
    clip = clip_of(2)
    tower = ImageTower(clip.visual)
    prefetch = WeightPrefetch(tower)
    tower.to(torch.bfloat16)
    run(tower, npu, prefetch)
    check(npu, clip.visual)


def test_the_text_tower_is_never_prefetched(npu):
    clip = clip_of(3)
    tower = ImageTower(clip.visual)
    run(tower, npu, WeightPrefetch(tower))
    asked = {call[0].data_ptr() for call in npu.calls}
    before = len(npu.calls)
    with torch.inference_mode():
        clip.encode_text(torch.zeros(1, 77, dtype=torch.long))
    assert len(npu.calls) == before
    assert asked.isdisjoint(weight.data_ptr() for weight in clip.transformer.parameters())


def test_the_check_fails_on_wrong_calls(npu):
    clip = clip_of(2)
    tower = ImageTower(clip.visual)
    run(tower, npu, WeightPrefetch(tower))
    right = npu.calls
    check(npu, clip.visual)
    copied = (right[0][0].clone(), *right[0][1:])
    text = (clip.transformer.resblocks[0].mlp.c_fc.weight, *right[0][1:])
    wrong = [
        right[::-1],
        [*right[1::2], *right[::2]],
        right[:-1],
        right + right[:1],
        [copied, *right[1:]],
        [text, *right[1:]],
        [(*right[0][:2], 1, 0), *right[1:]],
        [(right[0][0], torch.zeros(1), *right[0][2:]), *right[1:]],
        [],
    ]
    for calls in wrong:
        npu.calls = calls
        with pytest.raises((AssertionError, IndexError)):
            check(npu, clip.visual)


# When


def test_it_starts_after_the_tokens_and_before_the_first_block(npu):
    """Embedding of patches, positions and ln_pre come first; then all of the prefetch; then the blocks."""
    tower = ImageTower(clip_of(12).visual)
    run(tower, npu, WeightPrefetch(tower))
    first = npu.events.index("own waits for main")
    assert npu.events[first + 1 : first + 97] == ["npu_prefetch", "prefetch on own"] * 48
    before, after = npu.events[:first], npu.events[first + 97 :]
    assert before.count("conv2d") == 1
    assert before.count("layer_norm") == 1  # ln_pre
    assert after[0] == "layer_norm"  # ln_1 of the first block
    assert not {"linear", "scaled_dot_product_attention"} & set(before)
    assert after.count("scaled_dot_product_attention") == 12 * 3  # the picture, windows of two scales
    assert "npu_prefetch" not in after


def test_it_starts_after_the_first_blocks_own_input(npu):
    tower = ImageTower(clip_of(2).visual)
    inputs = []
    tower.blocks[0].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].data_ptr()))
    run(tower, npu, WeightPrefetch(tower), needs())
    assert {call[1].data_ptr() for call in npu.calls} == {inputs[0]}


def test_once_per_pass_whatever_the_windows(npu):
    tower = ImageTower(clip_of(2).visual)
    prefetch = WeightPrefetch(tower)
    run(tower, npu, prefetch, needs((2, 3), 1, True))
    assert len(npu.calls) == 8
    run(tower, npu, prefetch, needs())
    assert len(npu.calls) == 16


def test_it_does_not_hold_up_the_blocks_until_it_is_joined(npu):
    tower = ImageTower(clip_of(1).visual)
    prefetch = WeightPrefetch(tower)
    run(tower, npu, prefetch)
    assert "main waits for own" not in npu.events
    prefetch.join()
    assert npu.events[-1] == "main waits for own"


def test_on_the_current_stream_nobody_waits(npu):
    clip = clip_of(2)
    tower = ImageTower(clip.visual)
    prefetch = WeightPrefetch(tower, own_stream=False)
    run(tower, npu, prefetch)
    prefetch.join()
    check(npu, clip.visual)
    assert not [event for event in npu.events if "waits" in event]
    assert npu.events.count("prefetch on main") == 8


# What it does not do


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own_stream", [True, False])
def test_embeddings_do_not_change_by_a_bit(npu, dtype, own_stream):
    tower = ImageTower(clip_of(3).visual).to(dtype)
    without = run(tower, npu, needed=needs((2, 3), 1, True))
    assert npu.calls == []
    with_it = run(tower, npu, WeightPrefetch(tower, own_stream=own_stream, max_bytes=100), needs((2, 3), 1, True))
    assert len(npu.calls) == 12
    for ours, plain in zip(tensors(with_it), tensors(without), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, plain)


def tensors(embeddings) -> list[torch.Tensor]:
    return [embeddings.image, *embeddings.windows.values(), *embeddings.patches.values()]


# Settings


@pytest.mark.parametrize("max_bytes", [1, 4096, 1 << 40])
def test_a_limit_cuts_large_weights_and_leaves_small_ones(npu, max_bytes):
    clip = clip_of(2)
    tower = ImageTower(clip.visual)
    run(tower, npu, WeightPrefetch(tower, max_bytes=max_bytes))
    check(npu, clip.visual, max_bytes=max_bytes)
    assert max(call[2] for call in npu.calls) <= max(max_bytes, 4 * 64 * 64 * 4)


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, True, "4096"])
def test_limits_that_torch_npu_would_refuse(npu, max_bytes):
    with pytest.raises(SettingsError, match=r"max_bytes: got .* need a whole number of bytes from 1"):
        WeightPrefetch(ImageTower(clip_of(1).visual), max_bytes=max_bytes)


def test_without_torch_npu(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(MissingExtraError, match=r'needs torch_npu: pip install .*\[ascend\]"'):
        WeightPrefetch(ImageTower(clip_of(1).visual))


def test_a_torch_npu_that_is_too_old(npu, monkeypatch):
    old = ModuleType("torch_npu")
    old.__version__ = "2.1.0"
    monkeypatch.setitem(sys.modules, "torch_npu", old)
    with pytest.raises(EngineError, match=r"got torch_npu 2\.1\.0 without npu_prefetch; need 2.6 or later"):
        WeightPrefetch(ImageTower(clip_of(1).visual))


def test_it_says_what_it_will_do_and_under_which_environment(npu, monkeypatch, caplog):
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    with caplog.at_level(logging.INFO):
        WeightPrefetch(ImageTower(clip_of(3).visual))
    (message,) = caplog.messages
    assert message.startswith("prefetch of 12 weights, 0.6 MB; ")  # 3 x 12 x 64 x 64 x 4 bytes
    assert "'TASK_QUEUE_ENABLE': '2'" in message


def test_the_environment_is_read_and_never_set(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert environment() == dict.fromkeys(ENVIRONMENT)
    monkeypatch.setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True")
    assert environment()["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"


def test_the_manual_explains_each_variable():
    manual = (ROOT / "docs/ascend.md").read_text(encoding="utf-8")
    assert [name for name in ENVIRONMENT if f"`{name}`" not in manual] == []
