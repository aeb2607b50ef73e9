"""Do verdicts keep their promise, with rules and areas: ``python -m benchmarks.verdicts``.

Good pictures of a line are simulated: a score, and a map of 8 x 8 patches with bumps of random height, which follow the
score in part. 200 times a random part of them is calibrated on, and the others are new pictures, decided on by
:class:`winspect.calibration.DecisionRule`. Written to results/verdicts.json, for each set of rules: the mean share of
new good pictures that is ``anomalous``, beside ``max_false_alarms``, and that is ``review`` or ``anomalous``, beside
the rate of review. Exit code 1 when a mean is more than 0.005 above its rate.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import RESULTS, machine, write_json
from winspect import Result
from winspect.calibration import Calibration, DecisionRule, Rules, Verdicts
from winspect.calibration.areas import area_peaks
from winspect.calibration.regions import map_peak
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method
from winspect.pictures.roi import Area, Roi

RATE, REVIEW = 0.05, 0.15
SPLITS, PICTURES, CALIBRATED = 200, 300, 199
ALLOWED_EXCESS = 0.005
SIDE, PATCHES = 64, 8
ROI = Roi(
    (SIDE, SIDE),
    (
        Area(((0, 0), (SIDE, 0), (SIDE, 16), (0, 16)), name="rim"),
        Area(((0, 16), (SIDE, 16), (SIDE, SIDE), (0, SIDE)), name="face"),
    ),
)
SMALL = {"area": "< 80 px", "then": "ignore"}
LONG = {"length": "> 14 px", "then": "anomalous", "raises": True}
MANY = {"peak": "> 0.5", "count": ">= 2", "then": "review", "raises": True}
IN_RIM = {"roi": "rim", "then": "review"}
CASES: dict[str, tuple[Verdicts, list[dict[str, Any]]]] = {
    "scores alone": (Verdicts(REVIEW), []),
    "rules that lower": (Verdicts(REVIEW), [SMALL, IN_RIM]),
    "rules that raise": (Verdicts(REVIEW), [LONG, MANY]),
    "an area with a rate": (Verdicts(REVIEW, roi={"rim": 0.02}), []),
    "all of them": (Verdicts(REVIEW, roi={"rim": 0.02}), [SMALL, LONG, MANY]),
}
IDENTITY = Identity("simulated", "00", get_method("paper"), "torch", "fp32", "cpu", class_name="part")


def simulated(count: int, seed: int = 0) -> list[Result]:
    """Good pictures of a line."""
    random = np.random.default_rng(seed)
    results = []
    for number in range(count):
        heat = random.beta(2, 20, (PATCHES, PATCHES))
        for _ in range(random.poisson(0.6)):
            row, column = random.integers(0, PATCHES, 2)
            heat[row : row + random.integers(1, 3), column : column + random.integers(1, 3)] += random.beta(2, 4)
        heat = heat.clip(0, 0.99).astype(np.float32)
        score = float(np.clip(0.5 * heat.max() + 0.5 * random.beta(3, 5), 0, 1))
        box = ((0, 0, SIDE, SIDE),)
        results.append(Result(f"{number}.png", "part", score, heat[None], box, (SIDE, SIDE), roi=ROI))
    return results


def splits(results: list[Result], case: str, count: int = SPLITS) -> dict[str, Any]:
    """Calibrate on random pictures and decide on the others, ``count`` times; seeds 0, 1, 2, ..."""
    verdicts, tables = CASES[case]
    scores = np.array([result.anomaly_score for result in results])
    maxima, peaks = np.array([map_peak(result) for result in results]), [area_peaks(result) for result in results]
    shares = []
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(results))
        first, others = order[:CALIBRATED], order[CALIBRATED:]
        calibration = Calibration(
            IDENTITY,
            RATE,
            tuple(sorted(scores[first].tolist())),
            tuple(sorted(maxima[first].tolist())),
            "2026-01-01T00:00:00Z",
            area_maxima={name: tuple(sorted(peaks[number][name] for number in first)) for name in ("rim", "face")},
        )
        rule = DecisionRule(
            None, calibration, calibration.regions, verdicts=verdicts, rules=Rules.read(tables), roi=ROI
        )
        small = rule.verdicts_only()  # decides alike, without p-values
        found = [small.decide(results[number]).verdict for number in others]
        shares.append([found.count("anomalous") / len(others), 1 - found.count("normal") / len(others)])
    means, deviations = np.mean(shares, axis=0), np.std(shares, axis=0)
    return {
        "rules": Rules.read(tables).document(),
        "verdict": verdicts.document(),
        **{
            name: {"asked": asked, "mean": float(mean), "standard_deviation": float(deviation)}
            for name, asked, mean, deviation in zip(
                ("anomalous", "review or anomalous"), (RATE, REVIEW), means, deviations, strict=True
            )
        },
    }


def main() -> int:
    """The command line; 1 when a mean exceeds its rate by more than is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "verdicts.json", help="where to write figures")
    parser.add_argument("--splits", type=int, default=SPLITS, help="random splits (default: %(default)s)")
    args = parser.parse_args()
    results = simulated(PICTURES)
    cases = {}
    for case in CASES:
        cases[case] = splits(results, case, args.splits)
        figures = (f"{name} {entry['mean']:.4f} of {entry['asked']:g}" for name, entry in list(cases[case].items())[2:])
        print(f"{case}: {', '.join(figures)}", flush=True)
    excess = max(
        case[name]["mean"] - case[name]["asked"]
        for case in cases.values()
        for name in ("anomalous", "review or anomalous")
    )
    document = {
        "schema": 1,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "random_splits": args.splits,
        "calibrated_on": CALIBRATED,
        "tested_on": PICTURES - CALIBRATED,
        "largest_mean_excess": excess,
        "allowed_excess": ALLOWED_EXCESS,
        "cases": cases,
    }
    write_json(args.json, document)
    return int(excess > ALLOWED_EXCESS)


if __name__ == "__main__":
    sys.exit(main())
