"""Facts of this machine: processor, memory, releases. Importing this imports neither torch nor numpy.

What the system does not say is None, never a guess. Memory is in MB of 10^6 bytes throughout.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winspect._version import __version__

MB = 1_000_000

ROOT = Path("/")
"""Root of the file system in which the kernel's files are read."""

_X86 = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_ARM = ("arm_bf16", "arm_i8mm")
FLAGS = (*_X86, *_ARM)
"""Features of processors that decide what runs."""

# PyTorch spells some in its own way.
_TORCH_NAMES = {"avx512f": "avx512_f", "arm_bf16": "bf16", "arm_i8mm": "i8mm"}

_LIBRARIES = ("torch", "torchvision", "open_clip", "openvino", "onnxruntime", "nncf", "torch_npu", "numpy", "pillow")
_DISTRIBUTIONS = {
    "open_clip": ("open_clip_torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
}


@dataclass(frozen=True)
class CPUFeatures:
    """Features of a processor.

    Attributes:
        name: the maker's, such as "AMD EPYC".
        cores: logical cores this process may use: its affinity, and its container's quota rounded up.
        flags: by name, in a fixed order; True and False are what the system says, None is not known. Those of another
            architecture are False.
    """

    name: str | None
    cores: int
    flags: Mapping[str, bool | None] = field(default_factory=lambda: dict.fromkeys(FLAGS))

    @property
    def native_bf16(self) -> bool | None:
        """Whether it multiplies bfloat16 in hardware: AVX-512-BF16, AMX or ARM's BF16; None where that is not known."""
        units = [self.flags[name] for name in ("avx512_bf16", "amx_bf16", "arm_bf16")]
        return True if any(units) else None if None in units else False


def cpu_features() -> CPUFeatures:
    """This machine's processor: from the kernel on Linux, elsewhere from PyTorch, which is imported then."""
    if sys.platform.startswith("linux"):
        return _from_cpuinfo(_read("proc/cpuinfo"), usable_cores())
    return _from_torch(usable_cores())


def usable_cores() -> int:
    """Logical cores this process may use, at least 1: its affinity, and its container's quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return affinity if quota is None else min(affinity, math.ceil(quota))


def memory_mb() -> int | None:
    """Memory this process may use, in MB: the machine's, or its container's limit if that is less."""
    sizes = list(_memory_limits())
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes) // MB if sizes else None


def peak_rss_mb() -> float | None:
    """The most memory this process has held at once, in MB.

    Linux's own high-water mark is preferred to getrusage's: that one counts from the process that started this one,
    so that a small program started by a large one looks as large.
    """
    if mark := re.search(r"^VmHWM:\s*(\d+) kB", _read("proc/self/status"), re.MULTILINE):
        return int(mark[1]) * 1024 / MB
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MB  # bytes on macOS, KiB elsewhere


def current_rss_mb() -> float | None:
    """The memory this process holds now, in MB; None where /proc/self/statm is not to be had."""
    fields = _read("proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MB if len(fields) > 1 else None


def versions() -> dict[str, str | None]:
    """Releases of winspect, Python and the libraries it runs on; None where not installed. Imports none of them."""
    return {
        "winspect": __version__,
        "python": platform.python_version(),
        **{name: release_of(*_DISTRIBUTIONS.get(name, (name,))) for name in _LIBRARIES},
    }


def describe_machine(device: str) -> dict[str, Any]:
    """Describe the machine figures were measured on: system, processor, cores, memory, releases.

    Args:
        device: where the encoder ran, such as ``cpu``, ``cuda`` or ``npu:0``.
    """
    import torch

    cpu, releases = cpu_features(), versions()
    kind, _, number = device.partition(":")
    accelerator = getattr(torch, kind).get_device_name(int(number or 0)) if kind in ("cuda", "npu") else None
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cpu": cpu.name,
        "cpu_features": " ".join(name for name, has in cpu.flags.items() if has),
        "cores": cpu.cores,
        "memory_mb": memory_mb(),
        "accelerator": accelerator,
        "python": releases["python"],
        "torch": str(torch.__version__),  # with its build, which the installed package's own version leaves out
        **{name: releases[name] for name in ("open_clip", "openvino", "onnxruntime", "nncf", "torch_npu", "numpy")},
    }


def release_of(*distributions: str) -> str | None:
    """Release of the first of these distributions that is installed; None for none."""
    from importlib import metadata  # slow to import, and `winspect --help` needs none of it

    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _read(path: str | Path) -> str:
    """Read a file of the kernel's, below :data:`ROOT`; "" where there is none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# Processors


def _from_cpuinfo(text: str, cores: int) -> CPUFeatures:
    """From Linux's /proc/cpuinfo: ``flags`` on x86, ``Features`` on ARM."""
    lines: dict[str, str] = {}
    for line in text.splitlines():  # the first core stands for all: the kernel states what all of them have
        key, colon, value = line.partition(":")
        if colon:
            lines.setdefault(key.strip(), value.strip())
    name = lines.get("model name")
    for entry, features in (("flags", _X86), ("Features", _ARM)):
        if entry in lines:
            words = {f"arm_{word}" if features is _ARM else word for word in lines[entry].split()}
            flags = {feature: feature in features and feature in words for feature in FLAGS}
            return CPUFeatures(name or _arm_name(lines), cores, flags)
    return CPUFeatures(name, cores)


def _arm_name(lines: Mapping[str, str]) -> str | None:
    """ARM's kernel states numbers instead of a name."""
    maker, part = lines.get("CPU implementer"), lines.get("CPU part")
    return f"ARM implementer {maker}, part {part}" if maker and part else None


def _from_torch(cores: int) -> CPUFeatures:
    """From PyTorch, which asks the processor itself; everything is unknown without PyTorch, or with an old one."""
    try:
        import torch

        known: Mapping[str, Any] = torch.cpu.get_capabilities()
    except (ImportError, OSError, AttributeError):  # a broken installation fails with either of the first two
        return CPUFeatures(None, cores)
    features = {"x86_64": _X86, "aarch64": _ARM, "arm64": _ARM}.get(str(known.get("architecture")), FLAGS)
    flags = {name: known.get(_TORCH_NAMES.get(name, name)) if name in features else False for name in FLAGS}
    return CPUFeatures(known.get("cpu_name") or None, cores, flags)


# Limits of a container, in both versions of Linux's control groups


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders of limits on this process: its own group, and those around it."""
    folders = []
    for line in _read("proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
        group = root / path.lstrip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return folders


def _cpu_quota() -> float | None:
    """Cores' worth of time this process may use; None without a limit."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        fields = _read(folder / "cpu.max").split()
        fields = fields or [*_read(folder / "cpu.cfs_quota_us").split(), *_read(folder / "cpu.cfs_period_us").split()]
        if len(fields) == 2 and all(field.isdigit() and int(field) for field in fields):  # not "max", not -1
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def _memory_limits() -> Iterator[int]:
    """Bytes; version 1 states a number beyond any machine for no limit."""
    for folder in _cgroup_folders("memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(folder / file).strip()
            if limit.isdigit():
                yield int(limit)
