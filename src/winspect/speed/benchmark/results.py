"""From what the workers measured to ``benchmark.json``."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winspect.speed.benchmark.plans import PLANS, SERIAL, Combination
from winspect.system.files import make_folder, replacing
from winspect.system.machine import describe_machine, versions

SCHEMA = 1
RESULTS_FILE, CHART_FILE = "benchmark.json", "benchmark.svg"
SCENARIOS = {"images_per_s": "offline", "latency_ms": "single-stream"}
"""MLPerf's names for how the figures were made: all pictures at once, or each waited for before the next."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Survey:
    """What was known before anything was measured.

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
    """One combination: what the worker said when it was loaded, and about every round."""

    combination: Combination
    described: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Images/s, round by round."""
        return [own["images_per_s"] for own in self.rounds]

    @property
    def rate(self) -> float:
        """Images/s, the median over the rounds."""
        return statistics.median(self.rates)

    @property
    def is_torch_fp32(self) -> bool:
        """Whether it is what others are compared with."""
        return (self.described["engine"], self.described["precision"]) == ("torch", "fp32")


@dataclass(frozen=True)
class Failure:
    """A combination that could not be measured to the end."""

    combination: Combination
    kind: str
    message: str
    rounds_done: int


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed: one that was measured, as in MLPerf.

    >>> percentile([40, 10, 30, 20], 50), percentile([40, 10, 30, 20], 51)
    (20, 30)
    """
    return sorted(values)[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def gemm_rates(products: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """GFLOP/s of each precision: the median of the fastest engine and size. fp32 and bf16 are always named."""
    rates: dict[str, float | None] = {"fp32": None, "bf16": None}
    for product in products:
        if product["gflops"]:
            own, best = statistics.median(product["gflops"]), rates.get(product["precision"])
            rates[product["precision"]] = own if best is None else max(own, best)
    return rates


def baseline_of(measured: Sequence[Measured]) -> Measured | None:
    """What speed-ups are relative to: ``serial`` in torch fp32, else the first ``serial``; None without one."""
    serial = [own for own in measured if own.combination.plan == SERIAL]
    return next((own for own in serial if own.is_torch_fp32), serial[0] if serial else None)


def make_results(
    survey: Survey,
    measured: Sequence[Measured],
    failures: Sequence[Failure],
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
    runs = [_run(own, survey, rates, baseline, measured) for own in measured]
    names = [name for name in PLANS if any(run["plan"] == name for run in runs)]
    fastest = {
        name: max((run for run in runs if run["plan"] == name), key=lambda run: run["images_per_s"]) for name in names
    }
    recipes = list(dict.fromkeys(run["recipe"] for run in runs))
    return {
        "schema": SCHEMA,
        "winspect": versions()["winspect"],
        "machine": describe_machine(survey.device),
        "model": survey.model,
        "weights": survey.weights,
        "weights_sha256": survey.weights_sha256,
        "recipe": recipes[0] if recipes else None,
        **asked,
        "scenarios": SCENARIOS,
        "pictures": {"names": [Path(name).name for name in survey.tiles], "tiles": list(survey.tiles.values())},
        "baseline": baseline and _name(baseline),
        "plans": {
            name: {key: run[key] for key in run if key not in ("plan", "rounds")} for name, run in fastest.items()
        },
        "gemm_gflops": {name: rate and round(rate, 1) for name, rate in rates.items()},
        "roofline_fraction": {name: run["roofline_fraction"] for name, run in fastest.items()},
        "runs": runs,
        "failed": [_failed(failure) for failure in failures],
        "failed_pictures": [{"path": path, "message": message} for path, message in survey.failed.items()],
        "gemm": [{**product, "gflops": [round(rate, 1) for rate in product["gflops"]]} for product in products],
    }


def _name(own: Measured) -> dict[str, str]:
    return {"plan": own.combination.plan, "engine": own.described["engine"], "precision": own.described["precision"]}


def _failed(failure: Failure) -> dict[str, Any]:
    own = failure.combination
    error = {"type": failure.kind, "message": failure.message}
    names = {"plan": own.plan, "engine": own.engine, "precision": own.precision}
    return {**names, "rounds_done": failure.rounds_done, "error": error}


def _run(
    own: Measured,
    survey: Survey,
    rates: Mapping[str, float | None],
    baseline: Measured | None,
    measured: Sequence[Measured],
) -> dict[str, Any]:
    tiled = PLANS[own.combination.plan].recipe == "tiles"
    images = len(survey.tiles)
    tiles = sum(survey.tiles.values()) if tiled else images
    flops = survey.flops_per_tile["windows" if own.described["maps"] else "image"] * tiles / images
    # The rate is that of one device; where engines run on different ones, it says nothing about the others.
    gemm = rates.get(own.described["precision"]) if own.described["device"] == survey.device else None
    latency = [value for each in own.rounds for value in each["latency_ms"]]
    peaks = [each["peak_rss_mb"] for each in own.rounds if each["peak_rss_mb"] is not None]
    return {
        **_name(own),
        "asked": {"engine": own.combination.engine, "precision": own.combination.precision},
        **{key: own.described[key] for key in ("device", "recipe", "maps", "batch_size", "note")},
        "images": images,
        "tiles": tiles,
        "images_per_s": round(own.rate, 4),
        "latency_ms": {f"p{percent}": round(percentile(latency, percent), 2) for percent in PERCENTILES},
        "peak_rss_mb": round(max(peaks), 1) if peaks else None,
        "speedup_vs_serial": None if baseline is None else round(_ratio(own.rates, baseline.rates), 4),
        "gflop_per_image": round(flops / 1e9, 3),
        "roofline_fraction": gemm and round(flops / 1e9 * own.rate / gemm, 4),
        "score_max_difference": _difference(own, measured),
        "rounds": [
            {
                "images_per_s": round(each["images_per_s"], 4),
                "latency_ms": [round(value, 2) for value in each["latency_ms"]],
            }
            for each in own.rounds
        ],
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _difference(own: Measured, measured: Sequence[Measured]) -> float | None:
    """How far the scores are from those of torch fp32 in the same recipe; None where that was not measured."""
    same = (other for other in measured if other.described["recipe"] == own.described["recipe"] and other.is_torch_fp32)
    reference = next(same, None)
    if reference is None:
        return None
    return max(abs(a - b) for a, b in zip(own.rounds[0]["scores"], reference.rounds[0]["scores"], strict=True))


def write_results(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``benchmark.json`` and the chart; returns both.

    Raises:
        OutputError: they cannot be written.
    """
    from winspect.speed.speed_chart import speed_chart

    make_folder(out)
    texts = {RESULTS_FILE: json.dumps(results, indent=2) + "\n", CHART_FILE: speed_chart(results)}
    for name, text in texts.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [out / name for name in texts]
