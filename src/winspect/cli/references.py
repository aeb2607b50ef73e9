"""Choose good samples from unlabelled pictures.

Score the pictures beside each other (recipe mutual), name the outliers, and choose from the more normal half of them
those that differ most: what to show with --reference. With --out they are copied to DIR/good, in the order of the
choice, so that --shots K takes the best K. A defect that most pictures have is normal here: look at them before you
show them.
"""

from __future__ import annotations

import argparse
from typing import Any

from winspect.cli.common import finish, load_model, parse_settings, print_result, print_table
from winspect.cli.options import add_option, add_run_options
from winspect.system.terminal import say, show

KEEP, RECIPE = 16, "mutual"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, folders (searched recursively) and globs"
    )
    add_option(parser, "--keep", "N", f"how many to choose (default: {KEEP})", default=KEEP)
    add_option(parser, "--out", "DIR", "copy the chosen ones to DIR/good, and write DIR/references.json")
    add_run_options(parser, recipe="how pictures are compared (default: mutual, the only recipe that does)")


def run(args: argparse.Namespace) -> int:
    """Choose; returns the exit code."""
    from winspect.inspector.choosing import check_choice, choose_references
    from winspect.methods.registry import get_method
    from winspect.outputs.references import begin_references, write_references
    from winspect.pictures.find import find_pictures

    args.recipe = args.recipe or RECIPE
    pictures = find_pictures(args.pictures)
    check_choice(get_method(args.recipe, parse_settings(args.settings or [])), len(pictures), args.keep)
    if args.out:
        begin_references(args.out)
    model = load_model(args)
    chosen = choose_references(model, pictures, keep=args.keep, progress=True)
    document = {"schema": 1, **chosen.document(), "made_with": model.describe()}
    written = [write_references(args.out, document)] if args.out else []
    print_result(args, document, lambda: _print(document))
    if chosen.warning is not None:
        say(f"warning: {chosen.warning}")
    return finish([str(result.error) for result in chosen.failed], written)


def _print(document: dict[str, Any]) -> None:
    kept, outliers = document["kept"], document["outliers"]
    show(f"{len(kept)} of {document['pictures']} chosen, the most normal first, then those that differ most:")
    _print_scores(kept)
    show("", f"{len(outliers)} outliers, with a score above {document['limit']:.4f}{':' * bool(outliers)}")
    _print_scores(outliers)


def _print_scores(entries: list[dict[str, Any]]) -> None:
    if entries:
        print_table([(entry["path"], f"{entry['score']:.4f}") for entry in entries])
