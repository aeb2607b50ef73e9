"""Measure how well a data set is scored.

Score a data set and write results.json, scores.csv, timing.json and report.html. The same command goes on with an
interrupted run.

exit codes: 0 done; 1 an alarm: a category's maps are broken; 2 usage error, or nothing was scored; 3 done,
but some pictures failed (each named)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import (
    Exit,
    given,
    model_options,
    names_in,
    parse_settings,
    print_result,
    say_first,
    when_interrupted,
)
from winspect.cli.data_sets import DRAWINGS, KINDS
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.cli.product_options import use_product
from winspect.errors import SettingsError, SourceError
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.datasets import Dataset


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{DRAWINGS}\n{parser.epilog}"
    add_option(parser, "--dataset", "KIND", f"what kind of data set it is: {KINDS}", required=True)
    add_option(parser, "--root", "DIR", "where it is (elpv, textile: default the package)")
    product = "score with the model, recipe and class of a product of `winspect product`"
    add_options(parser, "--product", product=product)
    add_option(parser, "--categories", "A,B", "only these categories (default: all)")
    class_name = "this category alone; for a data set of one category, what its part is called in the prompts"
    add_option(parser, "--class", "NAME", class_name, dest="class_name")
    add_option(
        parser,
        *("--class-names", "FILE|plain"),
        "what categories are called in the prompts: a table (category,name) or YAML; plain: nouns "
        "for VisA and MVTec AD that come along (default: the categories' names, as published figures have them)",
    )
    add_option(
        parser,
        *("--recipes", "A,B"),
        "several recipes side by side, as in memory,subspace,paper: each with those of --set that it has, its results "
        "in a folder of its name in --out; one that takes no good samples (mutual) is given none",
    )
    add_option(parser, "--shots", "K", "reference pictures per category (default: 0, zero-shot)")
    draws = parser.add_mutually_exclusive_group()
    add_option(draws, "--seed", "S", "of the draw of references (default: 0)")
    add_option(draws, "--seeds", "S,S", "several draws: means and standard deviations")
    add_option(
        parser,
        *("--pixel-grid", "regions|published"),
        "how masks are reduced for pixel figures: regions loses none of their regions (default); published takes "
        "the nearest pixel, as published code does",
    )
    results = parser.add_argument_group("results")
    add_option(results, "--out", "DIR", "folder for the results", required=True)
    add_option(results, "--overlays", None, "write heat maps over the pictures")
    add_options(results, "--stretch", stretch="stretch the colours of heat maps to each picture")
    add_option(results, "--raw-maps", None, "write each map as float32 .npz")
    add_option(results, "--no-report", None, "no report.html")
    threshold = "of `winspect calibrate`: the report counts verdicts at its threshold (default: that of the largest F1)"
    add_option(results, "--calibration", "FILE", threshold, nargs="+", default=[])
    add_option(results, "--fresh", None, "start again, whatever is in --out")
    address = "score on a Ray cluster, all categories at once (default: here, one after the other)"
    add_options(parser.add_argument_group("cluster"), "--address", "--pool", address=address)
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate the data set; returns the exit code."""
    use_product(args, model_only=True)
    if args.pool is not None and args.address is None:
        raise SettingsError("--pool needs --address: it is the number of processes on a cluster")
    options = given(args, "shots", "pixel_grid", "overlays", "stretch", "raw_maps", "fresh") | _seeds(args)
    runs = None if args.recipes is None else _runs(args, options)
    dataset, class_name = _open(args)
    if not dataset.select(split="test"):
        raise SourceError(f"{dataset.root}: no test pictures in {', '.join(dataset.categories)}: nothing to judge")
    if args.class_names is not None:
        from winspect.evaluation.class_names import names_for, read_class_names

        options["class_names"] = read_class_names(args.class_names)
        names_for(dataset.categories, options["class_names"])
    from winspect.cli.tables import print_evaluation, print_recipes

    if runs is None:
        results = _evaluate(args, dataset, class_name, options)
        print_result(args, results, partial(print_evaluation, results))
        return _report_failures(results, args.out)
    from winspect.evaluation.recipes import write_recipes

    found = {}
    for recipe, (of_recipe, shots) in runs.items():
        say(f"recipe {recipe}")
        found[recipe] = _evaluate(of_recipe, dataset, class_name, {**options, **shots})
    document = write_recipes(args.out, found)
    print_result(args, document, partial(print_recipes, found))
    codes = {_report_failures(results, args.out / recipe, recipe=recipe) for recipe, results in found.items()}
    return next(code for code in (Exit.USAGE, Exit.CHECK_FAILED, Exit.SOME_FAILED, Exit.DONE) if code in codes)


def _evaluate(
    args: argparse.Namespace, dataset: Dataset, class_name: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """One evaluation: of the model and recipe that ``args`` describe, into their folder."""
    from winspect.calibration import Calibration
    from winspect.evaluation.report import read_parts, write_evaluation_report
    from winspect.evaluation.run import evaluate

    calibrations = [Calibration.load(path) for path in args.calibration]
    names = [class_name or options.get("class_names", {}).get(name, name) for name in dataset.categories]
    _check_classes(calibrations, names)
    with when_interrupted(f"the same command goes on with what is in {args.out}"), _model(args, calibrations) as model:

        def report(results: dict[str, Any]) -> None:
            parts = read_parts(args.out, results)
            write_evaluation_report(args.out, results, parts, dataset, model, calibrations=calibrations)

        written = None if args.no_report else report
        return evaluate(model, dataset, args.out, class_name=class_name, progress=True, report=written, **options)


def _runs(args: argparse.Namespace, options: Mapping[str, Any]) -> dict[str, tuple[argparse.Namespace, dict[str, Any]]]:
    """For each of ``--recipes`` the options of its evaluation, and its shots: none for a recipe that takes none."""
    if args.recipe is not None:
        raise SettingsError(f"got --recipe {args.recipe} beside --recipes: leave one of them out")
    from winspect.evaluation.recipes import methods_of, shots_for

    methods = methods_of(names_in(args.recipes), parse_settings(args.settings or []))
    runs = {}
    for recipe, method in methods.items():
        shots = shots_for(method, options.get("shots", 0))
        alone = {"recipe": method, "settings": None, "out": args.out / recipe}
        draws = {} if shots else {"seeds": [0]}  # those of the others
        runs[recipe] = argparse.Namespace(**{**vars(args), **alone}), {"shots": shots, **draws}
    return runs


def _check_classes(calibrations: Sequence[Calibration], names: Sequence[str]) -> None:
    """Refuse a calibration of none of the categories, before minutes of scoring."""
    from winspect.methods.winclip.prompts import class_key

    for calibration in calibrations:
        if class_key(calibration.class_name) not in map(class_key, names):
            need = ", ".join(map(repr, names))
            raise SettingsError(f"--calibration: got one of the class {calibration.class_name!r}, need one of {need}")


def _model(args: argparse.Namespace, calibrations: Sequence[Calibration]) -> AbstractContextManager[Any]:
    """The model of the options, here or on a cluster; calibrations fill in what they leave open."""
    options = model_options(args, calibrations=calibrations)
    if args.address is None:
        from winspect.inspector.winclip import WinCLIP

        return nullcontext(WinCLIP(**options))
    from winspect.cluster.evaluating import cluster_model

    return cluster_model(args.address, pool=args.pool, verbose=args.verbose, **options)


def _open(args: argparse.Namespace) -> tuple[Dataset, str | None]:
    """The data set with the chosen categories, and the class for its prompts where that is not the category's name.

    Raises:
        SourceError: no such data set, or no such category; says which there are.
    """
    from winspect.datasets import open_dataset

    class_name, chosen = args.class_name, None if args.categories is None else names_in(args.categories)
    dataset = open_dataset(args.dataset, args.root, categories=chosen)
    if class_name in dataset.categories:
        return open_dataset(args.dataset, args.root, categories=[class_name]), None
    if class_name is None or len(dataset.categories) == 1:
        return dataset, class_name
    raise SourceError(
        f"--class {class_name}: no such category; {dataset.root} has: {', '.join(dataset.categories)}. With one "
        "category (--categories NAME) it is the name for the prompts"
    )


def _seeds(args: argparse.Namespace) -> dict[str, list[int]]:
    if args.seeds is None:
        return {} if args.seed is None else {"seeds": [args.seed]}
    try:
        return {"seeds": [int(seed) for seed in args.seeds.split(",")]}
    except ValueError as error:
        raise SettingsError(f"--seeds {args.seeds}: need whole numbers with commas, as in 0,1,2") from error


def _report_failures(results: Mapping[str, Any], out: Path, *, recipe: str = "") -> Exit:
    """Alarms, failed pictures and faulty masks on stderr; returns the exit code.

    Args:
        recipe: where there are several.
    """
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
    say(f"{recipe and f'{recipe}: '}{scored} pictures judged, {len(failures)} failed{warned}; results in {out}")
    say_first([f"failed: {name}: {message}" for (name, _), message in failures.items()], where=", in results.json")
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
        return Exit.USAGE
    if alarms:
        return Exit.CHECK_FAILED
    return Exit.SOME_FAILED if failures else Exit.DONE
