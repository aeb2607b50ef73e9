"""Examination of this machine for ``winspect doctor``: libraries, devices, engines, choice, cache and weights."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from winspect.cli.options import MODEL_VARIABLE
from winspect.errors import WinspectError
from winspect.system.installation import ENGINE_MODULES, engine_extra, install_command
from winspect.system.machine import MB, cpu_features, memory_mb, versions
from winspect.system.preferences import PRECISION_VARIABLE, default_precision
from winspect.weights import cache_folder

if TYPE_CHECKING:
    from winspect.engines.choice import Choice
    from winspect.methods.method import Method
    from winspect.weights.tags import Source

CACHE_PARTS = ("weights", "text", "graphs", "gate")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

# Variables that change what is chosen, what is found, or the speed. None holds a secret.
VARIABLES = (
    MODEL_VARIABLE,
    PRECISION_VARIABLE,
    *("WINSPECT_CACHE", "WINSPECT_DECODE_MB", "WINSPECT_OFFLINE", "HF_HUB_OFFLINE"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
    *("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"),
    *("TASK_QUEUE_ENABLE", "PYTORCH_NPU_ALLOC_CONF", "ASCEND_LAUNCH_BLOCKING"),
)
_FOR_MODELS = ("torch", "torchvision", "open_clip")
_CHOSEN = ("engine", "precision", "device")
Found = TypeVar("Found")


class Findings:
    """Problems, which somebody has to mend, and notes, which somebody may want to know."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._imports: dict[str, bool] = {}

    def attempt(self, work: Callable[[], Found]) -> Found | None:
        """What work gives; None, and a problem, where it is refused."""
        try:
            return work()
        except WinspectError as error:
            self.problems.append(str(error))
            return None

    def can_import(self, name: str) -> bool:
        """Whether a library can be imported. Where not, what it raised becomes a problem, once."""
        if name not in self._imports:
            try:
                importlib.import_module(name)
            except Exception as error:  # a broken installation may raise anything
                reason = (str(error).strip() or "no reason given").splitlines()[0]
                engine = {needed: engine for engine, needed in ENGINE_MODULES.items()}.get(name, "torch")
                fix = f"install it again: {install_command(engine_extra(engine))}"
                if name.startswith("torch"):
                    fix = "torch and torchvision (and torch_npu) must be of releases that belong together: install them"
                    fix += " again"
                self.problems.append(f"{name} cannot be imported ({type(error).__name__}: {reason}); {fix}")
            self._imports[name] = name in sys.modules and sys.modules[name] is not None
        return self._imports[name]


def examine(model: str, *, weights: str | None, options: dict[str, Any], calibration: Path | None) -> dict[str, Any]:
    """Examine this machine; the report is ready for JSON.

    Args:
        options: those of ``device``, ``engine`` and ``precision`` that were given.

    Returns:
        Sizes in MB of 10^6 bytes; null is not known. ``problems`` holds a sentence for each thing that is broken.
    """
    found = Findings()
    installed = versions()
    is_edge = not any(installed[name] for name in _FOR_MODELS)
    if is_edge:
        full = f"{install_command('full')} runs models themselves"
        found.notes.append(f"no torch and no open_clip: this installation runs edge bundles alone; {full}")
    if importlib.util.find_spec("simplejpeg") is None:
        found.notes.append("no simplejpeg: damage inside a JPEG file gives no warning; pip install simplejpeg")
    # open_clip imports torchvision, and would be blamed for it: only the first that fails is named.
    usable = not is_edge and all(found.can_import(name) for name in _FOR_MODELS)
    if torch := sys.modules.get("torch"):
        installed["torch"] = str(torch.__version__)  # with its build (+cpu, +cu132), which only PyTorch knows
    cpu = cpu_features()
    source = found.attempt(partial(_source, model, weights)) if usable else None
    report = {
        "schema": 1,
        "versions": installed,
        "system": platform.platform(),
        "executable": sys.executable,
        "cpu": {"name": cpu.name, "cores": cpu.cores, "features": cpu.flags, "native_bf16": cpu.native_bf16},
        "memory_mb": memory_mb(),
        "devices": [
            {"device": "cpu", "name": cpu.name, "memory_mb": memory_mb()},
            *([] if is_edge else _accelerators(found)),
        ],
        "engines": {name: _engine(name, module, found) for name, module in ENGINE_MODULES.items()},
        "choice": found.attempt(partial(_choice, options, calibration, model, source)) if usable else None,
        "cache": _cache(found),
        "weights": source and _weights(source, found),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    return {**report, "notes": found.notes, "problems": found.problems}


# Engines and devices


def _engine(name: str, module: str, found: Findings) -> dict[str, Any]:
    if module in sys.modules or importlib.util.find_spec(module) is not None:
        return {"installed": True, "usable": found.can_import(module), "install": None}
    return {"installed": False, "usable": False, "install": install_command(engine_extra(name))}


def _accelerators(found: Findings) -> list[dict[str, Any]]:
    if not found.can_import("torch"):
        return []
    import torch

    devices = []
    if torch.cuda.is_available():
        devices += _devices("cuda")
    elif NVIDIA_DRIVER.exists() and torch.version.cuda is None:
        found.notes.append(f"an NVIDIA driver is here, but PyTorch {torch.__version__} was built without CUDA")
    elif NVIDIA_DRIVER.exists():
        found.problems.append(
            f"an NVIDIA driver is here, but PyTorch, built for CUDA {torch.version.cuda}, finds no GPU: the driver may "
            "be too old, or CUDA_VISIBLE_DEVICES hides them; see what nvidia-smi says"
        )
    if versions()["torch_npu"] and found.can_import("torch_npu"):
        devices += (npus := _devices("npu"))
        if not npus:
            found.problems.append("torch_npu finds no NPU; see what npu-smi info says, and source CANN's set_env.sh")
    return devices


def _devices(kind: str) -> list[dict[str, Any]]:
    import torch

    module = getattr(torch, kind)
    return [
        {
            "device": f"{kind}:{number}",
            "name": module.get_device_name(number),
            "memory_mb": module.get_device_properties(number).total_memory // MB,
        }
        for number in range(module.device_count())
    ]


# The choice


def _choice(options: dict[str, Any], calibration: Path | None, model: str, source: Source | None) -> dict[str, Any]:
    """Resolve the options on this machine, with what they leave open filled in as a run does, and reasons.

    Raises:
        WinspectError: they are refused; or the calibration, or the default precision, cannot be read.
    """
    from winspect.engines.choice import choose
    from winspect.engines.options import EngineOptions
    from winspect.methods.registry import default_recipe, get_method

    reasons = []
    if calibration is not None:
        from winspect.calibration import Calibration

        options = Calibration.load(calibration).model_options(options)
        made_with = ", ".join(f"{name} {options[name]}" for name in ("engine", "precision") if name in options)
        reasons.append(f"{calibration} was made with recipe {options['recipe'].name}, {made_with}")
    elif "precision" not in options and (default := default_precision()).precision is not None:
        options = {**options, "precision": default.precision}
        reasons.append(f"precision {default.precision}: {default.source}")
    choice = choose(EngineOptions(**{name: options[name] for name in _CHOSEN if name in options}))
    recipe = get_method(options.get("recipe") or default_recipe(model))
    precision, reasons = choice.precision, [*reasons, *choice.reasons]
    checked = choice.faster_precision or ("int8" if precision == "int8" else None)
    if checked and source is not None:
        passed = _gate_verdict(choice, checked, recipe, source)
        if passed is None:
            reasons.append(f"the gate has not been asked of {checked} with these weights: the first run asks it")
        else:
            reasons.append(f"{checked} {'has passed' if passed else 'did not pass'} the gate with these weights")
        precision = checked if passed else precision
    return {
        "engine": choice.engine,
        "precision": precision,
        "faster_precision": choice.faster_precision,
        "device": str(choice.device) if choice.openvino_device == "CPU" else f"openvino:{choice.openvino_device}",
        "recipe": recipe.name,
        "reasons": reasons,
    }


def _gate_verdict(choice: Choice, precision: str, method: Method, source: Source) -> bool | None:
    """Whether these weights passed the gate, as far as its records say; None where it has not been asked."""
    if not source.present:
        return None
    from winspect.engines.gate import GateRecords
    from winspect.weights.cache import hash_file, remembered_sha256

    sha256 = remembered_sha256(source.path) or hash_file(source.path)
    device = f"{choice.device} {choice.openvino_device}"
    recipe = _without_temperature(method.document())
    expected = {"engine": choice.engine, "precision": precision, "device": device}
    for key, result in GateRecords(cache_folder() / "gate").all():
        same = {name: key.get(name) for name in expected} == expected
        of_weights = str(key.get("weights", "")).startswith(f"{sha256}/{source.model}/")
        if same and of_weights and _without_temperature(key.get("recipe")) == recipe:
            return result.passed
    return None


def _without_temperature(recipe: Any) -> Any:
    """A recipe's document as JSON has it, but for the temperature, which the model may bring along."""
    return json.loads(json.dumps({**recipe, "temperature": None})) if isinstance(recipe, dict) else None


# Cache and weights


def _cache(found: Findings) -> dict[str, Any]:
    folder = cache_folder()
    refusals = dict(refusal for part in CACHE_PARTS if (refusal := _refusal(folder / part)))
    found.problems += [
        f"{place}: cannot be written ({reason}), so nothing can be kept there; give yourself the right to, or set "
        "WINSPECT_CACHE to another folder"
        for place, reason in refusals.items()
    ]
    free_mb = None
    with suppress(OSError):
        free_mb = shutil.disk_usage(_nearest(folder)).free // MB
    sizes = {part: _megabytes(sum(_file_sizes(folder / part))) for part in CACHE_PARTS}
    return {"folder": str(folder), "writable": not refusals, "free_mb": free_mb, "size_mb": sizes}


def _nearest(path: Path) -> Path:
    """The path, or the innermost part of it that is there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _refusal(folder: Path) -> tuple[Path, str] | None:
    """Place and reason of a folder that cannot be written, or made; None where it can."""
    place = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return place, error.strerror or str(error)


def _file_sizes(folder: Path) -> Iterator[int]:
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # another process may remove what it wrote
                yield (Path(top) / name).lstat().st_size


def _megabytes(size_bytes: int) -> float:
    return round(size_bytes / MB, 3)


def _source(model: str, weights: str | None) -> Source:
    from winspect.weights.sources import find

    return find(model, weights)


def _weights(source: Source, found: Findings) -> dict[str, Any]:
    if source.kind == "bundled" and not source.present:
        found.problems.append(f"{source.path}: not found; the package is not complete: {install_command('full')} again")
    size_mb = _megabytes(source.path.stat().st_size) if source.present else None
    return {"model": source.model, "tag": source.tag, "path": str(source.path), "size_mb": size_mb}
