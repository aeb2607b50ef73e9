"""``winspect weights``: which weights there are, where they are, and fetching them ahead of use."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.weights import Source


def add_parser(subparsers: Any) -> None:
    """Add the verb to ``winspect``'s parser."""
    parser = subparsers.add_parser("weights", help="list, find and fetch model weights", description=__doc__)
    verbs = parser.add_subparsers(dest="weights_verb", required=True, metavar="pull|list|where")
    pull = verbs.add_parser("pull", help="fetch and verify the weights of a model")
    pull.add_argument("model", help="an open_clip architecture such as ViT-B-16-plus-240, or hf-hub:OWNER/NAME")
    pull.add_argument("tag", nargs="?", help="pretrained tag (default: the model's, if it has one)")
    listing = verbs.add_parser("list", help="which weights are known, and which are on this machine")
    listing.add_argument("models", nargs="*", metavar="MODEL", help="default: the usual models and all in the cache")
    listing.add_argument("--all", action="store_true", help="every architecture that can be used")
    where = verbs.add_parser("where", help="the cache folder, or the file of a model's weights")
    where.add_argument(
        "model", nargs="?", help="an open_clip architecture, winspect-tiny, local-dir:FOLDER or hf-hub:OWNER/NAME"
    )
    where.add_argument("tag", nargs="?", help="pretrained tag or weights file (default: the model's, if it has one)")
    for verb in (pull, listing, where):
        verb.add_argument("--json", action="store_true", help="JSON on stdout, nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb; errors are raised as :class:`winspect.errors.WinspectError`.

    Returns:
        0, or 1 where ``where`` was asked for weights that are not on this machine.
    """
    return {"pull": _pull, "list": _list, "where": _where}[args.weights_verb](args)


def _pull(args: argparse.Namespace) -> int:
    from winspect import weights

    source = weights.pull(args.model, args.tag)
    _print_source(source, as_json=args.json)
    return 0


def _where(args: argparse.Namespace) -> int:
    from winspect import weights

    if args.model is None:
        folder = weights.cache_folder() / "weights"
        print(json.dumps({"folder": str(folder)}) if args.json else folder)
        return 0
    source = weights.find(args.model, args.tag)
    _print_source(source, as_json=args.json)
    if not source.present:
        tag = "" if source.config is not None else f" {source.tag}"
        say(f"not there yet; fetch it with: winspect weights pull {source.model}{tag}")
    return 0 if source.present else 1


def _list(args: argparse.Namespace) -> int:
    from winspect import weights

    models = [weights.TINY, *weights.list_architectures()] if args.all else args.models or None
    sources = weights.list_weights(models)
    if args.json:
        print(json.dumps([_row(source) | {"size_bytes": source.size_bytes} for source in sources], indent=2))
        return 0
    rows = [("MODEL", "TAG", "SIZE", "FILE, OR WHERE IT IS FETCHED FROM")]
    rows += [
        (s.model, s.tag, _megabytes(s.size_bytes), str(s.path if s.present else s.address or s.path)) for s in sources
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for model, tag, size, place in rows:
        print(f"{model:<{widths[0]}}  {tag:<{widths[1]}}  {size:>{widths[2]}}  {place}")
    return 0


def _print_source(source: Source, *, as_json: bool) -> None:
    from winspect.backbones.open_clip_models import activation_in

    activation = activation_in(source)
    if as_json:
        print(json.dumps(_row(source) | {"activation": activation}, indent=2))
        return
    print(source.path)
    if activation is not None:
        say(f"activation: {activation}")


def _row(source: Source) -> dict[str, object]:
    row = {name: getattr(source, name) for name in ("model", "tag", "present", "address", "sha256_prefix")}
    return row | {"path": str(source.path)}


def _megabytes(size_bytes: int | None) -> str:
    return "not here" if size_bytes is None else f"{size_bytes / 1e6:.0f} MB"
