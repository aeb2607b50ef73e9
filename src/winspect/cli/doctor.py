"""``winspect doctor``: what is installed, what the machine has, what would be chosen, and what is broken."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import EXIT_CHECK_FAILED, EXIT_DONE
from winspect.cli.options import MODEL_VARIABLE
from winspect.errors import WinspectError
from winspect.system.installation import ENGINE_MODULES, engine_extra, install_command
from winspect.system.machine import MB, cpu_features, memory_mb, versions
from winspect.system.preferences import PRECISION_VARIABLE
from winspect.system.terminal import show
from winspect.weights import DEFAULT_MODEL, cache_folder

if TYPE_CHECKING:
    from winspect.weights.sources import Source

CACHE_PARTS = ("weights", "text", "graphs", "gate")

_FOR_MODELS = ("torch", "torchvision", "open_clip")

# Variables that change what is chosen, what is found, or the speed. None holds a secret.
VARIABLES = (
    MODEL_VARIABLE,
    PRECISION_VARIABLE,
    "WINSPECT_CACHE",
    "WINSPECT_DECODE_MB",
    "WINSPECT_OFFLINE",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "TASK_QUEUE_ENABLE",
    "PYTORCH_NPU_ALLOC_CONF",
    "ASCEND_LAUNCH_BLOCKING",
)

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="say what is installed, what would be chosen and what is broken, for problem reports",
        description="Print what a problem report needs: releases, processor, memory, devices, engines, what auto "
        "chooses and why, cache and weights. With the options of a call that went wrong it says what that call comes "
        "to. Nothing is fetched.",
        epilog="exit codes: 0 nothing is broken; 1 something is, named at the end; 2 wrong use",
    )
    default = f"default: ${MODEL_VARIABLE} or {DEFAULT_MODEL}"
    parser.add_argument("--model", metavar="NAME", help=f"the model whose weights to look for ({default})")
    parser.add_argument("--weights", metavar="TAG|FILE", help="which weights of the model to look for")
    parser.add_argument(
        "--device", metavar="auto|cpu|cuda|npu:0|openvino:GPU", help="where it is to run (default: auto)"
    )
    parser.add_argument("--engine", metavar="auto|torch|openvino|onnx", help="what is to run it (default: auto)")
    parser.add_argument(
        "--precision", metavar="auto|fp32|bf16|fp16|int8", help="default: what `winspect precision` says, or fp32"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the calibration of the call")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout; everything else on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine and print; returns 1 where something is broken."""
    with redirect_stdout(sys.stderr):  # some libraries greet when they are imported
        report = examine(
            args.model or os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL,
            weights=args.weights,
            options={name: getattr(args, name) for name in ("device", "engine", "precision")},
            calibration=args.calibration,
        )
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        show(*_lines(report))
    return EXIT_CHECK_FAILED if report["problems"] else EXIT_DONE


class Findings:
    """What was found on the way: problems, which somebody has to mend, and notes, which somebody may want to know."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._imports: dict[str, bool] = {}

    def can_import(self, name: str) -> bool:
        """Whether a library can be imported. Where not, what it raised becomes a problem, once."""
        if name not in self._imports:
            try:
                importlib.import_module(name)
            except Exception as error:  # a broken installation may raise anything
                said = str(error).strip() or "no reason given"
                self.problems.append(
                    f"{name} cannot be imported ({type(error).__name__}: {said.splitlines()[0]}); {_import_fix(name)}"
                )
            self._imports[name] = name in sys.modules and sys.modules[name] is not None
        return self._imports[name]

    def leave_out(self, names: Sequence[str]) -> None:
        """Libraries that are not there on purpose."""
        self._imports |= dict.fromkeys(names, False)


def _import_fix(name: str) -> str:
    if name.startswith("torch"):
        return "torch and torchvision (and torch_npu) must be of releases that belong together: install them again"
    return f"install it again: {_install_command_of(name)}"


def _install_command_of(module: str) -> str:
    engines = {needed: engine for engine, needed in ENGINE_MODULES.items()}
    return install_command(engine_extra(engines.get(module, "torch")))


def examine(
    model: str, *, weights: str | None, options: Mapping[str, str | None], calibration: Path | None
) -> dict[str, Any]:
    """Everything the verb says, ready for JSON.

    Args:
        options: ``device``, ``engine`` and ``precision``; None where not given.

    Returns:
        Sizes in MB of 10^6 bytes; null is not known. ``problems`` holds a sentence for each thing that is broken.
    """
    found = Findings()
    installed = versions()
    if not any(installed[name] for name in _FOR_MODELS):
        found.leave_out(_FOR_MODELS)
        full = f"{install_command('full')} runs models themselves"
        found.notes.append(f"no torch and no open_clip: this installation judges with edge bundles alone; {full}")
    if importlib.util.find_spec("simplejpeg") is None:
        found.notes.append("no simplejpeg: damage inside a JPEG file gives no warning; pip install simplejpeg")
    # open_clip imports torchvision, and would be blamed for it: only the first that fails is named.
    usable = all(found.can_import(name) for name in _FOR_MODELS)
    cpu = cpu_features()
    source = _source(model, weights, found) if usable else None
    report = {
        "schema": 1,
        "versions": installed | _torch_build(),
        "system": platform.platform(),
        "executable": sys.executable,
        "cpu": {"name": cpu.name, "cores": cpu.cores, "features": cpu.flags, "native_bf16": cpu.native_bf16},
        "memory_mb": memory_mb(),
        "devices": [{"device": "cpu", "name": cpu.name, "memory_mb": memory_mb()}, *_accelerators(found)],
        "engines": {name: _engine(name, found) for name in ENGINE_MODULES},
        "choice": _choice(options, calibration, model, source, found) if usable else None,
        "cache": _cache(found),
        "weights": None if source is None else _weights(source, found),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    return {**report, "notes": found.notes, "problems": found.problems}


def _torch_build() -> dict[str, str]:
    """PyTorch's release with its build (``+cpu``, ``+cu132``), which only PyTorch itself knows."""
    torch = sys.modules.get("torch")
    return {"torch": str(torch.__version__)} if torch else {}


# Engines and devices


def _engine(name: str, found: Findings) -> dict[str, Any]:
    module = ENGINE_MODULES[name]
    installed = module in sys.modules or importlib.util.find_spec(module) is not None
    usable = installed and found.can_import(module)
    return {
        "installed": installed,
        "usable": usable,
        "install": None if installed else install_command(engine_extra(name)),
    }


def _choice(
    given: Mapping[str, str | None], calibration: Path | None, model: str, source: Source | None, found: Findings
) -> dict[str, Any] | None:
    """What the options come to on this machine; None, and a problem, where they are refused."""
    from winspect.cli.doctor_choice import describe, recipe_of, resolve
    from winspect.engines.choice import choose

    try:
        options, reasons = resolve(given, calibration)
        choice = choose(options.get("engine", "auto"), options["precision"], options.get("device", "auto"))
    except WinspectError as error:
        found.problems.append(str(error))
        return None
    return describe(choice, reasons, recipe_of(options, model), source)


def _accelerators(found: Findings) -> list[dict[str, Any]]:
    if not found.can_import("torch"):
        return []
    import torch

    devices = []
    if torch.cuda.is_available():
        devices += _devices("cuda")
    elif _NVIDIA_DRIVER.exists() and torch.version.cuda is None:
        found.notes.append(f"an NVIDIA driver is here, but PyTorch {torch.__version__} was built without CUDA")
    elif _NVIDIA_DRIVER.exists():
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
    memory = [module.get_device_properties(number).total_memory // MB for number in range(module.device_count())]
    return [
        {"device": f"{kind}:{number}", "name": module.get_device_name(number), "memory_mb": size}
        for number, size in enumerate(memory)
    ]


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
    """Where and why a folder cannot be written, or made; None where it can."""
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


def _source(model: str, weights: str | None, found: Findings) -> Source | None:
    from winspect.weights import find

    try:
        return find(model, weights)
    except WinspectError as error:
        found.problems.append(str(error))
        return None


def _weights(source: Source, found: Findings) -> dict[str, Any]:
    if source.kind == "bundled" and not source.present:
        found.problems.append(f"{source.path}: not found; the package is not complete: {install_command('full')} again")
    size_mb = _megabytes(source.path.stat().st_size) if source.present else None
    return {"model": source.model, "tag": source.tag, "path": str(source.path), "size_mb": size_mb}


# The report as text


def _lines(report: Mapping[str, Any]) -> list[str]:
    shown = ""
    lines = []
    for label, text in _rows(report):
        lines.append(f"{label if label != shown else '':12}{text}".rstrip())
        shown = label
    return lines


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    releases = report["versions"]
    yield "winspect", releases["winspect"]
    yield "python", f"{releases['python']} ({report['executable']})"
    yield "system", report["system"]
    rest = {name: release for name, release in releases.items() if name not in ("winspect", "python")}
    yield "libraries", ", ".join(f"{name} {release}" for name, release in rest.items() if release)
    if absent := [name for name, release in rest.items() if not release]:
        yield "libraries", f"not installed: {', '.join(absent)}"
    yield from _cpu_rows(report["cpu"])
    for device in report["devices"]:
        yield "devices", f"{device['device']}: {_known(device['name'])}, {_known(device['memory_mb'], ' MB')}"
    for name, engine in report["engines"].items():
        state = "can be used" if engine["usable"] else "is broken" if engine["installed"] else "is not installed"
        yield "engines", f"{name} {state}" + (f": {engine['install']}" if engine["install"] else "")
    if choice := report["choice"]:
        yield "chosen", f"{choice['engine']} in {choice['precision']} on {choice['device']}, recipe {choice['recipe']}"
        yield from (("chosen", f"- {reason}") for reason in choice["reasons"])
    cache = report["cache"]
    sizes = ", ".join(f"{part} {size:g} MB" for part, size in cache["size_mb"].items())
    state = "" if cache["writable"] else ", cannot be written"
    yield "cache", f"{cache['folder']}: {sizes}; {_known(cache['free_mb'], ' MB')} free{state}"
    if weights := report["weights"]:
        fetch = f"not here yet, fetched on first use; now: winspect weights pull {weights['model']} {weights['tag']}"
        here = f"{weights['path']}, {_known(weights['size_mb'], ' MB')}"
        yield "weights", f"{weights['model']} {weights['tag']}: {fetch if weights['size_mb'] is None else here}"
    yield from (("environment", f"{name}={value}") for name, value in report["environment"].items())
    yield from (("notes", note) for note in report["notes"])
    yield from (("problems", problem) for problem in report["problems"] or ["none found"])


def _cpu_rows(cpu: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "cpu", f"{_known(cpu['name'])}, {cpu['cores']} {'core' if cpu['cores'] == 1 else 'cores'} to be used"
    for word, value in (("has", True), ("has not", False), ("not known", None)):
        if names := [name for name, has in cpu["features"].items() if has is value]:
            yield "cpu", f"{word}: {' '.join(names)}"
    native = {True: "in hardware", False: "not in hardware", None: "not known"}[cpu["native_bf16"]]
    yield "cpu", f"bf16: {native}"


def _known(value: object, unit: str = "") -> str:
    return "not known" if value is None else f"{value}{unit}"
