"""From what the workers of a benchmark measured to ``benchmark.json``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np

from winspect.speed.plans import PLANS, SERIAL, Combination
from winspect.system.machine import describe_machine, versions

SCHEMA = 1
SCENARIOS = {"images_per_s": "offline", "latency_ms": "single-stream"}
"""MLPerf's names for how the figures were made: all pictures at once, or each waited for before the next."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Survey:
    """What is known before anything is measured.

    Attributes:
        tiles: of each picture that can be used, in recipe ``tiles``. ``failed``: why the others cannot.
        flops_per_tile: of the matrix products: ``image`` alone, and with all ``windows``.
        layer: ``width``, ``hidden`` and ``rows`` of the matrix products that the machine is measured with.
    """

    model: str
    weights: str | None
    weights_sha256: str
    device: str
    tiles: dict[str, int]
    failed: dict[str, str]
    flops_per_tile: dict[str, int]
    layer: dict[str, Any]


@dataclass
class Measured:
    """One combination: the worker's description when it was loaded, and its figures of every round."""

    combination: Combination
    described: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Images/s, round by round."""
        return [figures["images_per_s"] for figures in self.rounds]

    @property
    def rate(self) -> float:
        """Images/s, the median over the rounds."""
        return statistics.median(self.rates)

    @property
    def is_torch_fp32(self) -> bool:
        """Whether it is what others are compared with."""
        return (self.described["engine"], self.described["precision"]) == ("torch", "fp32")


def gemm_rates(products: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """GFLOP/s of each precision: the median of the fastest engine and size. fp32 and bf16 are always named."""
    rates: dict[str, float | None] = {"fp32": None, "bf16": None}
    for product in products:
        if product["gflops"]:
            rate, best = statistics.median(product["gflops"]), rates.get(product["precision"])
            rates[product["precision"]] = rate if best is None else max(rate, best)
    return rates


def baseline_of(measured: Sequence[Measured]) -> Measured | None:
    """What speed-ups are relative to: ``serial`` in torch fp32, else the first ``serial``; None without one."""
    serial = [candidate for candidate in measured if candidate.combination.plan == SERIAL]
    return next((candidate for candidate in serial if candidate.is_torch_fp32), serial[0] if serial else None)


def make_results(
    survey: Survey,
    measured: Sequence[Measured],
    failures: Sequence[Mapping[str, Any]],
    products: Sequence[Mapping[str, Any]],
    *,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``benchmark.json`` holds.

    ``plans`` has, of each plan, the run with the most images/s; ``runs`` has all. Speed-ups are medians of the ratios
    of the same round. A roofline fraction is the FLOPs of the matrix products of a picture times images/s, over the
    machine's own rate of matrix products in that precision. What is not known is null.
    """
    baseline, rates = baseline_of(measured), gemm_rates(products)
    runs = [_run(entry, survey, rates, baseline, measured) for entry in measured]
    baseline_run = next((run for run, entry in zip(runs, measured, strict=True) if entry is baseline), None)
    best: dict[str, dict[str, Any]] = {}
    for run in sorted(runs, key=lambda run: -run["images_per_s"]):
        best.setdefault(run["plan"], run)
    fastest = {name: best[name] for name in PLANS if name in best}
    return {
        "schema": SCHEMA,
        "winspect": versions()["winspect"],
        "machine": describe_machine(survey.device),
        "model": survey.model,
        "weights": survey.weights,
        "weights_sha256": survey.weights_sha256,
        "recipe": runs[0]["recipe"] if runs else None,
        **asked,
        "scenarios": SCENARIOS,
        "pictures": {"names": [Path(name).name for name in survey.tiles], "tiles": list(survey.tiles.values())},
        "baseline": baseline_run and {key: baseline_run[key] for key in ("plan", "engine", "precision")},
        "plans": {
            name: {key: run[key] for key in run if key not in ("plan", "rounds")} for name, run in fastest.items()
        },
        "gemm_gflops": {name: rate and round(rate, 1) for name, rate in rates.items()},
        "roofline_fraction": {name: run["roofline_fraction"] for name, run in fastest.items()},
        "runs": runs,
        "failed": list(failures),
        "failed_pictures": [{"path": path, "message": message} for path, message in survey.failed.items()],
        "gemm": [{**product, "gflops": [round(rate, 1) for rate in product["gflops"]]} for product in products],
    }


def _run(
    entry: Measured,
    survey: Survey,
    rates: Mapping[str, float | None],
    baseline: Measured | None,
    measured: Sequence[Measured],
) -> dict[str, Any]:
    images = len(survey.tiles)
    tiles = sum(survey.tiles.values()) if PLANS[entry.combination.plan].recipe == "tiles" else images
    flops = survey.flops_per_tile["windows" if entry.described["maps"] else "image"] * tiles / images
    # The rate is that of one device; where engines run on different ones, it says nothing about the others.
    gemm = rates.get(entry.described["precision"]) if entry.described["device"] == survey.device else None
    latency = [value for figures in entry.rounds for value in figures["latency_ms"]]
    # Nearest ranks, so that each is a latency that was measured, as in MLPerf.
    percentiles = np.percentile(latency, PERCENTILES, method="inverted_cdf").tolist()
    peaks = [figures["peak_rss_mb"] for figures in entry.rounds if figures["peak_rss_mb"] is not None]
    return {
        "plan": entry.combination.plan,
        **{name: entry.described[name] for name in ("engine", "precision")},
        "asked": {"engine": entry.combination.engine, "precision": entry.combination.precision},
        **{key: entry.described[key] for key in ("device", "recipe", "maps", "batch_size", "note")},
        "images": images,
        "tiles": tiles,
        "images_per_s": round(entry.rate, 4),
        "latency_ms": {f"p{percent}": round(ms, 2) for percent, ms in zip(PERCENTILES, percentiles, strict=True)},
        "peak_rss_mb": round(max(peaks), 1) if peaks else None,
        "speedup_vs_serial": baseline and round(statistics.median(map(truediv, entry.rates, baseline.rates)), 4),
        "gflop_per_image": round(flops / 1e9, 3),
        "roofline_fraction": gemm and round(flops / 1e9 * entry.rate / gemm, 4),
        "score_max_difference": _difference(entry, measured),
        "rounds": [
            {
                "images_per_s": round(figures["images_per_s"], 4),
                "latency_ms": [round(value, 2) for value in figures["latency_ms"]],
            }
            for figures in entry.rounds
        ],
    }


def _difference(entry: Measured, measured: Sequence[Measured]) -> float | None:
    """Largest difference of scores from those of torch fp32 in the same recipe; None where that was not measured."""
    recipe = entry.described["recipe"]
    same = (other for other in measured if other.described["recipe"] == recipe and other.is_torch_fp32)
    reference = next(same, None)
    if reference is None:
        return None
    return max(abs(a - b) for a, b in zip(entry.rounds[0]["scores"], reference.rounds[0]["scores"], strict=True))
