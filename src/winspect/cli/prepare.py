"""Make a data set ready for evaluation, or check it.

Convert a data set, count it against the official figures, and report what is missing. The source is never changed; the
same command goes on with an interrupted run.

elpv (solar cells, CC BY-NC-SA 4.0) and textile (MIT) install with the extra demo; visa (CC BY 4.0) and mvtec (CC
BY-NC-SA 4.0) are downloaded from their makers.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from winspect.cli.common import Exit, given, print_result, print_table, say_first, when_interrupted
from winspect.cli.options import add_option, add_options
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.datasets.prepare import Summary


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "dataset", "visa|mvtec|elpv|textile", "which data set it is")
    place = "where it is: its folder or tar (elpv, textile: the package)"
    add_option(parser, "--source", "DIR|TAR", place, type=Path)
    add_option(parser, "--out", "DIR", "the folder to make")
    add_option(parser, "--class", "NAME", "only these categories", dest="categories", nargs="+")
    add_option(parser, "--link", "hard|copy", "link to the source's pictures or copy them (default: copy)")
    add_option(parser, "--verify", None, "decode every picture and mask; without --out, those of the source")
    add_options(parser, "--json", "--verbose")


def run(args: argparse.Namespace) -> int:
    """Prepare the data set; returns the exit code."""
    from winspect.datasets.prepare import prepare_dataset

    options = given(args, "source", "out", "categories", "verify", "link")
    with when_interrupted("the same command goes on"):
        summary = prepare_dataset(args.dataset, progress=True, **options)
    print_result(args, summary.to_dict(), partial(_print, summary))
    _print_troubles(summary)
    return Exit.DONE if summary.is_complete else Exit.SOME_FAILED


def _print(summary: Summary) -> None:
    names = ("train_normal", "test_normal", "test_anomalous")
    rows = [["category", "train", "test good", "defective", "masks", "official"]]
    for category, row in summary.categories.items():
        official = row["official"]
        verdict = "-" if official is None else "yes" if all(row[name] == official[name] for name in names) else "no"
        rows.append([category, *(str(row[name]) for name in (*names, "masks")), verdict])
    print_table(rows)


def _print_troubles(summary: Summary) -> None:
    from winspect.pictures.formats import left_out_in_words

    troubles = [f"missing: {name}" for name in summary.missing]
    troubles += [f"left out: {name}: not where this data set has its pictures: move it" for name in summary.left_out]
    troubles += [f"failed: {row['path']}: {row['message']}" for row in summary.failed]
    say_first(troubles, where="; --json lists them all")
    done = f"{summary.written} files written, {summary.kept} were there" if summary.out else "nothing written"
    if others := left_out_in_words(summary.other_files):
        say(others)
    checked = f", {summary.verified} pictures decoded" if summary.verified else ""
    left_out = f", {len(summary.left_out)} left out" if summary.left_out else ""
    where = f"; {summary.dataset} is in {summary.out}" if summary.out else ""
    say(f"{done}{checked}, {len(summary.missing)} missing{left_out}, {len(summary.failed)} failed{where}")
