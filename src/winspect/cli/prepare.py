"""``winspect prepare``: make a data set ready for evaluation, or check it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from winspect.cli.common import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED
from winspect.cli.options import add_output_options
from winspect.system.terminal import say, show

if TYPE_CHECKING:
    from winspect.datasets.prepare import Summary

_LINES_SHOWN = 20


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "prepare",
        help="make a data set ready for evaluation, or check it",
        description="Convert a data set, count it against the official figures, and report what is missing. The source "
        "is never changed; the same command goes on with an interrupted run.",
        epilog="elpv (solar cells, CC BY-NC-SA 4.0) and textile (MIT) install with the extra demo; "
        "visa (CC BY 4.0) and mvtec (CC BY-NC-SA 4.0) are downloaded from their makers.",
    )
    parser.add_argument("dataset", metavar="visa|mvtec|elpv|textile", help="which data set it is")
    parser.add_argument(
        "--source", type=Path, metavar="DIR|TAR", help="where it is: its folder or tar (elpv, textile: the package)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to make")
    parser.add_argument("--class", dest="categories", nargs="+", metavar="NAME", help="only these categories")
    parser.add_argument(
        "--link", metavar="hard|copy", help="link to the source's pictures or copy them (default: copy)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="decode every picture and mask; without --out, those of the source"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare the data set; returns the exit code."""
    from winspect.datasets.prepare import prepare_dataset

    link = {} if args.link is None else {"link": args.link}
    try:
        summary = prepare_dataset(
            args.dataset,
            source=args.source,
            out=args.out,
            categories=args.categories,
            verify=args.verify,
            progress=True,
            **link,
        )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on")
        return EXIT_INTERRUPTED
    if args.json:
        print(json.dumps(summary.to_dict()))
    else:
        _print_table(summary)
    _print_troubles(summary)
    return EXIT_DONE if summary.is_complete else EXIT_SOME_FAILED


def _print_table(summary: Summary) -> None:
    names = ("train_normal", "test_normal", "test_anomalous")
    width = max(len("category"), *map(len, summary.categories))
    show(f"{'category':{width}}{'train':>8}{'test good':>11}{'defective':>11}{'masks':>7}  official")
    for category, row in summary.categories.items():
        official = row["official"]
        verdict = "-" if official is None else "yes" if all(row[name] == official[name] for name in names) else "no"
        train, good, defective = (row[name] for name in names)
        show(f"{category:{width}}{train:8}{good:11}{defective:11}{row['masks']:7}  {verdict}")


def _print_troubles(summary: Summary) -> None:
    from winspect.pictures.formats import left_out_in_words

    troubles = [f"missing: {name}" for name in summary.missing]
    troubles += [f"left out: {name}: not where this data set has its pictures: move it" for name in summary.left_out]
    troubles += [f"failed: {row['path']}: {row['message']}" for row in summary.failed]
    for trouble in troubles[:_LINES_SHOWN]:
        say(trouble)
    if len(troubles) > _LINES_SHOWN:
        say(f"and {len(troubles) - _LINES_SHOWN} more; --json lists them all")
    done = f"{summary.written} files written, {summary.kept} were there" if summary.out else "nothing written"
    if others := left_out_in_words(summary.other_files):
        say(others)
    checked = f", {summary.verified} pictures decoded" if summary.verified else ""
    left_out = f", {len(summary.left_out)} left out" if summary.left_out else ""
    where = f"; {summary.dataset} is in {summary.out}" if summary.out else ""
    say(f"{done}{checked}, {len(summary.missing)} missing{left_out}, {len(summary.failed)} failed{where}")
