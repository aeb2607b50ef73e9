"""Options that verbs share. What was not given is not passed on: defaults live in the library."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.errors import SettingsError
from winspect.system.yaml_texts import parse_yaml

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.inspector.base import Predictor
    from winspect.inspector.winclip import WinCLIP

EXIT_DONE, EXIT_CHECK_SAID_NO, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

MODEL_VARIABLE = "WINSPECT_MODEL"


def mute_stdout() -> None:
    """Nobody reads stdout any more, or it cannot be written: what still goes there is thrown away."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_model_options(
    parser: argparse.ArgumentParser, *, model_help: str | None = None, bundle: bool = False, threads: bool = True
) -> None:
    """``--model``, ``--weights``, ``--recipe`` and the others that say what judges; ``--bundle`` where it can.

    Args:
        threads: ``--workers`` says how many threads decode; False where it says something else.
    """
    group = parser.add_argument_group("model")
    default = f"default: ${MODEL_VARIABLE} or ViT-B-16-plus-240"
    model_help = model_help or f"an open_clip architecture, or winspect-tiny, the bundled model ({default})"
    group.add_argument("--model", metavar="NAME", help=model_help)
    group.add_argument("--weights", metavar="TAG|FILE", help="a pretrained tag, or a .pt, .bin or .safetensors file")
    if bundle:
        group.add_argument(
            "--bundle",
            type=Path,
            metavar="DIR",
            help="an edge bundle of `winspect export`, in place of --model and all else in this group",
        )
    group.add_argument("--recipe", metavar="paper|tiles|log", help="how scores are made (default: the model's own)")
    group.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        dest="settings",
        default=[],
        help="one setting of the recipe: temperature, scales, stride, tile_stride, text_average, fusion, tiling, "
        "repeat_last, tile_references, patch_norm, underscores",
    )
    group.add_argument(
        "--prompts",
        metavar="FILE|NAME",
        help="own states and templates (YAML), or a published set: winclip (default), accurate-winclip",
    )
    group.add_argument(
        "--device", metavar="auto|cpu|cuda|npu:0|openvino:GPU", help="where the model runs (default: auto)"
    )
    group.add_argument(
        "--bit-depth", type=int, metavar="N", help="of the camera, as in 12: its values stand unscaled in 16-bit files"
    )
    group.add_argument(
        "--precision",
        metavar="auto|fp32|bf16|fp16|int8",
        help="what the image tower runs in (default: the calibration's, or what `winspect precision` says, or fp32; "
        "auto: bf16 where this CPU has it and these weights pass the precision gate)",
    )
    group.add_argument("--engine", metavar="auto|torch|openvino|onnx", help="what runs the image tower (default: auto)")
    group.add_argument(
        "--plan", metavar="auto|serial|tile-batch|prefetch", help="how tiles become passes (default: tile-batch)"
    )
    group.add_argument("--graphs", action="store_true", help="captured graphs for fixed batch sizes (cuda, npu)")
    group.add_argument(
        "--int8-pictures", metavar="DIR|FILE", nargs="+", help="pictures of your parts to calibrate int8 on"
    )
    group.add_argument("--skip-gate", action="store_true", help="run int8 even where its scores differ from fp32's")
    group.add_argument("--batch-size", type=int, metavar="N", help="tiles per pass at most (default: the device's)")
    if threads:
        group.add_argument(
            "--workers", type=int, metavar="N", help="threads that decode and resize (default: one per core)"
        )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--verbose``."""
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout; everything else on stderr")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what was chosen, on stderr")


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
    """What was given of the options that say what judges, as arguments of :class:`winspect.WinCLIP`.

    Args:
        defaults: also what the environment variables say.
        calibrations: what is not given is as they were made.

    Raises:
        SettingsError: two calibrations were made differently.
    """
    names = ("recipe", "weights", "prompts", "device", "precision", "engine", "plan")
    numbers = ("batch_size", "workers", "bit_depth")
    given = {name: value for name in (*names, *numbers) if (value := getattr(args, name, None)) is not None}
    if args.int8_pictures:
        given["int8_pictures"] = expand_references(args.int8_pictures, option="--int8-pictures")
    if args.graphs:
        given["graphs"] = True
    if args.skip_gate:
        given["gate"] = "skip"
    if model := args.model or (os.environ.get(MODEL_VARIABLE) if defaults else None):
        given["model"] = model
    if args.settings:
        given["settings"] = _parse_settings(args.settings)
    made = [(calibration, calibration.model_options(given)) for calibration in calibrations]
    for calibration, options in made[1:]:
        first, expected = made[0]
        if different := sorted(name for name in {*options, *expected} if options.get(name) != expected.get(name)):
            raise SettingsError(
                f"--calibration: those of {first.class_name!r} and {calibration.class_name!r} were made with different "
                + ", ".join(f"{name} ({expected.get(name)} and {options.get(name)})" for name in different)
                + ": calibrate one of them again, or serve them apart"
            )
    return made[0][1] if made else given


def load_model(args: argparse.Namespace, calibration: Calibration | None = None) -> WinCLIP:
    """The model that the options describe; what they leave open is as the calibration was made."""
    from winspect.inspector.winclip import WinCLIP

    return WinCLIP(**model_options(args, calibrations=[] if calibration is None else [calibration]))


def check_bundle_alone(args: argparse.Namespace) -> None:
    """Refuse ``--bundle`` beside options that say what judges."""
    if given := sorted(model_options(args, defaults=False)):
        raise SettingsError(f"--bundle brings its own {', '.join(given)}: leave these options out")


def load_predictor(args: argparse.Namespace, calibration: Calibration | None = None) -> Predictor:
    """The model that the options describe (see :func:`load_model`), or the bundle they name."""
    if args.bundle is None:
        return load_model(args, calibration)
    check_bundle_alone(args)
    from winspect.inspector.edge import load_bundle

    return load_bundle(args.bundle)


def check_shots(args: argparse.Namespace) -> None:
    """Refuse ``--shots`` without ``--reference``."""
    from winspect.errors import ReferencesError

    if args.shots is not None and not args.reference:
        raise ReferencesError("--shots needs --reference: name a folder or files of good samples")


def expand_references(patterns: list[str], *, option: str = "--reference") -> list[Path]:
    """The pictures that ``--reference``, or another option, names."""
    from winspect.errors import ReferencesError, SourceError
    from winspect.pictures.find import find_pictures

    try:
        return find_pictures(patterns)
    except SourceError as error:
        raise ReferencesError(f"{option}: {error}") from error
