"""``winspect doctor``: what it says of a sound machine, and of broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from winspect.cli import examination
from winspect.cli.doctor import lines_of
from winspect.cli.main import build_parser
from winspect.engines import choice
from winspect.engines.accelerators import ascend
from winspect.engines.choice import Choice
from winspect.engines.options import EngineOptions
from winspect.errors import EngineError
from winspect.system import machine
from winspect.system.installation import install_command

ROOT = Path(__file__).parents[2]
REAL_CHOOSE = choice.choose
DEFAULT = "ViT-B-16-plus-240"
DEFAULT_FILE = "vit_b_16_plus_240-laion400m_e31-8fb26589.pt"

GATE_NOT_ASKED = "the gate has not been asked of bf16 with these weights: the first run asks it"
KEYS = {
    "schema": int,
    "versions": dict,
    "system": str,
    "executable": str,
    "cpu": dict,
    "memory_mb": int,
    "devices": list,
    "engines": dict,
    "choice": dict,
    "cache": dict,
    "weights": dict,
    "environment": dict,
    "notes": list,
    "problems": list,
}


@pytest.fixture
def choices(monkeypatch):
    """The ``calls`` for a choice, and their ``answer``: torch and a reason, another choice, an error, or a function."""
    seen = SimpleNamespace(calls=[])
    seen.answer = Choice("torch", "fp32", "bf16", torch.device("cpu"), "CPU", ("one reason", "and another"))

    def choose(options):
        seen.calls.append((options.engine, options.precision, options.device))
        if isinstance(seen.answer, Exception):
            raise seen.answer
        return seen.answer(options) if callable(seen.answer) else seen.answer

    monkeypatch.setattr(choice, "choose", choose)
    return seen


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An own cache folder, not made yet."""
    monkeypatch.setenv("WINSPECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A machine with a CPU alone and, unless a test says otherwise, one engine."""
    found = SimpleNamespace(engines={"torch": "torch"}, driver=tmp_path / "driver")
    found.versions = {**machine.versions(), "torch_npu": None}
    monkeypatch.setattr(examination, "ENGINE_MODULES", found.engines)
    monkeypatch.setattr(examination, "NVIDIA_DRIVER", found.driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(examination, "versions", lambda: dict(found.versions))
    return found


@pytest.fixture
def examined(choices, cache, capsys, place):
    """Run the verb."""

    def run(*arguments):
        args = build_parser().parse_args(["doctor", *map(str, arguments)])
        code = args.run(args)
        said = capsys.readouterr()
        report = json.loads(said.out) if "--json" in arguments else None
        return SimpleNamespace(code=code, report=report, out=said.out, err=said.err)

    return run


def only_problem(done) -> str:
    """The one problem of an examination that found one."""
    assert done.code == 1
    (problem,) = done.report["problems"]
    return problem


def package(folder: Path, name: str, code: str) -> None:
    """A package that does ``code`` when it is imported."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)


# A sound machine


def test_json(examined, choices):
    done = examined("--json")
    assert done.code == 0
    report = done.report
    assert {key: type(value) for key, value in report.items()} == KEYS
    assert report["problems"] == report["notes"] == []
    assert report["versions"]["torch"] == str(torch.__version__)
    cpu = machine.cpu_features()
    assert report["cpu"] == {
        "name": cpu.name,
        "cores": cpu.cores,
        "features": cpu.flags,
        "native_bf16": cpu.native_bf16,
    }
    assert report["devices"] == [{"device": "cpu", "name": cpu.name, "memory_mb": machine.memory_mb()}]
    assert report["engines"] == {"torch": {"installed": True, "usable": True, "install": None}}
    assert choices.calls == [("auto", None, "auto")]
    assert report["choice"] == {
        "engine": "torch",
        "precision": "fp32",
        "faster_precision": "bf16",
        "device": "cpu",
        "recipe": "paper",
        "reasons": ["one reason", "and another", GATE_NOT_ASKED],
    }


def test_text(examined, cache, monkeypatch):
    for name in examination.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINSPECT_CACHE", str(cache))
    done = examined("--json")
    assert done.code == 0
    flags = {**dict.fromkeys(machine.FLAGS), "avx2": True, "amx_bf16": False}
    done.report["cpu"] = {"name": "A CPU", "cores": 1, "features": flags, "native_bf16": None}
    lines = lines_of(done.report)
    labels = [line[:12].strip() for line in lines if not line.startswith(" ")]
    expected = "winspect python system libraries cpu devices engines chosen cache weights environment problems"
    assert labels == expected.split()
    assert "cpu         A CPU, 1 core to be used" in lines
    assert "            has: avx2" in lines
    assert "            has not: amx_bf16" in lines
    assert "            not known: avx512f avx512_vnni avx512_bf16 amx_int8 arm_bf16 arm_i8mm" in lines
    assert "            bf16: not known" in lines
    assert "            - and another" in lines
    assert f"environment WINSPECT_CACHE={cache}" in lines
    assert lines[-1] == "problems    none found"
    assert any(line.endswith(f"winspect weights pull {DEFAULT} laion400m_e31") for line in lines)


def test_options_are_passed_on(examined, choices):
    assert examined("--engine", "onnx", "--precision", "int8", "--device", "cuda:1").code == 0
    assert choices.calls == [("onnx", "int8", "cuda:1")]


@pytest.mark.parametrize("options", [(), ("--engine", "torch"), ("--engine", "torch", "--precision", "fp32")])
def test_the_real_choice(options, examined, choices):
    choices.answer = REAL_CHOOSE
    given = {option[2:]: value for option, value in zip(options[::2], options[1::2], strict=True)}
    expected = REAL_CHOOSE(EngineOptions(**given))
    done = examined("--json", *options)
    assert done.code == 0
    assert done.report["choice"] == {
        "engine": expected.engine,
        "precision": expected.precision,
        "faster_precision": expected.faster_precision,
        "device": "cpu",
        "recipe": "paper",
        "reasons": list(expected.reasons),
    }
    assert f"chosen      {expected.engine} in {expected.precision} on cpu, recipe paper" in examined(*options).out


def test_a_choice_of_openvinos_device(examined, choices):
    choices.answer = Choice("openvino", "fp32", None, torch.device("cpu"), "GPU", ())
    assert "chosen      openvino in fp32 on openvino:GPU, recipe paper" in examined().out.splitlines()


def test_variables_are_named_and_others_are_not(examined, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_TOKEN", "secret")
    done = examined("--json")
    assert done.report["environment"]["OMP_NUM_THREADS"] == "3"
    assert "secret" not in done.out
    assert set(ascend.ENVIRONMENT) < set(examination.VARIABLES)


# Engines and libraries


def test_an_engine_that_is_not_installed_is_no_problem_and_names_its_extra(examined, place):
    place.engines["fast"] = "no_such_engine"
    fast = {"installed": False, "usable": False, "install": install_command("fast")}
    assert examined("--json").report["engines"]["fast"] == fast
    assert f"            fast is not installed: {install_command('fast')}" in examined().out.splitlines()


def test_an_engine_that_cannot_be_imported(examined, place, monkeypatch, tmp_path):
    package(tmp_path, "torn_engine", "raise OSError('libtorn.so.4: cannot open shared object file\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    place.engines["fast"] = "torn_engine"
    done = examined("--json")
    assert done.report["engines"]["fast"] == {"installed": True, "usable": False, "install": None}
    assert only_problem(done) == (
        "torn_engine cannot be imported (OSError: libtorn.so.4: cannot open shared object file); install it again: "
        f"{install_command('fast')}"
    )
    assert "            fast is broken" in examined().out.splitlines()


def test_a_torchvision_that_cannot_be_imported(examined, choices, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    done = examined("--json")
    assert "torchvision cannot be imported" in only_problem(done)  # open_clip, which needs it, is not blamed
    assert "releases that belong together" in only_problem(done)
    assert (done.report["choice"], done.report["weights"], choices.calls) == (None, None, [])
    assert done.report["engines"]["torch"]["usable"]
    assert examined().out.splitlines()[-1].startswith("problems    torchvision cannot be imported")


def test_no_torch_at_all(examined, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = examined("--json")
    assert "torch cannot be imported (ModuleNotFoundError: " in only_problem(done)
    assert not done.report["engines"]["torch"]["usable"]
    assert [device["device"] for device in done.report["devices"]] == ["cpu"]


def test_an_edge_installation_is_sound(examined, place):
    place.versions |= {"torch": None, "torchvision": None, "open_clip": None}
    done = examined("--json")
    assert (done.code, done.report["problems"], done.report["choice"]) == (0, [], None)
    assert any("edge bundles alone" in note for note in done.report["notes"])


def test_what_libraries_say_when_imported_stays_out_of_the_json(examined, place, monkeypatch, tmp_path):
    package(tmp_path, "loud_engine", "print('welcome to the engine')")
    monkeypatch.syspath_prepend(tmp_path)
    place.engines["fast"] = "loud_engine"
    done = examined("--json")
    assert done.code == 0
    assert "welcome to the engine" in done.err


def test_as_a_program_with_a_broken_library(tmp_path):
    package(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    done = subprocess.run(
        [sys.executable, "-m", "winspect", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "RuntimeError: operator torchvision::nms does not exist" in json.loads(done.stdout)["problems"][0]
    assert "Traceback" not in done.stderr


# Devices and the choice


def gpu(count: int, names: str) -> SimpleNamespace:
    """What PyTorch shows of ``count`` devices of a kind."""
    return SimpleNamespace(
        is_available=lambda: count > 0,
        device_count=lambda: count,
        get_device_name=lambda number: f"{names} {number}",
        get_device_properties=lambda number: SimpleNamespace(total_memory=(number + 1) * 10_000_000_000),
    )


def test_gpus(examined, monkeypatch):
    monkeypatch.setattr(torch, "cuda", gpu(2, "NVIDIA H200"))
    done = examined("--json")
    assert done.report["devices"][1:] == [
        {"device": "cuda:0", "name": "NVIDIA H200 0", "memory_mb": 10_000},
        {"device": "cuda:1", "name": "NVIDIA H200 1", "memory_mb": 20_000},
    ]
    assert "            cuda:1: NVIDIA H200 1, 20000 MB" in examined().out.splitlines()


@pytest.mark.parametrize("cuda", ["13.2", None])
def test_a_driver_without_a_gpu_in_pytorch(cuda, examined, place, monkeypatch):
    place.driver.write_text("NVRM version: 470")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    done = examined("--json")
    if cuda:
        assert "built for CUDA 13.2, finds no GPU" in only_problem(done)
    else:  # a choice that somebody may have made on purpose
        assert done.code == 0
        assert "was built without CUDA" in done.report["notes"][0]
        assert "notes       an NVIDIA driver is here" in examined().out


@pytest.fixture
def npus(place, monkeypatch):
    """A machine with ``torch_npu`` installed, and as many NPUs as asked for."""

    def install(count: int) -> None:
        place.versions["torch_npu"] = "2.6.0"
        monkeypatch.setitem(sys.modules, "torch_npu", ModuleType("torch_npu"))
        monkeypatch.setattr(torch, "npu", gpu(count, "Ascend910B4"), raising=False)

    return install


def test_npus(examined, npus):
    npus(1)
    done = examined("--json", "--device", "cpu")
    assert done.code == 0
    assert done.report["devices"][1:] == [{"device": "npu:0", "name": "Ascend910B4 0", "memory_mb": 10_000}]
    assert done.report["versions"]["torch_npu"] == "2.6.0"


def test_torch_npu_without_npus(examined, npus):
    npus(0)
    assert "torch_npu finds no NPU" in only_problem(examined("--json", "--device", "cpu"))


def test_torch_npu_that_cannot_be_imported(examined, npus, monkeypatch):
    npus(1)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    done = examined("--json", "--device", "cpu")
    assert "torch_npu cannot be imported" in only_problem(done)
    assert len(done.report["devices"]) == 1


def test_a_device_that_is_not_there(examined, choices, monkeypatch):
    choices.answer = REAL_CHOOSE
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    done = examined("--json", "--device", "cuda")
    assert "got the device 'cuda', but none found" in only_problem(done)
    assert done.report["choice"] is None
    assert done.report["weights"]["model"] == DEFAULT  # the rest is said all the same
    assert "chosen" not in examined("--device", "cuda").out


def test_a_choice_that_is_refused(examined, choices):
    choices.answer = EngineError("the engine fast cannot run here")
    assert only_problem(examined("--json")) == "the engine fast cannot run here"


# Cache and weights


def test_sizes_of_the_cache(examined, cache):
    for name, size in {"weights/a.pt": 2_000_000, "weights/deep/b.pt": 500_000, "text/t.npz": 1500}.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(size))
    (cache / "text" / "gone.npz").symlink_to(cache / "nowhere")
    found = examined("--json").report["cache"]
    assert (found["folder"], found["writable"]) == (str(cache), True)
    assert found["size_mb"] == {"weights": 2.5, "text": 0.002, "graphs": 0.0, "gate": 0.0}
    assert found["free_mb"] > 0
    assert f"cache       {cache}: weights 2.5 MB, text 0.002 MB, graphs 0 MB, gate 0 MB; " in examined().out


def test_looking_makes_nothing(examined, cache):
    assert examined("--json").report["cache"]["writable"]
    assert not cache.exists()
    assert list(cache.parent.iterdir()) == []


def test_a_cache_that_cannot_be_written(examined, cache):
    cache.write_text("a file where a folder should be")
    done = examined("--json")
    assert only_problem(done).startswith(f"{cache}: cannot be written (Not a directory), so nothing can be kept")
    assert "WINSPECT_CACHE" in only_problem(done)
    assert not done.report["cache"]["writable"]
    assert "cannot be written" in examined().out


def test_a_part_of_the_cache_that_cannot_be_written(examined, cache):
    """As after one run with sudo: the cache is one's own, a folder in it is not."""
    cache.mkdir()
    (cache / "weights").write_text("")
    assert only_problem(examined("--json")).startswith(f"{cache / 'weights'}: cannot be written")


def test_the_default_weights(examined, cache):
    path = cache / "weights" / DEFAULT_FILE
    absent = {"model": DEFAULT, "tag": "laion400m_e31", "path": str(path), "size_mb": None}
    assert examined("--json").report["weights"] == absent
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(3_000_000))
    assert examined("--json").report["weights"] == {**absent, "size_mb": 3.0}
    assert f"weights     {DEFAULT} laion400m_e31: {path}, 3.0 MB" in examined().out.splitlines()


def test_the_model_by_option_and_by_variable(examined, monkeypatch):
    monkeypatch.setenv("WINSPECT_MODEL", "winspect-tiny")
    assert examined("--json").report["weights"]["tag"] == "bundled"
    assert examined("--json").report["weights"]["size_mb"] > 1
    assert examined("--json", "--model", DEFAULT).report["weights"]["model"] == DEFAULT


def test_a_package_without_its_model(examined, monkeypatch, tmp_path):
    from winspect.weights import configs

    shutil.copy(configs.BUNDLED_FOLDER / configs.BUNDLED_CONFIG, tmp_path)
    monkeypatch.setattr(configs, "BUNDLED_FOLDER", tmp_path)
    assert "model.safetensors: not found; the package is not complete" in only_problem(
        examined("--json", "--model", "winspect-tiny")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.pt"], "nowhere.pt: no such weights file"),
        (["--model", "ViT-Z"], "unknown model 'ViT-Z'"),
        (["--model", "ViT-B-16", "--weights", "nonesuch"], "neither a pretrained tag of ViT-B-16 nor a file"),
    ],
)
def test_weights_that_cannot_be_had(arguments, message, examined):
    done = examined("--json", *arguments)
    assert message in only_problem(done)
    assert done.report["weights"] is None
