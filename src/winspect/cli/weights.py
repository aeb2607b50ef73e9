"""List, find and fetch model weights.

Which weights there are, where they are, and fetching them ahead of use.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from winspect.cli.common import Exit, print_result, print_table
from winspect.cli.options import add_option
from winspect.system.terminal import say, show
from winspect.weights import HUB, TINY, cache_folder
from winspect.weights.recommended import RECOMMENDED

if TYPE_CHECKING:
    from winspect.weights.tags import Source


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    verbs = parser.add_subparsers(dest="weights_verb", required=True, metavar="pull|list|where")
    pull = verbs.add_parser("pull", help="fetch and verify the weights of a model")
    pull.add_argument("model", help="an open_clip architecture such as ViT-B-32, timm/NAME or hf-hub:OWNER/NAME")
    pull.add_argument("tag", nargs="?", help="pretrained tag (default: the model's, if it has one)")
    listing = verbs.add_parser("list", help="which weights are known, and which are on this machine")
    listing.add_argument("models", nargs="*", metavar="MODEL", help="default: the usual models and all in the cache")
    add_option(listing, "--all", None, "every architecture that can be used")
    where = verbs.add_parser("where", help="the cache folder, or the file of a model's weights")
    where.add_argument(
        "model",
        nargs="?",
        help="an open_clip architecture, timm/NAME, winspect-tiny, local-dir:FOLDER or hf-hub:OWNER/NAME",
    )
    where.add_argument("tag", nargs="?", help="pretrained tag or weights file (default: the model's, if it has one)")
    for verb in (pull, listing, where):
        add_option(verb, "--json", None, "JSON on stdout, nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the verb; returns 1 where ``where`` was asked for weights that are not on this machine."""
    if args.weights_verb == "where" and args.model is None:
        folder = str(cache_folder() / "weights")
        print_result(args, {"folder": folder}, partial(show, folder))
        return Exit.DONE
    from winspect.backbones.open_clip_models import activation_in
    from winspect.weights.architectures import list_architectures
    from winspect.weights.sources import find, list_weights, pull

    if args.weights_verb == "list":
        sources = list_weights([TINY, *list_architectures()] if args.all else args.models or None)
        print_result(args, [_list_row(source) for source in sources], partial(_print, sources))
        return Exit.DONE
    source = (pull if args.weights_verb == "pull" else find)(args.model, args.tag)
    activation = activation_in(source)
    print_result(args, _row(source, activation=activation), partial(print, source.path))
    if activation is not None and not args.json:
        say(f"activation: {activation}")
    if not source.present:
        tag = "" if source.model.startswith(HUB) else f" {source.tag}"
        say(f"not there yet; fetch it with: winspect weights pull {source.model}{tag}")
    return Exit.DONE if source.present else Exit.CHECK_FAILED


def _print(sources: Sequence[Source]) -> None:
    rows = [("MODEL", "TAG", "SIZE", "FILE, OR WHERE IT IS FETCHED FROM")]
    for source in sources:
        size = "not here" if source.size_bytes is None else f"{source.size_bytes / 1e6:.0f} MB"
        place = source.path if source.present else source.address or source.path
        rows.append((source.model, source.tag, size, str(place)))
    print_table(rows, left=(0, 1, 3))
    for source in sources:
        if known := RECOMMENDED.get(source.full_name):
            published = known.published or "no published figures of winspect's recipes"
            show(f"{source.full_name}: {known.size_mb} MB, {known.licence}; {published}")


def _list_row(source: Source) -> dict[str, object]:
    from winspect.weights.timm_names import licence_of

    known = RECOMMENDED.get(source.full_name)
    published = known.published if known else None
    return _row(source, size_bytes=source.size_bytes, licence=licence_of(source), published=published)


def _row(source: Source, **more: object) -> dict[str, object]:
    row = {name: getattr(source, name) for name in ("model", "tag", "present", "address", "sha256_prefix")}
    return {**row, "path": str(source.path), **more}
