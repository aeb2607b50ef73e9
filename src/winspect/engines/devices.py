"""Devices and precisions by name."""

from __future__ import annotations

import importlib.util
import logging
import re

import torch

from winspect.errors import DeviceError, MissingExtraError, PrecisionError
from winspect.system.installation import install_command

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _has_npu() -> bool:
    return importlib.util.find_spec("torch_npu") is not None


def _auto() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    if _has_npu():
        import torch_npu  # noqa: F401  (registers the device)

        if getattr(torch, "npu").is_available():  # noqa: B009  (torch_npu adds it)
            return torch.device("npu:0")
    return torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``npu:0`` ... to a device that is there.

    ``auto`` takes the first NVIDIA GPU, else the first Ascend NPU, else the CPU, and logs which. A device asked for
    by name is never replaced by another.

    Raises:
        DeviceError: an unknown name, or a device that is not there.
        MissingExtraError: an NPU without ``torch_npu``.
    """
    if name == "auto":
        device = _auto()
        logger.info("device auto: %s", device)
        return device
    match = re.fullmatch(r"(cpu|cuda|npu)(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None or (match[1] == "cpu" and match[2]):
        raise DeviceError(f"got the device {name!r}, need auto, cpu, cuda, cuda:N or npu:N")
    kind, number = match[1], int(match[2] or 0)
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "npu" and not _has_npu():
        raise MissingExtraError(f"device {name} needs torch_npu: {install_command('ascend')}, or use --device cpu")
    if kind == "npu":
        import torch_npu  # noqa: F401
    count = getattr(torch, kind).device_count()
    if number >= count:
        found = f"{count} found" if count else "none found"
        raise DeviceError(f"got the device {name!r}, but {found} on this machine; use --device auto or cpu")
    return torch.device(kind, number)


def dtype_of(precision: str) -> torch.dtype:
    """``fp32``, ``bf16`` or ``fp16`` to torch's dtype.

    Raises:
        PrecisionError: unknown, or not one of torch's.
    """
    if precision == "int8":
        raise PrecisionError("precision int8 is not available in the torch engine; use fp32, bf16 or fp16")
    if precision not in _DTYPES:
        raise PrecisionError(f"got the precision {precision!r}, need one of {', '.join(_DTYPES)}")
    return _DTYPES[precision]
