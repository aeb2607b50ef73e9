"""Table of the options that several verbs have, and how a verb adds options. What was not given stays None."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

MODEL_VARIABLE = "WINSPECT_MODEL"


def fraction(text: str) -> float:
    """A fraction, also in percent: ``0.05`` or ``5%``.

    >>> fraction("5%"), fraction("0.05"), fraction("0.1 %")
    (0.05, 0.05, 0.001)
    """
    number = text.strip().removesuffix("%")
    try:
        return float(number) if number == text.strip() else float(Decimal(number.strip()) / 100)
    except (ValueError, ArithmeticError):
        raise argparse.ArgumentTypeError(f"got {text!r}, need a fraction such as 0.05, or 5%") from None


_TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys("NKRSW", int),
    **dict.fromkeys(("PIXELS", "SCORE", "SECONDS"), float),
    **dict.fromkeys(("FRACTION", "RATE"), fraction),
    **dict.fromkeys(("DIR", "FILE"), Path),
}


def _option(metavar: str | None, help: str, **more: Any) -> dict[str, Any]:
    """Arguments of ``add_argument``: of an option whose metavar says its type, or of a switch where that is None."""
    kind = {"action": "store_true"} if metavar is None else {"metavar": metavar, "type": _TYPES.get(metavar)}
    return {**kind, "help": help, **more}


# What scores: the group "model" of the verbs that load one
_MODEL = {
    "--model": _option(
        "NAME",
        "an open_clip architecture, or winspect-tiny, the bundled model "
        f"(default: ${MODEL_VARIABLE} or ViT-B-16-plus-240)",
    ),
    "--weights": _option("TAG|FILE", "a pretrained tag, or a .pt, .bin or .safetensors file"),
    "--bundle": _option(
        "DIR",
        "an edge bundle of `winspect export`, or a packed product, in place of all else in this group",
    ),
    "--recipe": _option(
        "paper|tiles|log|fused|memory|subspace|mutual|paper+memory",
        "how scores are made (default: the model's own); docs/methods.md",
    ),
    "--set": _option(
        "NAME=VALUE",
        "one setting of the recipe, as in temperature=0.05 or size=448; docs/methods.md has them all",
        action="append",
        dest="settings",
    ),
    "--prompts": _option(
        "FILE|NAME", "YAML file of states and templates, or a published set: winclip (default), accurate-winclip"
    ),
    "--device": _option("auto|cpu|cuda|npu:0|openvino:GPU", "where the model runs (default: auto)"),
    "--bit-depth": _option("N", "of the camera, as in 12, whose values are stored unscaled in 16-bit files"),
    "--roi": _option(
        "FILE", "region of interest: a mask (PNG, white is inside), or polygons of LabelMe or COCO (JSON)"
    ),
    "--align": _option(
        "none|translation|euclidean|affine",
        "register each picture to the first good sample of --reference before it is scored (default: none)",
        choices=("none", "translation", "euclidean", "affine"),
    ),
    "--precision": _option(
        "auto|fp32|bf16|fp16|int8",
        "precision of the image tower (default: the calibration's, or what `winspect precision` says, or fp32; auto: "
        "bf16 where this CPU has it and these weights pass the precision gate)",
    ),
    "--engine": _option("auto|torch|openvino|onnx", "what runs the image tower (default: auto)"),
    "--plan": _option("auto|serial|tile-batch|prefetch", "how tiles become passes (default: tile-batch)"),
    "--graphs": _option(None, "captured graphs for fixed batch sizes (cuda, npu)", default=None),
    "--int8-pictures": _option("DIR|FILE", "pictures of your parts to calibrate int8 on", nargs="+"),
    "--skip-gate": _option(
        None, "run int8 even where its scores differ from fp32's", action="store_const", const="skip", dest="gate"
    ),
    "--batch-size": _option("N", "tiles per pass at most (default: the device's)"),
    "--workers": _option("N", "threads that decode and resize (default: one per core)"),
}
OPTIONS = {
    **_MODEL,
    # What is inspected, with which good samples
    "--product": _option(
        "FILE",
        "a product of `winspect product`, its TOML file or packed: says what is inspected, and what decides; "
        "options that contradict it are refused",
    ),
    "--class": _option(
        "NAME", "what the part is called (default: the calibration's class, or object)", dest="category_name"
    ),
    "--reference": _option("DIR|FILE", "good samples, for few-shot scores", nargs="+"),
    "--shots": _option("K", "use the first K good samples (default: all)"),
    # What decides
    "--calibration": _option("FILE", "verdicts, p-values and boxes by a file of `winspect calibrate`"),
    "--threshold": _option("SCORE", "scores from here on are anomalous"),
    "--review": _option(
        "RATE",
        "also a verdict review, by the calibration: of good pictures at most this share is review or anomalous, as in "
        "0.05 or 5%% (default: the calibration's, if it has one)",
    ),
    "--review-threshold": _option("SCORE", "beside --threshold: scores from here on are review"),
    "--rules": _option("FILE", "rules on defects, and [verdict], as TOML: docs/line.md"),
    "--pixel-threshold": _option("SCORE", "a defect's region has a map value above this (default: the calibration's)"),
    "--min-area": _option("PIXELS", "smaller regions are no defects (default: a tenth of a patch)"),
    "--boxes": _option(
        "none|anomalous|all",
        "which pictures get boxes of defects: none (less work), anomalous, or all, also normal ones (default: "
        "anomalous, where there is a pixel threshold)",
        choices=("none", "anomalous", "all"),
    ),
    "--audit-rate": _option(
        "RATE",
        "share of the pictures that is drawn by chance for the review queue, whatever their scores: their answers join "
        "a calibration (default: 0.02)",
    ),
    "--drift": _option(
        "RATE",
        "watch for drift of camera, light and scores, with this probability of a false alarm for as long as the line "
        "runs, as in 0.01",
    ),
    "--stretch": _option(
        None,
        "stretch the colours of heat maps to each picture, and draw nothing on them (default: one scale for the run, "
        "with score, verdict and boxes)",
    ),
    # Where results go
    "--deliver": _option("FILE", "deliver each row: MQTT, webhook, OPC UA, command; a TOML file, see docs/line.md"),
    "--on-anomaly": _option("COMMAND", "start this for each anomalous picture, with its row as JSON on stdin"),
    # Where it runs
    "--address": _option(
        "auto|HOST:PORT|ray://HOST:PORT", "a Ray cluster (default: $RAY_ADDRESS, else this machine alone)"
    ),
    "--pool": _option("N|MIN-MAX", "number of scoring processes (default: from 1 to one per GPU, NPU or machine)"),
    # What is printed
    "--json": _option(None, "JSON alone on stdout; everything else on stderr"),
    "--verbose": _option(None, "report choices on stderr"),
}
_SHORT = {"--verbose": "-v"}

# Keywords of winspect.WinCLIP that are passed on as they were given.
MODEL_KEYWORDS = (
    *("weights", "recipe", "prompts", "device", "bit_depth", "precision", "engine", "plan", "graphs", "gate"),
    *("batch_size", "workers"),
)

Place = argparse.ArgumentParser | argparse._ArgumentGroup


def add_option(place: Place, name: str, metavar: str | None, help: str, **more: Any) -> None:
    """Add an option, or an argument without a dash, of a single verb.

    Args:
        metavar: says the type of the value, too: ``N`` is a whole number, ``DIR`` a path, ...; None for a switch.
        more: further arguments of ``add_argument``.
    """
    place.add_argument(name, **_option(metavar, help, **more))


def add_options(place: Place, *names: str, **helps: str) -> None:
    """Add options of the table.

    Args:
        helps: help texts that replace the table's, by the option's attribute: ``min_area`` for ``--min-area``.
    """
    for name in names:
        option = OPTIONS[name]
        attribute = option.get("dest") or name.removeprefix("--").replace("-", "_")
        place.add_argument(
            *_SHORT.get(name, "").split(), name, **{**option, "help": helps.get(attribute, option["help"])}
        )


def add_model_options(
    parser: argparse.ArgumentParser, *, bundle: bool = False, threads: bool = True, **helps: str
) -> None:
    """Add ``--model``, ``--weights``, ``--recipe`` and the others that say what scores.

    Args:
        bundle: ``--bundle`` too.
        threads: ``--workers`` too; False where that option has had another meaning.
        helps: see :func:`add_options`.
    """
    left_out = {"--bundle": not bundle, "--workers": not threads}
    add_options(parser.add_argument_group("model"), *(name for name in _MODEL if not left_out.get(name)), **helps)


def add_run_options(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add the options of :func:`add_model_options`, and ``--json`` and ``--verbose``."""
    add_model_options(parser, **options)
    add_options(parser, "--json", "--verbose")
