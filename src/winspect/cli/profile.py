"""Say where the time goes, by operator class.

Time the image tower's operators by class (linear, attention, LayerNorm, other) with the chosen engine and precision,
and compare them with what this machine's matrix products and memory can do. Zero-shot where the recipe can do it; else
the first picture is the good sample.

exit codes: 0 done; 2 usage error; 3 done, but some pictures could not be used (each named)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import finish, given, load_model, print_result, print_table, shown
from winspect.cli.options import add_option, add_run_options
from winspect.engines.options import check_count
from winspect.errors import PictureError, SourceError
from winspect.system.files import make_folder
from winspect.system.terminal import say, show

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

PICTURES, MOST_PICTURES = 2, 16


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    most = f"files, folders and globs, of which at most {MOST_PICTURES} at even steps are used"
    default = f"(default: {PICTURES} of fabric, of winspect[demo])"
    add_option(parser, "pictures", "PICTURE", f"{most} {default}", nargs="*")
    add_option(parser, "--repeat", "N", "rounds, of which the median counts (default: 3)")
    add_option(parser, "--out", "DIR", "write profile.json and a picture, profile.svg")
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Profile; returns the exit code."""
    check_count("--repeat", args.repeat)
    pictures = _pictures(args)
    if args.out:
        make_folder(args.out)  # before minutes of work
    from winspect.speed.charts import write_profile
    from winspect.speed.profile import profile

    model = load_model(args)
    usable, failed = _usable(pictures, model)
    results = profile(model, usable, **given(args, "repeat"))
    written = write_profile(results, args.out) if args.out else []
    print_result(args, results, partial(print_profile, results))
    return finish([str(error) for error in failed], written)


def _pictures(args: argparse.Namespace) -> list[Path]:
    from winspect.pictures.find import at_even_steps, find_pictures
    from winspect.speed.plans import packaged_pictures

    if not args.pictures:
        return at_even_steps(packaged_pictures(), PICTURES)
    found = find_pictures(args.pictures)
    if len(found) > MOST_PICTURES:
        say(f"found {len(found)} pictures; {MOST_PICTURES} of them show as much")
    return at_even_steps(found, MOST_PICTURES)


def _usable(pictures: list[Path], model: WinCLIP) -> tuple[list[Path], list[PictureError]]:
    """The pictures that the model can score, and why it cannot score the others.

    Raises:
        SourceError: it can score none.
    """
    from winspect.pictures.tiles import prepare

    usable, failed = [], []
    for picture in pictures:
        try:
            prepare(picture, model.preprocess, model.cut)
        except PictureError as error:
            failed.append(error)
        else:
            usable.append(picture)
    if not usable:
        raise SourceError(f"none of {len(pictures)} pictures can be used; the first: {failed[0]}")
    return usable, failed


def print_profile(results: Mapping[str, Any]) -> None:
    """Print the tables of classes, of the slowest operators and of the stages."""
    from winspect.speed.charts import TITLES, figure

    how = f"{results['engine']} {results['precision']} on {results['device']}, recipe {results['recipe']}"
    count = ", ".join(f"{results[what]} {what[:-1]}{'s' * (results[what] > 1)}" for what in ("pictures", "tiles"))
    show(f"{results['model']}, {how}: {count}, per picture:", "")
    heading = ["class", "ms", "share %", "reported %", "GFLOP", "GB", "GFLOP/s", "GB/s", "bound by", "of limit %"]
    work = ("gflop", "gbyte", "gflop_s", "gbyte_s")
    rows = [heading]
    for name, figures in results["classes"].items():
        spent, limit = figures["ms"], figures["limit_ms"]
        reached = None if limit is None or not spent else 100 * limit / spent
        rows.append(
            [
                TITLES[name],
                f"{spent:.2f}",
                f"{100 * figures['share']:.1f}",
                f"{100 * results['reported']['shares'][name]:.1f}",
                *("-" if figures[key] is None else figure(figures[key]) for key in work),
                figures["bound"] or "-",
                shown(reached, ".0f"),
            ]
        )
    print_table(rows)
    print(f"\nreported: for {results['reported']['title']}")
    rates = (("matrix products", "gemm_gflops", "GFLOP/s"), ("memory", "memory_gbyte_s", "GB/s"))
    limits = (
        f"{what} {'not known' if results[key] is None else f'{figure(results[key])} {unit}'}"
        for what, key, unit in rates
    )
    show(f"limits of this machine, measured: {', '.join(limits)}")
    print("of limit: the least time that these allow, over the time; above 100 % operands come from a cache\n")
    slowest = [["slowest operators", "type", "class", "ms"]]
    for operator in results["operators"][:10]:
        slowest.append([operator["name"], operator["kind"], TITLES[operator["class"]], f"{operator['ms']:.2f}"])
    print_table(slowest)
    stages = {**results["rest"], "image tower": results["tower_ms"], "together": results["picture_ms"]}
    print()
    print_table([["stage", "ms"], *([name, f"{ms:.2f}"] for name, ms in stages.items())])
