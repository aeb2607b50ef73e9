"""Exit codes, what is printed, and the model that the options describe. Defaults live in the library."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.options import MODEL_KEYWORDS, MODEL_VARIABLE
from winspect.errors import ReferencesError, SettingsError, SourceError
from winspect.system.terminal import say, show
from winspect.system.yaml_texts import parse_yaml

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.inspector.base import Predictor
    from winspect.inspector.winclip import WinCLIP
    from winspect.methods.method import Method
    from winspect.pictures.roi import Roi

DEFAULT_CLASS = "object"


class Exit(IntEnum):
    """Exit codes of all verbs."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    INTERRUPTED = 130


@contextmanager
def when_interrupted(hint: str) -> Iterator[None]:
    """Let an interruption say how to go on, or what was not done."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(hint) from error


def mute_stdout() -> None:
    """Throw away what still goes to stdout, which nobody reads any more, or which cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the named options that were given, as arguments of the library."""
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def print_result(args: argparse.Namespace, document: Any, print_text: Callable[[], object]) -> None:
    """Print what a verb found: with ``--json`` the document, else text."""
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        print_text()


def print_table(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> None:
    """Print columns, those named to the left, the others to the right; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        show("  ".join(f"{cell:{'<' if at in left else '>'}{width}}" for at, (cell, width) in cells).rstrip())


def shown(value: float | None, form: str) -> str:
    """A number in a form of :func:`format`; a dash is undefined."""
    return "-" if value is None else format(value, form)


def names_in(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def finish(failed: Sequence[str], written: Iterable[Path] = ()) -> Exit:
    """Report on stderr what failed and which files were written; returns the exit code."""
    for failure in failed:
        say(f"failed: {failure}")
    for path in written:
        say(f"written: {path}")
    return Exit.SOME_FAILED if failed else Exit.DONE


def say_first(lines: Sequence[str], *, where: str, most: int = 20) -> None:
    """Print the first lines on stderr, and how many more there are; ``where`` says where they stand."""
    for line in lines[:most]:
        say(line)
    if len(lines) > most:
        say(f"and {len(lines) - most} more{where}")


def parse_settings(pairs: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read the values of ``--set``: NAME=VALUE each; or take a product's settings."""
    if isinstance(pairs, Mapping):
        return dict(pairs)
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: need NAME=VALUE, as in --set temperature=0.05")
        # scales=2,3 is a list, as scales=[2,3] is.
        value = f"[{value}]" if name == "scales" and not value.startswith("[") else value
        settings[name] = parse_yaml(value, f"--set {pair}", need="a number, word or list")
    return settings


def roi_of(args: argparse.Namespace) -> Roi | None:
    """The region of interest of ``--roi``, whose file is read once, or of a product."""
    if getattr(args, "roi", None) is None:
        return None
    from winspect.pictures.roi import Roi

    if not isinstance(args.roi, Roi):
        args.roi = Roi.load(args.roi)
    return args.roi


def model_options(
    args: argparse.Namespace, *, defaults: bool = True, calibrations: Iterable[Calibration] = ()
) -> dict[str, Any]:
    """Collect the model options that were given, as arguments of :class:`winspect.WinCLIP`.

    Args:
        defaults: include environment variables.
        calibrations: fill in what was not given.

    Raises:
        SettingsError: two calibrations were made differently.
    """
    options = given(args, *MODEL_KEYWORDS)
    if (roi := roi_of(args)) is not None:
        options["roi"] = roi  # not its path, which workers elsewhere do not have
    if getattr(args, "align", None) not in (None, "none"):
        options["alignment"] = args.align
    if args.int8_pictures:
        options["int8_pictures"] = expand_references(args.int8_pictures, option="--int8-pictures")
    if args.settings:
        options["settings"] = parse_settings(args.settings)
    if model := args.model or (os.environ.get(MODEL_VARIABLE) if defaults else None):
        options["model"] = model
    from winspect.methods.identity import differences

    made = [(calibration, calibration.model_options(options)) for calibration in calibrations]
    for calibration, others in made[1:]:
        first, expected = made[0]
        if different := differences(expected, others):
            raise SettingsError(
                f"--calibration: those of {first.class_name!r} and {calibration.class_name!r} were made with different "
                + ", ".join(each.in_words("{name} ({first} and {second})", str) for each in different)
                + ": calibrate one of them again, or serve them apart"
            )
    return made[0][1] if made else options


def check_recipe(
    args: argparse.Namespace,
    calibration: Calibration | None = None,
    *,
    alone_in: str | None = None,
    scored_as: str | None = None,
) -> Method | None:
    """Refuse a recipe that cannot do what a verb asks of it, before a model is loaded.

    Args:
        calibration: fills in what the options leave open.
        alone_in: where pictures are scored one by one, as in ``a watched folder``; None for a verb with a batch.
        scored_as: the class that is scored with the good samples of ``--reference``; None where they come otherwise.

    Returns:
        The recipe's method; None where a bundle brings its own.

    Raises:
        SettingsError: an unknown recipe or setting; or one that compares the pictures of a batch.
        ReferencesError: it compares with good samples, and ``--reference`` names none.
    """
    if getattr(args, "bundle", None) is not None:
        return None
    from winspect.methods.registry import default_recipe, get_method
    from winspect.weights import DEFAULT_MODEL

    options = model_options(args, calibrations=[] if calibration is None else [calibration])
    recipe = options.get("recipe") or default_recipe(options.get("model", DEFAULT_MODEL))
    method = get_method(recipe, options.get("settings"))
    if alone_in is not None:
        method.check_alone(alone_in)
    if scored_as is not None:
        method.check_good_samples(scored_as, are_there=bool(args.reference))
    return method


def load_model(args: argparse.Namespace, calibration: Calibration | None = None) -> WinCLIP:
    """Load the model that the options describe; the calibration fills in what they leave open."""
    from winspect.inspector.winclip import WinCLIP

    return WinCLIP(**model_options(args, calibrations=[] if calibration is None else [calibration]))


def check_bundle_alone(args: argparse.Namespace) -> None:
    """Refuse ``--bundle`` beside options that say what scores."""
    if options := sorted(model_options(args, defaults=False)):
        raise SettingsError(f"--bundle brings its own {', '.join(options)}: leave these options out")


def load_predictor(args: argparse.Namespace, calibration: Calibration | None = None) -> Predictor:
    """Load the model that the options describe, without torch where that will do, or the bundle they name."""
    if args.bundle is None:
        from winspect.inspector.starting import load

        return load(model_options(args, calibrations=[] if calibration is None else [calibration]))
    check_bundle_alone(args)
    from winspect.inspector.edge import load_bundle

    return load_bundle(args.bundle)


def good_samples(args: argparse.Namespace) -> list[Path]:
    """List the pictures of ``--reference``; none where it is not given.

    Raises:
        ReferencesError: there are no such pictures, or ``--shots`` was given without them.
    """
    if args.shots is not None and not args.reference:
        raise ReferencesError("--shots needs --reference: name a folder or files of good samples")
    return expand_references(args.reference) if args.reference else []


def expand_references(patterns: list[str], *, option: str = "--reference") -> list[Path]:
    """List the pictures that ``--reference``, or another option, names."""
    from winspect.pictures.find import find_pictures

    try:
        return find_pictures(patterns)
    except SourceError as error:
        raise ReferencesError(f"{option}: {error}") from error
