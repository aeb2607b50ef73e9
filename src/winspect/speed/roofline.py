"""Rates of each operator class, and which of the machine's limits binds it.

The roofline model (Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009): work of F operations
that moves B bytes takes at least F / (rate of matrix products) and at least B / (memory bandwidth); the longer of
the two binds. Operands that stay in a cache move faster than memory does, so that a class can beat its own limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from winspect.engines.timing import synchronize
from winspect.speed.flops import ELEMENT_BYTES, LINEAR, Work

COMPUTE, MEMORY = "compute", "memory"

_TRIAD_ARRAYS = 3
_SMALLEST_ARRAY_BYTES = 128 << 20
_CACHES_PER_ARRAY = 4  # STREAM's own rule: each array at least four times the caches
_CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Limits:
    """What the machine can do at most, as measured here.

    Attributes:
        gemm_gflops: matrix products, 10^9 operations a second; None where they could not be measured.
        memory_gbyte_s: memory read and written, 10^9 bytes a second; None where it could not be measured.
    """

    gemm_gflops: float | None
    memory_gbyte_s: float | None

    def least_ms(self, flops: float, moved_bytes: float) -> tuple[float | None, str | None]:
        """The least time that work can take, and the limit that sets it."""
        if self.gemm_gflops is None or self.memory_gbyte_s is None:
            return None, None
        computing, moving = flops / self.gemm_gflops / 1e6, moved_bytes / self.memory_gbyte_s / 1e6
        return (computing, COMPUTE) if computing > moving else (moving, MEMORY)


def class_figures(
    seconds: Mapping[str, float],
    work: Mapping[str, Work],
    limits: Limits,
    *,
    precision: str,
    tiles_per_picture: float,
    tiles_per_pass: float,
) -> dict[str, dict[str, Any]]:
    """The figures of every operator class, per picture.

    Args:
        seconds: of each class, per picture.
        work: of each class, per tile.
        tiles_per_pass: that share the reading of weights.

    Returns:
        By class: ``ms``, the time spent, and ``share``, its part of all classes' time, 0 to 1; ``gflop`` and ``gbyte``,
        10^9 operations, and 10^9 bytes read or written; ``gflop_s`` and ``gbyte_s``, what was reached, None where no
        time was spent; ``limit_ms``, the least time the machine's limits allow, and ``bound``, the limit that sets it,
        "compute" or "memory", None where a rate is not known.
    """
    figures = {}
    for name, spent in seconds.items():
        flops = work[name].flops * tiles_per_picture
        # In int8 the matrix products alone run in int8; everything between them is float32.
        size = ELEMENT_BYTES["fp32" if precision == "int8" and name != LINEAR else precision]
        moved = work[name].moved_bytes(batch=tiles_per_pass, element_bytes=size) * tiles_per_picture
        limit_ms, bound = limits.least_ms(flops, moved)
        figures[name] = {
            "ms": spent * 1e3,
            "share": spent / sum(seconds.values()),
            "gflop": flops / 1e9,
            "gbyte": moved / 1e9,
            "gflop_s": flops / spent / 1e9 if spent else None,
            "gbyte_s": moved / spent / 1e9 if spent else None,
            "limit_ms": limit_ms,
            "bound": bound,
        }
    return figures


def measure_bandwidth(
    device: torch.device,
    *,
    repetitions: int = 5,
    array_bytes: int | None = None,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Memory bandwidth in 10^9 bytes a second: STREAM's triad, a = b + 3 c, the best of several.

    Counted as STREAM does: two arrays read, one written (McCalpin, 1995).

    Args:
        array_bytes: of each of the three arrays; None for 128 MiB, or more where the caches are large.
        clock: in seconds.
    """
    numbers = (array_bytes or max(_SMALLEST_ARRAY_BYTES, _CACHES_PER_ARRAY * last_cache_bytes())) // 4
    b, c = (torch.full((numbers,), value, device=device) for value in (1.0, 2.0))
    a = torch.empty_like(b)
    best = float("inf")
    for _ in range(repetitions + 1):  # the first fetches a's pages
        synchronize(device)
        began = clock()
        torch.add(b, c, alpha=3, out=a)
        synchronize(device)
        best = min(best, clock() - began)
    return _TRIAD_ARRAYS * 4 * numbers / best / 1e9


def last_cache_bytes(folder: Path = _CACHE_FOLDER) -> int:
    """Of the CPU's last cache, or 0 where the system does not say in this folder."""
    sizes = [file.read_text().strip() for file in folder.glob("index*/size")]
    return max((int(size[:-1]) << 10 for size in sizes if size[:-1].isdigit() and size.endswith("K")), default=0)
