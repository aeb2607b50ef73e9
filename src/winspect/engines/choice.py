"""Which engine, in which precision, on which device: what was asked for, or what suits this machine, and why.

Nothing here imports an engine: whether one is installed is looked up, not tried.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from winspect.engines.devices import PRECISIONS, resolve_device
from winspect.engines.options import EngineOptions
from winspect.errors import EngineError, MissingExtraError, PrecisionError
from winspect.system.installation import ENGINE_MODULES, engine_extra, install_command, is_installed
from winspect.system.machine import cpu_features
from winspect.system.preferences import default_precision

logger = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "openvino", "onnx")

_CPU_PRECISIONS = {
    "torch": ("fp32", "bf16", "fp16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnx": ("fp32",),
}
_OPENVINO_DEVICE = "openvino:"


@dataclass(frozen=True)
class Choice:
    """How the image tower will run.

    Attributes:
        engine: ``torch``, ``openvino`` or ``onnx``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        faster_precision: what ``auto`` would rather run in, once it has passed the precision gate; None where the
            precision was asked for, or nothing faster is native here.
        device: where torch works.
        openvino_device: OpenVINO's own name of a device; ``CPU`` unless asked for.
        reasons: one sentence per decision that was not the user's.
    """

    engine: str
    precision: str
    faster_precision: str | None
    device: torch.device
    openvino_device: str
    reasons: tuple[str, ...]


def installed() -> tuple[str, ...]:
    """Engines that can be imported here."""
    return tuple(filter(is_installed, ENGINE_MODULES))


def choose_here(options: EngineOptions) -> Choice:
    """:func:`choose`; no precision is the one that was set for all runs on this machine.

    Raises:
        PrecisionError, and what :func:`choose` raises: the precision comes with where it was set.
    """
    if options.precision:
        return choose(options)
    default = default_precision()
    try:
        choice = choose(replace(options, precision=default.precision))
    except PrecisionError as error:
        raise PrecisionError(f"{error} (the precision comes from {default.source})") from error
    if default.precision is not None:
        logger.info("precision %s: from %s", default.precision, default.source)
    return choice


def choose(options: EngineOptions) -> Choice:
    """Decide what was left to decide. A device, engine or precision asked for by name is never replaced.

    On a CPU, ``auto`` takes OpenVINO, then torch: torch's fp32 matrix products do not use AVX-512 on every CPU
    (measured in docs/optimisation-log.md). On CUDA and Ascend it takes torch. Precision ``auto`` is fp32, and bf16
    where the CPU has it natively and the weights pass the gate (see :mod:`winspect.engines.gate`).

    Args:
        options: its engine is one of :data:`ENGINES`; its precision ``auto`` or one of
            :data:`~winspect.engines.devices.PRECISIONS`, None is fp32; its device as in
            :func:`~winspect.engines.devices.resolve_device`, or ``openvino:`` and OpenVINO's name of a device, such as
            ``openvino:GPU``.

    Raises:
        EngineError: an unknown engine, or one that cannot use the device.
        MissingExtraError: an engine that is not installed.
        PrecisionError: an unknown precision, one the engine or the processor does not have, or pictures to calibrate
            int8 on with another.
        DeviceError: an unknown device, or one that is not there.
    """
    engine, precision, device = options.engine, options.precision, options.device
    reasons: list[str] = []
    if engine == "auto" and isinstance(device, str) and device.startswith(_OPENVINO_DEVICE):
        engine = "openvino"
    engine = _engine_named(engine)
    torch_device, openvino_device = _devices(device, engine)
    if engine == "auto":
        engine = _best_engine(torch_device, precision, reasons)
    if torch_device.type != "cpu" and engine != "torch":
        raise EngineError(f"got engine {engine} with device {torch_device}; it runs on the CPU: use engine torch")
    on_cpu = torch_device.type == "cpu" and openvino_device == "CPU"
    faster = None
    if precision is None or precision == "auto":
        native, is_asked = _faster(engine, on_cpu=on_cpu), precision == "auto"
        reasons.append(_precision_reason(engine, native, is_asked=is_asked, on_cpu=on_cpu))
        precision, faster = "fp32", native if is_asked else None
    _check_precision(engine, precision, on_cpu=on_cpu)
    if options.int8_pictures is not None and precision != "int8":
        raise PrecisionError(
            f"got int8_pictures with precision {precision}: they calibrate int8 alone; ask for precision int8, or "
            "leave them out"
        )
    return Choice(engine, precision, faster, torch_device, openvino_device or "CPU", tuple(reasons))


def _engine_named(name: str) -> str:
    if name not in ENGINES:
        raise EngineError(f"got the engine {name!r}, need one of {', '.join(ENGINES)}")
    if name != "auto" and name not in installed():
        fix = install_command(engine_extra(name))
        raise MissingExtraError(f"engine {name} needs {ENGINE_MODULES[name]}: {fix}")
    return name


def _devices(device: str, engine: str) -> tuple[torch.device, str]:
    if not (isinstance(device, str) and device.startswith(_OPENVINO_DEVICE)):
        if device == "auto" and engine in ("openvino", "onnx"):
            return torch.device("cpu"), "CPU"
        return resolve_device(device), "CPU"
    if engine != "openvino":
        raise EngineError(f"got engine {engine} with device {device}; that device is OpenVINO's: use engine openvino")
    _engine_named("openvino")
    from winspect.engines.openvino_engine import check_openvino_device

    return torch.device("cpu"), check_openvino_device(device.removeprefix(_OPENVINO_DEVICE))


def _best_engine(device: torch.device, precision: str | None, reasons: list[str]) -> str:
    if device.type != "cpu":
        reasons.append(f"engine torch: it alone runs on {device.type}")
        return "torch"
    if "openvino" not in installed():
        fix = install_command(engine_extra("openvino"))
        reasons.append(f"engine torch: OpenVINO, which is faster on a CPU, is not installed ({fix})")
        return "torch"
    if precision == "fp16":
        reasons.append("engine torch: OpenVINO has no fp16 on a CPU")
        return "torch"
    reasons.append("engine openvino: the fastest on a CPU of those installed")
    return "openvino"


def _faster(engine: str, *, on_cpu: bool) -> str | None:
    return "bf16" if on_cpu and cpu_features().native_bf16 and "bf16" in _CPU_PRECISIONS[engine] else None


def _precision_reason(engine: str, faster: str | None, *, is_asked: bool, on_cpu: bool) -> str:
    if faster and not is_asked:
        return f"precision fp32, the default; this CPU has {faster} natively, twice as fast: see auto and {faster}"
    if faster:
        return f"precision {faster} where these weights pass the gate, as this CPU has it natively; else fp32"
    if on_cpu and _CPU_PRECISIONS[engine] == ("fp32",):
        return f"precision fp32: engine {engine} has no other"
    return f"precision fp32: {'this CPU is not known to have bf16' if on_cpu else 'ask for bf16 or fp16 by name'}"


def _check_precision(engine: str, precision: str, *, on_cpu: bool) -> None:
    if precision not in PRECISIONS:
        raise PrecisionError(f"got the precision {precision!r}, need one of auto, {', '.join(PRECISIONS)}")
    known = _CPU_PRECISIONS[engine] if on_cpu else ("fp32", "bf16", "fp16")
    if precision not in known:
        raise PrecisionError(
            f"got precision {precision} with engine {engine}{' on a CPU' if on_cpu else ''}, which runs "
            f"{', '.join(known)}; int8 needs engine openvino"
        )
    if precision == "bf16" and on_cpu and cpu_features().native_bf16 is False:
        raise PrecisionError(
            "got precision bf16, but this CPU does not have it (AVX-512-BF16, AMX-BF16 or ARM BF16); use fp32"
        )
