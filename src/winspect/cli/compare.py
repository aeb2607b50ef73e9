"""Compare two evaluations, or one with published figures.

Compare two evaluations category by category and picture by picture. A verdict flips when a picture is called anomalous
in one run alone, each run taking the threshold of its largest F1. Runs that were made differently, as zero-shot and
few-shot, are put side by side and not judged; with --tolerance, the gate of a script, they are refused.

exit codes: 0 every category is within the tolerance, or nothing is judged; 1 a category is not; 2 usage error, or, with
--tolerance, runs with other data, recipe or shots
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from winspect.cli.common import Exit, given, print_result
from winspect.cli.options import add_option, add_options
from winspect.errors import SettingsError


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "baseline", "BASELINE", "results.json or its folder", type=Path)
    add_option(parser, "other", "OTHER", "results.json or its folder", type=Path, nargs="?")
    add_option(parser, "--against", "NAME", "compare BASELINE with a published table instead")
    add_option(parser, "--tolerance", "FRACTION", "a gate: difference allowed, either way (default: 0.01, one point)")
    add_options(parser, "--json", "--verbose")


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    if (args.other is None) == (args.against is None):
        raise SettingsError("compare needs BASELINE and either OTHER or --against NAME")
    from winspect.cli.tables import print_comparison
    from winspect.evaluation.compare import compare_published, compare_runs, made_differently, side_by_side
    from winspect.evaluation.results import open_run

    tolerance = given(args, "tolerance")
    if args.against is not None:
        from winspect.evaluation.published import get_table

        comparison = compare_published(open_run(args.baseline), get_table(args.against), **tolerance)
    else:
        runs = open_run(args.baseline), open_run(args.other)
        is_gate = bool(tolerance) or not made_differently(*runs)
        comparison = compare_runs(*runs, **tolerance) if is_gate else side_by_side(*runs)
    print_result(args, comparison.to_json(), partial(print_comparison, comparison))
    return Exit.CHECK_FAILED if comparison.within is False else Exit.DONE
