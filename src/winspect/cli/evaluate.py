"""``winspect evaluate``: figures of a data set, reproducible and resumable."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import (
    EXIT_CHECK_FAILED,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    load_model,
    model_options,
)
from winspect.cli.data_sets import DRAWINGS, KINDS
from winspect.cli.options import add_model_options, add_options, add_output_options
from winspect.errors import SettingsError, SourceError
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.datasets import Dataset

_FAILURES_SHOWN = 20


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "evaluate",
        help="measure how well a data set is scored",
        description="Score a data set and write results.json, scores.csv, timing.json and report.html. The same "
        "command goes on with an interrupted run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{DRAWINGS}\n"
        "exit codes: 0 done; 1 an alarm: a category's maps are broken; 2 usage error, or nothing was scored; 3 done,\n"
        "but some pictures failed (each named)",
    )
    parser.add_argument("--dataset", required=True, metavar="KIND", help=f"what kind of data set it is: {KINDS}")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where it is (elpv, textile: default the package)")
    parser.add_argument("--categories", metavar="A,B", help="only these categories (default: all)")
    parser.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="this category alone; for a data set of one category, what its part is called in the prompts",
    )
    parser.add_argument(
        "--class-names",
        metavar="FILE|plain",
        help="what categories are called in the prompts: a table (category,name) or YAML; plain: nouns "
        "for VisA and MVTec AD that come along (default: the categories' names, as published figures have them)",
    )
    parser.add_argument(
        "--shots", type=int, metavar="K", help="reference pictures per category (default: 0, zero-shot)"
    )
    draws = parser.add_mutually_exclusive_group()
    draws.add_argument("--seed", type=int, metavar="S", help="of the draw of references (default: 0)")
    draws.add_argument("--seeds", metavar="S,S", help="several draws: means and standard deviations")
    parser.add_argument(
        "--pixel-grid",
        metavar="regions|published",
        help="how masks are reduced for pixel figures: regions loses none of their regions (default); published takes "
        "the nearest pixel, as published code does",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    results.add_argument("--overlays", action="store_true", help="write heat maps over the pictures")
    add_options(results, "--stretch", stretch="stretch the colours of heat maps to each picture")
    results.add_argument("--raw-maps", action="store_true", help="write each map as float32 .npz")
    results.add_argument("--no-report", action="store_true", help="no report.html")
    results.add_argument("--fresh", action="store_true", help="start again, whatever is in --out")
    add_options(
        parser,
        *("--address", "--pool"),
        address="score on a Ray cluster, all categories at once (default: here, one after the other)",
    )
    add_model_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate the data set; returns the exit code."""
    if args.pool is not None and args.address is None:
        raise SettingsError("--pool needs --address: it is the number of processes on a cluster")
    given: dict[str, Any] = {"shots": args.shots, "seeds": _seeds(args), "pixel_grid": args.pixel_grid}
    dataset, class_name = open_for(args.dataset, args.root, args.categories, args.class_name)
    if not dataset.select(split="test"):
        raise SourceError(f"{dataset.root}: no test pictures in {', '.join(dataset.categories)}: nothing to judge")
    if args.class_names is not None:
        from winspect.evaluation.class_names import names_for, read_class_names

        given["class_names"] = read_class_names(args.class_names)
        names_for(dataset.categories, given["class_names"])
    from winspect.evaluation.report import read_parts, write_evaluation_report
    from winspect.evaluation.run import evaluate

    try:
        with _model(args) as model:

            def report(results: dict[str, Any]) -> None:
                write_evaluation_report(args.out, results, read_parts(args.out, results), dataset, model)

            results = evaluate(
                model,
                dataset,
                args.out,
                class_name=class_name,
                overlays=args.overlays,
                stretch=args.stretch,
                raw_maps=args.raw_maps,
                fresh=args.fresh,
                progress=True,
                report=None if args.no_report else report,
                **{name: value for name, value in given.items() if value is not None},
            )
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on with what is in {args.out}")
        return EXIT_INTERRUPTED
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        from winspect.cli.tables import print_figures, print_published

        print_figures(results)
        print_published(results)
    return _report_failures(results, args.out)


@contextmanager
def _model(args: argparse.Namespace) -> Iterator[Any]:
    """The model that the options describe: in this process, or on a cluster."""
    if args.address is None:
        yield load_model(args)
        return
    from winspect.cluster.evaluating import cluster_model

    with cluster_model(args.address, pool=args.pool, verbose=args.verbose, **model_options(args)) as model:
        yield model


def open_for(
    kind: str, root: Path | None, categories: str | None, class_name: str | None
) -> tuple[Dataset, str | None]:
    """The data set with the chosen categories, and the class for its prompts where that is not the category's name.

    Raises:
        SourceError: no such data set, or no such category; says which there are.
    """
    from winspect.datasets import open_dataset

    chosen = None if categories is None else [name.strip() for name in categories.split(",") if name.strip()]
    dataset = open_dataset(kind, root, categories=chosen)
    if class_name is None:
        return dataset, None
    if class_name in dataset.categories:
        if len(dataset.categories) > 1:
            dataset = open_dataset(kind, root, categories=[class_name])
        return dataset, None
    if len(dataset.categories) == 1:
        return dataset, class_name
    raise SourceError(
        f"--class {class_name}: no such category; {dataset.root} has: {', '.join(dataset.categories)}. With one "
        "category (--categories NAME) it is the name for the prompts"
    )


def _seeds(args: argparse.Namespace) -> list[int] | None:
    if args.seeds is None:
        return None if args.seed is None else [args.seed]
    try:
        return [int(seed) for seed in args.seeds.split(",")]
    except ValueError as error:
        raise SettingsError(f"--seeds {args.seeds}: need whole numbers with commas, as in 0,1,2") from error


def _report_failures(results: Mapping[str, Any], out: Path) -> int:
    """Alarms, failed pictures and faulty masks on stderr; returns the exit code."""
    from winspect.evaluation.pixels import named_faults
    from winspect.outputs.rows import count_of_warnings

    categories = results["categories"]
    # A picture that fails for one seed fails for all: it is named once.
    failures = {
        (name, failure["path"]): failure["message"]
        for name, category in categories.items()
        for failure in category["failed"]
    }
    alarms = {name: category["alarm"] for name, category in categories.items() if category["alarm"]}
    scored = sum(category["n_normal"] + category["n_anomalous"] for category in categories.values())
    warned = count_of_warnings(sum(category["n_warned"] for category in categories.values()))
    say(f"{scored} pictures judged, {len(failures)} failed{warned}; results in {out}")
    for (name, _), message in list(failures.items())[:_FAILURES_SHOWN]:
        say(f"failed: {name}: {message}")
    if len(failures) > _FAILURES_SHOWN:
        say(f"and {len(failures) - _FAILURES_SHOWN} more, in results.json")
    for name, category in categories.items():
        if (faults := category["mask_faults"]) and category["pixel_auroc"] is not None:  # else the reason names them
            say(f"masks: {name}: {len(faults)} with a fault: {named_faults(faults)}")
    for name, category in categories.items():
        for copy in {copy["path"]: copy for copy in category["copies"]}.values():
            say(f"left out of the figures: {name}: {copy['path']}: a copy of the reference {copy['of']}")
    for name, alarm in alarms.items():
        say(f"ALARM: {name}: {alarm}. Its figures are null; do not use its maps")
    if not scored:
        say("nothing was judged: see above what failed")
        return EXIT_USAGE
    if alarms:
        return EXIT_CHECK_FAILED
    return EXIT_SOME_FAILED if failures else EXIT_DONE
