"""Which engine, precision and device: what was asked for is never replaced; what is left open suits the machine."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from winspect.engines import choice, openvino_engine
from winspect.engines.choice import ENGINES, Choice, installed
from winspect.engines.options import EngineOptions
from winspect.errors import DeviceError, EngineError, MissingExtraError, PrecisionError
from winspect.system import installation
from winspect.system.installation import install_command

CPU = torch.device("cpu")


def choose(engine: str = "auto", precision: str | None = "auto", device: str = "auto") -> Choice:
    return choice.choose(EngineOptions(engine, precision, device))


@pytest.fixture
def machine(monkeypatch):
    """A machine of one's own: engines that are installed, whether the CPU has bf16, and a GPU."""

    def make(*, engines=("torch", "openvino", "onnx"), bf16: bool | None = True, gpu: bool = False, openvino=("CPU",)):
        for place, name, answer in (
            (choice, "installed", tuple(engines)),
            (choice, "cpu_features", SimpleNamespace(native_bf16=bf16)),
            (torch.cuda, "is_available", gpu),
            (torch.cuda, "device_count", int(gpu)),
            (openvino_engine, "openvino_devices", list(openvino)),
        ):
            monkeypatch.setattr(place, name, lambda answer=answer: answer)
        monkeypatch.setitem(sys.modules, "torch_npu", None)

    make()
    return make


def taken(*arguments: str) -> tuple[str, str, str | None, str]:
    made = choose(*arguments)
    return made.engine, made.precision, made.faster_precision, str(made.device)


# What is left open


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        ({}, ("openvino", "fp32", "bf16", "cpu"), ["the fastest on a CPU", "bf16 where these weights pass the gate"]),
        ({"bf16": False}, ("openvino", "fp32", None, "cpu"), ["not known to have bf16"]),
        ({"bf16": None}, ("openvino", "fp32", None, "cpu"), ["not known to have bf16"]),
        (
            {"engines": ["torch"]},
            ("torch", "fp32", "bf16", "cpu"),
            ["is not installed (pip install", "bf16 where these weights pass the gate"],
        ),
        ({"gpu": True}, ("torch", "fp32", None, "cuda:0"), ["it alone runs on cuda", "ask for bf16 or fp16 by name"]),
    ],
    ids=str,
)
def test_auto_takes_what_suits_the_machine_and_says_why(machine, options, expected, words):
    machine(**options)
    assert taken() == expected
    reasons = choose().reasons
    assert len(reasons) == 2
    for reason, word in zip(reasons, words if len(words) == 2 else ["engine", *words], strict=True):
        assert word in reason


def test_onnx_has_fp32_alone_and_says_so(machine):
    made = choose("onnx")
    assert (made.precision, made.faster_precision) == ("fp32", None)
    assert made.reasons == ("precision fp32: engine onnx has no other",)


def test_fp16_on_a_cpu_is_torchs(machine):
    assert taken("auto", "fp16", "cpu") == ("torch", "fp16", None, "cpu")
    assert "OpenVINO has no fp16 on a CPU" in choose("auto", "fp16", "cpu").reasons[0]


# What is asked for


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_an_engine_by_name_is_taken_without_a_word(machine, engine):
    made = choose(engine, "fp32", "cpu")
    assert (made.engine, made.precision, made.device, made.reasons) == (engine, "fp32", CPU, ())


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_engines_of_the_cpu_leave_a_gpu_alone(machine, engine):
    """Device auto means the GPU only where the engine can use it."""
    machine(gpu=True)
    assert choose(engine).device == CPU
    with pytest.raises(EngineError, match=f"got engine {engine} with device cuda:0; .*use engine torch"):
        choose(engine, device="cuda")


@pytest.mark.parametrize(
    ("engine", "precision", "known"),
    [
        ("openvino", "fp16", "fp32, bf16, int8"),
        ("onnx", "bf16", "fp32"),
        ("onnx", "int8", "fp32"),
        ("torch", "int8", "fp32, bf16, fp16"),
    ],
)
def test_a_precision_the_engine_does_not_have(machine, engine, precision, known):
    words = f"got precision {precision} with engine {engine} on a CPU, which runs {known}; int8 needs engine openvino"
    with pytest.raises(PrecisionError, match=words):
        choose(engine, precision, "cpu")


@pytest.mark.parametrize("engine", ["auto", "torch", "openvino"])
def test_bf16_on_a_cpu_without_it(machine, engine):
    machine(bf16=False)
    with pytest.raises(PrecisionError, match=r"this CPU does not have it .*use fp32"):
        choose(engine, "bf16", "cpu")
    machine(bf16=None)  # not known to be absent
    assert choose(engine, "bf16", "cpu").precision == "bf16"


def test_bf16_on_a_gpu_is_not_the_cpus_business(machine):
    machine(bf16=False, gpu=True)
    assert taken("auto", "bf16", "cuda") == ("torch", "bf16", None, "cuda:0")
    with pytest.raises(PrecisionError, match="int8 with engine torch, which runs fp32, bf16, fp16"):
        choose("auto", "int8", "cuda")


def test_int8_takes_openvino(machine):
    assert taken("auto", "int8", "cpu") == ("openvino", "int8", None, "cpu")
    machine(engines=["torch"])
    with pytest.raises(PrecisionError, match="int8 needs engine openvino"):
        choose("auto", "int8", "cpu")


# OpenVINO's own devices


def test_a_device_of_openvinos(machine):
    machine(openvino=["CPU", "GPU.0", "GPU.1"])
    for engine in ("auto", "openvino"):
        for name in ("GPU", "GPU.1"):
            made = choose(engine, device=f"openvino:{name}")
            assert (made.engine, made.openvino_device, made.device) == ("openvino", name, CPU)
            assert (made.precision, made.faster_precision) == ("fp32", None)
    assert choose("auto", "fp16", "openvino:GPU").precision == "fp16"


def test_openvinos_cpu_by_name_is_never_replaced(machine):
    assert choose("auto", "bf16", "openvino:CPU").engine == "openvino"
    with pytest.raises(PrecisionError, match="fp16 with engine openvino on a CPU"):
        choose("auto", "fp16", "openvino:CPU")


def test_a_device_of_openvinos_that_is_not_there(machine):
    for name in ("GPU", "NPU", ""):
        with pytest.raises(DeviceError, match=f"got the device openvino:{name}, but OpenVINO finds CPU here"):
            choose("auto", device=f"openvino:{name}")
    machine(openvino=["CPU", "GPU.0"])
    with pytest.raises(PrecisionError, match="int8 with engine openvino, which runs fp32, bf16, fp16"):
        choose("auto", "int8", "openvino:GPU")


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_device_of_openvinos_with_another_engine(machine, engine):
    with pytest.raises(EngineError, match=f"got engine {engine} with device openvino:CPU; .*use engine openvino"):
        choose(engine, device="openvino:CPU")


# What is not there, and what nobody knows


@pytest.mark.parametrize(("engine", "extra"), [("openvino", "full"), ("onnx", "onnx")])
def test_an_engine_that_is_not_installed(machine, engine, extra):
    machine(engines=["torch"])
    with pytest.raises(MissingExtraError, match=f"engine {engine} needs .*{re.escape(install_command(extra))}"):
        choose(engine)


def test_a_device_of_openvinos_without_openvino(machine):
    machine(engines=["torch"])
    with pytest.raises(MissingExtraError, match=r"engine openvino needs openvino: pip install .*\[full\]"):
        choose("auto", device="openvino:GPU")


def test_what_is_installed_is_looked_up_not_tried(monkeypatch):
    asked = []

    def spec(name):
        asked.append(name)
        return None if name == "openvino" else object()

    monkeypatch.setattr(installation, "find_spec", spec)
    assert installed() == ("torch", "onnx")
    assert asked == ["torch", "openvino", "onnxruntime"]


@pytest.mark.parametrize("name", ["", "Torch", "tensorrt", None])
def test_unknown_engines(machine, name):
    with pytest.raises(EngineError, match="need one of auto, torch, openvino, onnx"):
        choose(name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["", "fp8", "FP32", 3])
def test_unknown_precisions(machine, engine, name):
    with pytest.raises(PrecisionError, match="need one of auto, fp32, bf16, fp16, int8"):
        choose(engine, name, "cpu")


@pytest.mark.parametrize("engine", ENGINES)
def test_unknown_devices(machine, engine):
    for name in ("gpu", "", None, "OPENVINO:CPU"):
        with pytest.raises(DeviceError, match="need auto, cpu, cuda"):
            choose(engine, device=name)
