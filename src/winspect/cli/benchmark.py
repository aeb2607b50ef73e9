"""Measure how fast this machine is.

Measure plans, engines and precisions in turn on real pictures: images/s of all pictures at once (MLPerf's offline) and
latency of one after the other (single-stream), peak memory, and how much of the machine's own rate of matrix products
is reached.

plans: serial (recipe tiles, one pass per tile), tile-batch (tiles of several pictures share a pass), prefetch
(tile-batch, and the weights are prefetched to the accelerator's cache), paper (recipe paper: all windows, full maps).
exit codes: 0 done; 2 usage error; 3 done, but some combinations or pictures failed (each named)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from winspect.cli.common import finish, given, model_options, names_in, print_result, print_table, shown
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.engines.options import check_count
from winspect.errors import SettingsError
from winspect.system.files import make_folder
from winspect.system.terminal import say, show

IMAGES = 8


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    pictures = "files, folders and globs (default: fabric, of winspect[demo])"
    add_option(parser, "pictures", "PICTURE", pictures, nargs="*")
    group = parser.add_argument_group("what is measured")
    add_option(group, "--plans", "A,B", "serial, tile-batch, prefetch, paper (default: all)")
    add_option(group, "--engines", "A,B", "auto, torch, openvino, onnx (default: auto)")
    add_option(group, "--precisions", "A,B", "fp32, bf16, fp16, int8, auto (default: fp32)")
    add_option(group, "--images", "N", f"pictures, at even steps (default: {IMAGES})")
    add_option(group, "--rounds", "R", "how often everything is measured (default: 5)")
    add_option(group, "--warm-up", "W", "rounds that are run and forgotten first (default: 1)")
    add_option(group, "--maps", None, "full maps in the plans on tiles, too", default=None)
    add_option(group, "--isolate", None, "one process at a time: slower, needs least memory", default=None)
    add_options(group, "--class", category_name="what the part is called")
    add_option(parser, "--out", "DIR", "write benchmark.json and a bar chart, benchmark.svg")
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    from winspect.speed import benchmark
    from winspect.speed.charts import write_benchmark

    combinations = _combinations(args)
    pictures = _pictures(args)
    if args.out:
        make_folder(args.out)  # before minutes of work
    in_combinations = ("recipe", "engine", "precision", "plan")
    model = {name: value for name, value in model_options(args).items() if name not in in_combinations}
    options = given(args, "rounds", "warm_up", "maps", "isolate", "category_name")
    results = benchmark.run_benchmark(combinations, pictures, model=model, say=say, **options)
    written = write_benchmark(results, args.out) if args.out else []
    print_result(args, results, partial(print_benchmark, results))
    failed = [
        f"{run['plan']} {run['engine']} {run['precision']}: {run['error']['message']}" for run in results["failed"]
    ]
    failed += [f"{picture['path']}: {picture['message']}" for picture in results["failed_pictures"]]
    return finish(failed, written)


def _combinations(args: argparse.Namespace) -> list[Any]:
    """The combinations to measure.

    Raises:
        SettingsError: an unknown name, an empty list, or options that contradict each other.
    """
    from winspect.speed.plans import PLANS, check_names, combine

    if args.recipe is not None:
        raise SettingsError(f"--recipe {args.recipe}: a plan has its own recipe; use --plans paper for recipe paper")
    if args.plan is not None:
        raise SettingsError(f"--plan {args.plan}: say which plans are measured with --plans {args.plan}")
    lists = {}
    for several, single, default in (("engines", "engine", "auto"), ("precisions", "precision", "fp32")):
        names, name = getattr(args, several), getattr(args, single)
        if names is not None and name is not None:
            raise SettingsError(f"got --{several} {names} and --{single} {name}; use --{several} alone")
        lists[several] = [name or default] if names is None else names_in(names)
    plans = list(PLANS) if args.plans is None else names_in(args.plans)
    chosen = combine(plans, lists["engines"], lists["precisions"])
    from winspect.engines.choice import ENGINES
    from winspect.engines.devices import PRECISIONS  # imports torch, which takes seconds

    check_names("engines", lists["engines"], ENGINES)
    check_names("precisions", lists["precisions"], ("auto", *PRECISIONS))
    return chosen


def _pictures(args: argparse.Namespace) -> list[Path]:
    from winspect.pictures.find import at_even_steps, find_pictures
    from winspect.speed.plans import packaged_pictures

    check_count("--images", args.images)
    count = args.images or IMAGES
    found = find_pictures(args.pictures) if args.pictures else packaged_pictures()
    if args.images and len(found) < count:
        say(f"found {len(found)} pictures, fewer than the {count} asked for")
    return at_even_steps(found, count)


def print_benchmark(results: Mapping[str, Any]) -> None:
    """Print the table of all runs, and what the machine can do."""
    pictures, asked = results["pictures"], f"{results['rounds']} rounds, {results['warm_up']} to warm up"
    count = len(pictures["names"])
    show(f"{results['model']}: {count} pictures, {sum(pictures['tiles'])} tiles, {asked}", "")
    heading = ["plan", "engine", "precision", "maps", "images/s", "p50 ms", "p95 ms", "p99 ms"]
    rows = [[*heading, "x serial", "peak MB", "of GEMM"]]
    for run in results["runs"]:
        what = [run["plan"], run["engine"], run["precision"], "full" if run["maps"] else "no"]
        paces = [f"{run['images_per_s']:.3f}", *(f"{value:.1f}" for value in run["latency_ms"].values())]
        peaks = [shown(run["speedup_vs_serial"], ".2f"), shown(run["peak_rss_mb"], ".0f")]
        reached = run["roofline_fraction"]
        rows.append([*what, *paces, *peaks, shown(reached and 100 * reached, ".2f") + " %" * (reached is not None)])
    if len(rows) > 1:
        print_table(rows)
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in results["gemm_gflops"].items() if rate is not None)
    print(f"\nmatrix products of this machine, the fastest engine's: {rates or 'not measured'} GFLOP/s")
    if baseline := results["baseline"]:
        show(f"x serial: against {baseline['plan']}, {baseline['engine']} {baseline['precision']}")
    for note in dict.fromkeys(f"{run['plan']} is {run['note']}" for run in results["runs"] if run["note"]):
        show(f"- {note}")
