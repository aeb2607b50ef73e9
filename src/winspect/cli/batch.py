"""Score any number of pictures, on one machine or a Ray cluster.

Score any number of pictures into Parquet shards, on this machine or on a Ray cluster. Every input becomes exactly one
row, also after a kill: the same command with --resume does the rest.

exit codes: 0 done; 2 usage error; 3 done, but some pictures failed (each named in its row)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from winspect.cli.common import Exit, check_bundle_alone, good_samples, model_options, print_result, when_interrupted
from winspect.cli.decisions import (
    add_decision_options,
    check_decision_options,
    check_regions,
    load_calibration,
    rule_of,
)
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.cli.product_options import mark_of, use_product
from winspect.system.terminal import show


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = "folders, globs and pictures; manifests (.parquet, .csv, .jsonl); URIs of any of them, such as s3://..."
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=what)
    add_decision_options(parser)
    cluster = parser.add_argument_group("cluster")
    add_options(cluster, "--address", "--pool")
    # Its earlier name here; with every other verb --workers are threads that decode.
    add_option(cluster, "--workers", "N|MIN-MAX", "earlier name of --pool, still accepted", dest="pool")
    threads = "threads of each process that decode and resize (default: one per core that it has, at most 8)"
    add_option(cluster, "--decode-threads", "N", threads)
    add_option(cluster, "--dashboard", None, "without a cluster: start Ray's dashboard too, and print its address")
    results = parser.add_argument_group("results")
    add_option(results, "--out", "DEST", "folder or URI of the Parquet shards", required=True)
    kept = "keep maps: on the patch grid, in the shards; as heat maps over the pictures (PNG); or both"
    add_option(results, "--maps", "none|arrays|overlays|both", kept, default="none")
    add_option(results, "--shard-rows", "N", "inputs per shard (default: a thousandth of all)")
    add_option(results, "--resume", None, "go on with the run in --out")
    add_run_options(parser, bundle=True, threads=False)


def run(args: argparse.Namespace) -> int:
    """Score the pictures; returns the exit code."""
    use_product(args)
    calibration = load_calibration(args)
    check_decision_options(args, calibration)
    check_regions(args, calibration)
    if args.bundle is None:
        options = model_options(args)
    else:
        check_bundle_alone(args)
        options = {"bundle": str(args.bundle)}
    rule = rule_of(args, calibration)
    references = [str(path) for path in good_samples(args)]
    with when_interrupted(f"go on with what is in {args.out}: --resume"):
        from winspect.cluster import batch

        summary = batch(
            args.sources,
            args.out,
            class_name=args.category_name,
            address=args.address,
            workers=args.pool,
            decode_threads=args.decode_threads,
            device=options.pop("device", "auto"),
            references=references,
            shots=args.shots,
            threshold=rule.threshold,
            calibration=calibration,
            regions=rule.regions,
            verdicts=rule.verdicts,
            rules=rule.rules,
            stretch=args.stretch,
            product=mark_of(args),
            maps=args.maps,
            shard_rows=args.shard_rows,
            resume=args.resume,
            progress=True,
            dashboard=args.dashboard,
            verbose=args.verbose,
            **options,
        )
    print_result(args, summary, partial(_print, summary, args.out))
    return Exit.SOME_FAILED if summary["failed"] else Exit.DONE


def _print(summary: Mapping[str, Any], out: str) -> None:
    from winspect.cluster.progress import duration
    from winspect.outputs.rows import count_of_warnings

    pace = summary["pictures_per_s"]
    warned = count_of_warnings(summary["warned"])
    print(
        f"{summary['inputs']:,} pictures: {summary['judged']:,} judged, {summary['failed']:,} failed{warned}; "
        f"{summary['judged_now']:,} in {duration(summary['seconds'])}{f', {pace} pictures/s' if pace else ''}"
    )
    if summary["anomalous"] is not None:
        to_review = f"{summary['review']:,} to review, " if summary["review"] else ""
        print(f"verdicts: {summary['anomalous']:,} anomalous, {to_review}{summary['normal']:,} normal")
    if summary["scores"]:
        show("scores: " + "  ".join(f"{name} {value:.4f}" for name, value in summary["scores"].items()))
    if slowest := summary["slowest_stage"]:
        stage = summary["stages"][slowest]
        print(
            f"slowest stage: {slowest}, {stage['ms_per_picture']} ms a picture in {stage['processes']} processes, "
            f"{stage['busy']:.0%} busy"
        )
    for kind, errors in summary["errors"].items():
        show(f"{errors['count']:,} failed: {kind}, as {errors['example']['message']}")
    show(f"results: {out} ({summary['shards']:,} shards, {summary['bytes'] / 1e6:.1f} MB)")
