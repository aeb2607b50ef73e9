"""Keep all that a part number is inspected with in a file.

Keep all that a part number is inspected with in a file: class, model, recipe, good samples and calibration, with the
hashes of these files, for the option --product of other verbs. Each change that is recorded is a new revision, which
rows name.

exit codes: 0 done; 1 check: the product or one of its files has changed; 2 usage error
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import Exit, parse_settings, print_result
from winspect.cli.options import MODEL_VARIABLE, add_option, add_options
from winspect.errors import SettingsError
from winspect.system.terminal import show

if TYPE_CHECKING:
    from winspect.product.document import Product

_SCORING = ("--model", "--weights", "--recipe", "--set", "--prompts", "--precision", "--engine", "--bit-depth")
_SECTIONS = ("--roi", "--align", "--review", "--rules", "--drift", "--audit-rate")
_LONGEST = 100
_RUNNING = ("--device", "--batch-size", "--json", "--verbose")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="new|check|show|pack", required=True)
    new = actions.add_parser("new", help="write a product")
    add_option(new, "file", "FILE", "the product to write, such as m6.toml; files are named relative to its folder")
    add_option(new, "--name", "NAME", "the product's name, such as the part number (default: the file's)")
    called = "what the part is called (default: the calibration's class)"
    good, calibration = "good samples, for few-shot scores", "a file of `winspect calibrate`"
    of_class = ("--class", "--reference", "--shots", "--calibration")
    add_options(new, *of_class, category_name=called, reference=good, calibration=calibration)
    add_options(new.add_argument_group("model"), *_SCORING)
    add_options(new.add_argument_group("sections"), *_SECTIONS)
    checking = actions.add_parser("check", help="compare a product and its files with what was recorded")
    _add_product(checking)
    add_option(checking, "--update", None, "record them as they are now, as a new revision")
    showing = actions.add_parser("show", help="print a product, or who changed it")
    _add_product(showing)
    add_option(showing, "--history", None, "who changed what, and when")
    packing = actions.add_parser("pack", help="write a file to carry to the line, which inspects without torch")
    _add_product(packing)
    add_option(packing, "--out", "FILE", "the file to write (default: NAME-rREVISION.winspect beside the product)")
    engine = "openvino|onnx (default: the product's, or openvino)"
    add_options(packing, "--engine", "--skip-gate", "--int8-pictures", engine=engine)
    for action in (new, checking, showing):
        add_options(action, "--json")
    add_options(packing, *_RUNNING)


def _add_product(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="PRODUCT", type=Path, help="the product's TOML file")


def run(args: argparse.Namespace) -> int:
    """Write, check, show or pack; returns the exit code."""
    return {"new": _new, "check": _check, "show": _show, "pack": _pack}[args.action](args)


def _new(args: argparse.Namespace) -> int:
    from winspect.product.file import ENDING
    from winspect.product.recording import new_product

    if args.file.suffix != ENDING:
        raise SettingsError(f"{args.file}: a product's file ends in {ENDING}; name it {args.file.stem}{ENDING}")
    product = new_product(args.file, _entries(args), verb="product new")
    print_result(args, _document(product), partial(show, f"{args.file}: {product.title}"))
    return Exit.DONE


def _entries(args: argparse.Namespace) -> dict[str, Any]:
    """The document that the options of ``product new`` describe: all that decides a score is named in it."""
    import os

    from winspect.methods.registry import default_recipe, get_method
    from winspect.product.named_files import relative
    from winspect.system.preferences import default_precision
    from winspect.weights import DEFAULT_MODEL, LOCAL

    folder = args.file.parent

    def named(given: Any) -> Any:
        return relative(given, folder) if given is not None and os.path.exists(given) else given

    calibration = None
    if args.calibration is not None:
        from winspect.calibration import Calibration

        calibration = Calibration.load(args.calibration)
    class_name = args.category_name or (calibration and calibration.class_name)
    if class_name is None:
        raise SettingsError("--class: name what the part is called, as in --class 'hex nut'")
    made = None if calibration is None else calibration.identity
    model = args.model or (made and made.model) or os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL
    recipe = args.recipe or (made and made.recipe.name) or default_recipe(model)
    settings = parse_settings(args.settings or [])
    if made and not (args.recipe or settings):
        defaults = get_method(recipe).document()
        settings = {name: value for name, value in made.recipe.document().items() if value != defaults[name]}
    get_method(recipe, settings)  # refuses what there is not
    if args.shots is not None and not args.reference:
        raise SettingsError("--shots needs --reference: name a folder or files of good samples")
    return {
        "name": args.name or args.file.stem,
        "class": class_name,
        "model": _given(
            name=f"{LOCAL}{relative(model.removeprefix(LOCAL), folder)}" if model.startswith(LOCAL) else model,
            weights=named(args.weights),
            recipe=recipe,
            settings=settings or None,
            precision=args.precision or (made and made.precision) or default_precision().precision or "fp32",
            engine=args.engine,
            prompts=named(args.prompts),
            bit_depth=args.bit_depth,
        ),
        **_given(
            references=args.reference
            and _given(files=[relative(file, folder) for file in args.reference], shots=args.shots),
            calibration=args.calibration and {"file": relative(args.calibration, folder)},
            roi=args.roi and {"file": relative(args.roi, folder)},
            alignment=None if args.align in (None, "none") else {"kind": args.align},
            **_verdicts(args),
            drift=args.drift and {"rate": args.drift},
            feedback=args.audit_rate and {"audit_rate": args.audit_rate},
        ),
    }


def _verdicts(args: argparse.Namespace) -> dict[str, Any]:
    """The sections ``[verdict]`` and ``[[rules]]``, which are written into the product."""
    from winspect.calibration.rules_file import chosen_verdicts

    verdicts, rules = chosen_verdicts(
        args.rules, review=args.review, names=("--review", "threshold", "review_threshold")
    )
    return {"verdict": verdicts.document() or None, "rules": rules.document() or None}


def _given(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


def _check(args: argparse.Namespace) -> int:
    from winspect.product.file import problems, read_product
    from winspect.product.recording import record

    if args.update:
        product, changes = record(args.file, verb="product check --update")
        words = [change.in_words() for change in changes]
        found = problems(product)
        headline = f"{args.file}: {product.title}" + ("" if changes else ", as it was recorded")
        document = {"updated": words, "problems": found}
    else:
        product, words = read_product(args.file), []
        found = problems(product)
        headline = f"{args.file}: {product.title}" + ("" if found else ", as it was recorded, with all its files")
        document = {"problems": found}
    text = partial(show, headline, *words, *(f"problem: {problem}" for problem in found))
    print_result(args, {**_document(product), **document}, text)
    return Exit.CHECK_FAILED if found else Exit.DONE


def _show(args: argparse.Namespace) -> int:
    product = _any_product(args.file)
    if not args.history:
        print_result(args, _document(product), partial(show, *_lines(product.document())))
        return Exit.DONE
    from dataclasses import asdict

    from winspect.product.history import read_history

    entries = read_history(args.file)
    if not entries:
        raise SettingsError(f"{args.file}: has no history beside it; it was written by hand, packed or moved alone")
    lines = [
        line
        for entry in entries
        for line in (
            f"revision {entry.revision}  {entry.time}  {entry.user}  {entry.verb}",
            *(f"  {change.in_words()}" for change in entry.changes),
        )
    ]
    print_result(args, {"schema": 1, "history": [asdict(entry) for entry in entries]}, partial(show, *lines))
    return Exit.DONE


def _any_product(path: Path) -> Product:
    from winspect.product.file import read_product
    from winspect.product.packing import is_packed, packed_product

    if not is_packed(path):
        return read_product(path)
    found = packed_product(path)
    if found is None:
        raise SettingsError(f"{path}: this bundle was not made of a product")
    return found[0]


def _pack(args: argparse.Namespace) -> int:
    from winspect.cli import export
    from winspect.cli.product_options import use_product
    from winspect.product.packing import ENDING, pack_folder

    parser = argparse.ArgumentParser()
    export.declare(parser)
    exported = parser.parse_args(["--product", str(args.file), "--out", str(args.file)])
    vars(exported).update({name: value for name, value in vars(args).items() if hasattr(exported, name)})
    use_product(exported)
    product: Product = exported.product_used
    default = args.file.with_name(f"{args.file.stem}-r{product.revision}{ENDING}")
    out = args.out or default
    if out.suffix != ENDING:
        raise SettingsError(f"--out {out}: a packed product ends in {ENDING}, as in {default.name}")
    with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
        _, difference = export.export_bundle(exported, Path(folder) / "bundle")
        size = pack_folder(Path(folder) / "bundle", out)
    document = {"out": str(out), "engine": exported.engine, "bytes": size, "largest_difference": difference}
    what = f"{size / 1e6:.1f} MB for {exported.engine}; scores within {difference:.1g} of the model's"
    print_result(args, {**_document(product), **document}, partial(show, f"{out}: {product.title}, {what}"))
    return Exit.DONE


def _document(product: Product) -> dict[str, Any]:
    return {"schema": 1, "product": product.document(), "path": str(product.path)}


def _lines(document: dict[str, Any], prefix: str = "") -> list[str]:
    """The entries of a document, a line each: ``model.recipe  log``."""
    lines: list[str] = []
    for name, value in document.items():
        if isinstance(value, dict) and value:
            lines += _lines(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
            lines.append(f"{prefix + name:27} {text}")
    return lines
