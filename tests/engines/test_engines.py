"""Engines, devices and precisions: batches, running out of memory, and names of what is not there."""

from __future__ import annotations

import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from checkpoints import SMALL, build

from tests.engines.towers import needs
from winspect.backbones.embeddings import LAST, Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.engines.base import is_out_of_memory
from winspect.engines.devices import PRECISIONS, dtype_of, resolve_device
from winspect.engines.torch_engine import DEFAULT_BATCH_SIZES, TorchEngine
from winspect.errors import DeviceError, DeviceMemoryError, MissingExtraError, PrecisionError

CPU = torch.device("cpu")


class Stand(torch.nn.Module):
    """A tower with room for ``room`` tiles; embeds a tile by its mean, and notes the batches it saw."""

    def __init__(self, room: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.room, self.batches = room, []
        self.error = error or torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def forward(self, pixels, wanted):
        self.batches.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error
        vectors = pixels.mean(dim=(2, 3))
        return Embeddings(
            vectors, {scale: vectors[:, None] * scale for scale in wanted.scales}, {LAST: vectors[:, None, None]}
        )


def tiles(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def encode(engine: TorchEngine, count: int) -> Embeddings:
    return engine.encode(tiles(count), needs((2, 3), 1, True))


# Batches and memory


def test_out_of_memory_halves_the_batch_and_says_so(caplog):
    tower = Stand(room=2)
    engine = TorchEngine(tower, CPU, "fp32", batch_size=8)
    with caplog.at_level(logging.WARNING):
        halved = encode(engine, 9)
    assert tower.batches == [8, 4, 2, 2, 2, 2, 1]
    assert [record.message for record in caplog.records] == [
        "out of memory on cpu with 8 tiles; going on with 4",
        "out of memory on cpu with 4 tiles; going on with 2",
    ]
    whole = encode(TorchEngine(Stand(room=9), CPU, "fp32", batch_size=9), 9)
    torch.testing.assert_close(halved.image, whole.image, rtol=0, atol=0)
    torch.testing.assert_close(halved.windows[3], whole.windows[3], rtol=0, atol=0)
    torch.testing.assert_close(halved.patches[LAST], whole.patches[LAST], rtol=0, atol=0)
    assert len(halved.image) == 9


def test_the_halved_batch_stays(caplog):
    tower = Stand(room=3)
    engine = TorchEngine(tower, CPU, "fp32", batch_size=4)
    encode(engine, 4)
    encode(engine, 4)
    assert tower.batches == [4, 2, 2, 2, 2]


def test_a_short_batch_that_fails_is_halved_itself():
    """Half of the batch size would be as many tiles as have just failed."""
    tower = Stand(room=1)
    encode(TorchEngine(tower, CPU, "fp32", batch_size=64), 3)
    assert tower.batches == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223: std::bad_alloc"),
        Exception("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_not_even_one_tile_fits(error):
    tower = Stand(room=0, error=error)
    with pytest.raises(DeviceMemoryError, match=r"not even one tile fits into the memory of cpu .*smaller") as stop:
        encode(TorchEngine(tower, CPU, "fp32", batch_size=4), 4)
    assert tower.batches == [4, 2, 1]
    assert stop.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("other"),
        # What has been judged already, and a file that cannot be mapped, are no reason to try a smaller batch.
        DeviceMemoryError("not even one tile fits into the memory of cpu (out of memory)"),
        OSError(12, "out of memory"),
    ],
)
def test_other_errors_pass_through(error):
    tower = Stand(room=1, error=error)
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as stop:
        encode(TorchEngine(tower, CPU, "fp32", batch_size=4), 4)
    assert stop.value is error
    assert tower.batches == [4]


def test_the_cache_of_a_device_is_emptied(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    engine = TorchEngine(Stand(room=1), CPU, "fp32", batch_size=2)
    engine.device = SimpleNamespace(type="cuda")
    engine._halve(2, MemoryError())
    assert emptied == [True]
    assert engine.batch_size == 1


def test_batch_sizes_by_default_are_the_devices():
    assert TorchEngine(Stand(1), CPU, "fp32").batch_size == DEFAULT_BATCH_SIZES["cpu"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_embeddings_are_float32_whatever_the_tower_runs_in(precision):
    engine = TorchEngine(ImageTower(build(SMALL).visual), CPU, precision)
    assert engine.tower.dtype == dtype_of(precision)
    assert (engine.name, engine.precision, engine.device) == ("torch", precision, CPU)
    embeddings = engine.encode(torch.randn(2, 3, 64, 64), needs((2,), 1, True))
    assert {embeddings.image.dtype, embeddings.windows[2].dtype, embeddings.patches[LAST].dtype} == {torch.float32}
    assert not embeddings.image.requires_grad


# Names


def test_precisions():
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: dtype_of(name) for name in known} == known
    assert set(PRECISIONS) == {*known, "int8"}
    with pytest.raises(PrecisionError, match="int8 is not available in the torch engine; use fp32"):
        dtype_of("int8")
    for name in ("fp8", "", None, "FP32"):
        with pytest.raises(PrecisionError, match="need one of fp32, bf16, fp16"):
            dtype_of(name)


@pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "mps", "CPU", "npu:0:1", None, 0])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match="need auto, cpu, cuda, cuda:N or npu:N"):
        resolve_device(name)


def test_the_cpu():
    assert resolve_device("cpu") == CPU


def test_a_gpu_that_is_not_there(monkeypatch):
    gpus = 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(DeviceError, match="'cuda', but none found on this machine; use --device auto or cpu"):
        resolve_device("cuda")
    gpus = 2
    with pytest.raises(DeviceError, match="'cuda:2', but 2 found"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cuda") == torch.device("cuda:0")


def test_an_npu_without_torch_npu(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(MissingExtraError, match=r'npu:0 needs torch_npu: pip install .*\[ascend\]"'):
        resolve_device("npu:0")


@pytest.fixture
def npu(monkeypatch):
    """A machine with one Ascend NPU, as torch_npu shows it."""
    device = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1)
    module = ModuleType("torch_npu")
    module.__spec__ = ModuleSpec("torch_npu", None)
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    monkeypatch.setattr(torch, "npu", device, raising=False)
    monkeypatch.setattr(torch, "device", lambda kind, number=None: kind if number is None else f"{kind}:{number}")
    return device


def test_an_npu(npu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("npu:0") == "npu:0"
    assert resolve_device("auto") == "npu:0"
    with pytest.raises(DeviceError, match="'npu:1', but 1 found"):
        resolve_device("npu:1")
    npu.is_available = lambda: False
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize(("has_gpu", "expected"), [(True, "cuda:0"), (False, "cpu")])
def test_auto_takes_what_is_there_and_says_so(monkeypatch, caplog, has_gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto") == torch.device(expected)
    assert caplog.messages == [f"device auto: {expected}"]
