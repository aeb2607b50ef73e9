"""What benchmarks share: facts of the machine, jobs in turn, medians, random weights, JSON."""

from __future__ import annotations

import json
import os
import runpy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from winspect.system.machine import describe_machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
"""Where the figures lie that the documents name."""


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine, and how busy it was before anything was measured."""
    load = [round(figure, 2) for figure in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {**describe_machine(device), "load_average_before": load}


def timed(job: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[Any, float]:
    """The value of a job, and the seconds it took."""
    began = clock()
    value = job()
    return value, clock() - began


def in_turn(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each job, round by round: what else the machine does hits all alike.

    Every other round runs them in the reverse order; ``warm_up`` rounds are run first and forgotten.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(warm_up + rounds):
        for name in list(jobs)[:: 1 if number % 2 else -1]:
            seconds[name].append(timed(jobs[name], clock)[1])
    return {name: taken[warm_up:] for name, taken in seconds.items()}


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster, the median over ratios within a round."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def random_weights(architecture: str, folder: Path, *, seed: int = 0) -> Path:
    """A file of random weights of an architecture, as the tests make them; they cost what trained ones cost."""
    return runpy.run_path(str(ROOT / "tests" / "checkpoints.py"))["save_checkpoint"](architecture, folder, seed=seed)


def write_json(path: Path | None, report: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write a report, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(report, indent=indent) + "\n", encoding="utf-8")
