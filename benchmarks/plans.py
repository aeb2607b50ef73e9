"""Execution plans on recipe `tiles`, image-level scores: the best of them against `serial` in torch fp32.

    python -m benchmarks.plans [--rounds 5] [--count 8] [--json FILE]

Runs `winspect benchmark` on ViT-B-16-plus-240 with random weights, which cost what trained ones cost, and compares the
fastest run of each precision with a bar. Exits with 1 when a bar is missed or a combination fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, machine, random_weights, write_json
from winspect.cli.benchmark import print_benchmark
from winspect.pictures.find import find_pictures
from winspect.speed.benchmark import run_benchmark
from winspect.speed.plans import combine

MODEL, SEED = "ViT-B-16-plus-240", 0
FASTER = {"fp32": 2.4, "bf16": 5.0}
"""Times the images/s of `serial` in torch fp32 that the fastest run of a precision must reach."""
BASELINE = {"plan": "serial", "engine": "torch", "precision": "fp32"}


def reached_bars(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The fastest run on recipe `tiles` of each precision that has a bar, and whether it reaches it.

    Of a precision that was not measured, or without the baseline, there is nothing to say.
    """
    found: dict[str, dict[str, Any]] = {}
    if results["baseline"] != BASELINE:
        return found
    for precision, bar in FASTER.items():
        own = [run for run in results["runs"] if run["recipe"] == "tiles" and run["precision"] == precision]
        if own:
            best = max(own, key=lambda run: run["speedup_vs_serial"])
            names = {name: best[name] for name in ("plan", "engine", "speedup_vs_serial", "score_max_difference")}
            found[precision] = {"bar": bar, **names, "reached": best["speedup_vs_serial"] >= bar}
    return found


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `command` repeats it without the folders of this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", default="serial,tile-batch")
    parser.add_argument("--engines", default="torch,openvino")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--pictures", type=Path, default=ROOT / "examples" / "textile", help="folder of pictures")
    parser.add_argument("--count", type=int, default=8, help="how many of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--maps", action="store_true", help="full maps instead of image-level scores")
    parser.add_argument("--weights", type=Path, help=f"of {MODEL}; default: random ones")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    given = {name: getattr(args, name) for name in ("plans", "engines", "precisions", "count", "rounds", "device")}
    flags = [f"--{name} {value}" for name, value in given.items()] + ["--maps"] * args.maps
    args.command = " ".join(["python -m benchmarks.plans", *flags])
    return args


def measure(args: argparse.Namespace, weights: Path) -> dict[str, Any]:
    """The whole report."""
    facts = machine(args.device)
    names = (getattr(args, name).split(",") for name in ("plans", "engines", "precisions"))
    results = run_benchmark(
        combine(*names),
        find_pictures(args.pictures)[: args.count],
        model={"model": MODEL, "weights": str(weights), "device": args.device},
        rounds=args.rounds,
        maps=args.maps,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    results["weights"] = results["weights"] if args.weights else f"random, seed {SEED}"
    return {
        "machine": results.pop("machine") | {"load_average_before": facts["load_average_before"]},
        "command": args.command,
        "bars": reached_bars(results),
        "benchmark": results,
    }


def main() -> int:
    """Measure, print the table, write JSON if asked, and say which bar was missed."""
    args = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(args, args.weights or random_weights(MODEL, Path(folder), seed=SEED))
    print_benchmark(report["benchmark"])
    for precision, own in report["bars"].items():
        verdict = "reached" if own["reached"] else "MISSED"
        print(f"{precision}: {own['plan']} {own['engine']}, {own['speedup_vs_serial']}x, bar {own['bar']}x: {verdict}")
    for failure in report["benchmark"]["failed"]:
        print(f"failed: {failure['plan']} {failure['engine']} {failure['precision']}: {failure['error']['message']}")
    write_json(args.json, report)
    return 1 if report["benchmark"]["failed"] or not all(own["reached"] for own in report["bars"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
