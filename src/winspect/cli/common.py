"""Exit codes, and the model that the options describe. Defaults live in the library."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.options import MODEL_KEYWORDS, MODEL_VARIABLE
from winspect.errors import ReferencesError, SettingsError, SourceError
from winspect.system.yaml_texts import parse_yaml

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.inspector.base import Predictor
    from winspect.inspector.winclip import WinCLIP

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def mute_stdout() -> None:
    """Throw away what still goes to stdout, which nobody reads any more, or which cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: need NAME=VALUE, as in --set temperature=0.05")
        # scales=2,3 is a list, as scales=[2,3] is.
        value = f"[{value}]" if name == "scales" and not value.startswith("[") else value
        settings[name] = parse_yaml(value, f"--set {pair}", need="a number, word or list")
    return settings


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
    given = {name: value for name in MODEL_KEYWORDS if (value := getattr(args, name, None)) is not None}
    if args.int8_pictures:
        given["int8_pictures"] = expand_references(args.int8_pictures, option="--int8-pictures")
    if args.settings:
        given["settings"] = _parse_settings(args.settings)
    if model := args.model or (os.environ.get(MODEL_VARIABLE) if defaults else None):
        given["model"] = model
    from winspect.methods.identity import differences

    made = [(calibration, calibration.model_options(given)) for calibration in calibrations]
    for calibration, options in made[1:]:
        first, expected = made[0]
        if different := differences(expected, options):
            raise SettingsError(
                f"--calibration: those of {first.class_name!r} and {calibration.class_name!r} were made with different "
                + ", ".join(each.in_words("{name} ({first} and {second})", str) for each in different)
                + ": calibrate one of them again, or serve them apart"
            )
    return made[0][1] if made else given


def load_model(args: argparse.Namespace, calibration: Calibration | None = None) -> WinCLIP:
    """Load the model that the options describe; the calibration fills in what they leave open."""
    from winspect.inspector.winclip import WinCLIP

    return WinCLIP(**model_options(args, calibrations=[] if calibration is None else [calibration]))


def check_bundle_alone(args: argparse.Namespace) -> None:
    """Refuse ``--bundle`` beside options that say what scores."""
    if given := sorted(model_options(args, defaults=False)):
        raise SettingsError(f"--bundle brings its own {', '.join(given)}: leave these options out")


def load_predictor(args: argparse.Namespace, calibration: Calibration | None = None) -> Predictor:
    """Load the model that the options describe (see :func:`load_model`), or the bundle they name."""
    if args.bundle is None:
        return load_model(args, calibration)
    check_bundle_alone(args)
    from winspect.inspector.edge import load_bundle

    return load_bundle(args.bundle)


def good_samples(args: argparse.Namespace) -> list[Path]:
    """List the pictures of ``--reference``; none where it is not given.

    Raises:
        ReferencesError: there are no such pictures, or ``--shots`` was given without them.
    """
    check_shots(args)
    return expand_references(args.reference) if args.reference else []


def check_shots(args: argparse.Namespace) -> None:
    """Refuse ``--shots`` without ``--reference``."""
    if args.shots is not None and not args.reference:
        raise ReferencesError("--shots needs --reference: name a folder or files of good samples")


def expand_references(patterns: list[str], *, option: str = "--reference") -> list[Path]:
    """List the pictures that ``--reference``, or another option, names."""
    from winspect.pictures.find import find_pictures

    try:
        return find_pictures(patterns)
    except SourceError as error:
        raise ReferencesError(f"{option}: {error}") from error
