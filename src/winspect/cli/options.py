"""Table of the options that several verbs have. A verb picks from it; what was not given stays None."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

MODEL_VARIABLE = "WINSPECT_MODEL"


class Option(NamedTuple):
    """Declaration of an option: its group in the help (None: no group), its help, arguments of ``add_argument``."""

    group: str | None
    help: str
    arguments: dict[str, Any]
    aliases: tuple[str, ...] = ()


def _option(group: str | None, help: str, *aliases: str, **arguments: Any) -> Option:
    return Option(group, help, arguments, aliases)


def _pictures(group: str | None, help: str) -> Option:
    return Option(group, help, {"nargs": "+", "metavar": "DIR|FILE"})


OPTIONS: dict[str, Option] = {
    # What scores
    "--model": _option(
        "model",
        "an open_clip architecture, or winspect-tiny, the bundled model "
        f"(default: ${MODEL_VARIABLE} or ViT-B-16-plus-240)",
        metavar="NAME",
    ),
    "--weights": _option("model", "a pretrained tag, or a .pt, .bin or .safetensors file", metavar="TAG|FILE"),
    "--bundle": _option(
        "model",
        "an edge bundle of `winspect export`, in place of --model and all else in this group",
        metavar="DIR",
        type=Path,
    ),
    "--recipe": _option("model", "how scores are made (default: the model's own)", metavar="paper|tiles|log"),
    "--set": _option(
        "model",
        "one setting of the recipe: temperature, scales, stride, tile_stride, text_average, fusion, tiling, "
        "repeat_last, tile_references, patch_norm, underscores",
        metavar="NAME=VALUE",
        action="append",
        dest="settings",
    ),
    "--prompts": _option(
        "model",
        "YAML file of states and templates, or a published set: winclip (default), accurate-winclip",
        metavar="FILE|NAME",
    ),
    "--device": _option("model", "where the model runs (default: auto)", metavar="auto|cpu|cuda|npu:0|openvino:GPU"),
    "--bit-depth": _option(
        "model", "of the camera, as in 12, whose values are stored unscaled in 16-bit files", metavar="N", type=int
    ),
    "--precision": _option(
        "model",
        "precision of the image tower (default: the calibration's, or what `winspect precision` says, or fp32; auto: "
        "bf16 where this CPU has it and these weights pass the precision gate)",
        metavar="auto|fp32|bf16|fp16|int8",
    ),
    "--engine": _option("model", "what runs the image tower (default: auto)", metavar="auto|torch|openvino|onnx"),
    "--plan": _option(
        "model", "how tiles become passes (default: tile-batch)", metavar="auto|serial|tile-batch|prefetch"
    ),
    "--graphs": _option("model", "captured graphs for fixed batch sizes (cuda, npu)", action="store_const", const=True),
    "--int8-pictures": _pictures("model", "pictures of your parts to calibrate int8 on"),
    "--skip-gate": _option(
        "model", "run int8 even where its scores differ from fp32's", action="store_const", const="skip", dest="gate"
    ),
    "--batch-size": _option("model", "tiles per pass at most (default: the device's)", metavar="N", type=int),
    "--workers": _option("model", "threads that decode and resize (default: one per core)", metavar="N", type=int),
    # What is inspected, with which good samples
    "--class": _option(
        None,
        "what the part is called (default: the calibration's class, or object)",
        metavar="NAME",
        dest="category_name",
    ),
    "--reference": _pictures(None, "good samples, for few-shot scores"),
    "--shots": _option(None, "use the first K good samples (default: all)", metavar="K", type=int),
    # What decides
    "--calibration": _option(
        None, "verdicts, p-values and boxes by a file of `winspect calibrate`", metavar="FILE", type=Path
    ),
    "--threshold": _option(None, "scores from here on are anomalous", metavar="SCORE", type=float),
    "--pixel-threshold": _option(
        None,
        "a defect's region has a map value above this (default: the calibration's)",
        metavar="SCORE",
        type=float,
    ),
    "--min-area": _option(
        None, "smaller regions are no defects (default: a tenth of a patch)", metavar="PIXELS", type=float
    ),
    "--boxes": _option(
        None,
        "which pictures get boxes of defects: none (less work), anomalous, or all, also normal ones (default: "
        "anomalous, where there is a pixel threshold)",
        choices=("none", "anomalous", "all"),
    ),
    "--stretch": _option(
        None,
        "stretch the colours of heat maps to each picture, and draw nothing on them (default: one scale for the run, "
        "with score, verdict and boxes)",
        action="store_true",
    ),
    # Where it runs
    "--address": _option(
        "cluster",
        "a Ray cluster (default: $RAY_ADDRESS, else this machine alone)",
        metavar="auto|HOST:PORT|ray://HOST:PORT",
    ),
    "--pool": _option(
        "cluster",
        "number of scoring processes (default: from 1 to one per GPU, NPU or machine)",
        metavar="N|MIN-MAX",
    ),
    # What is printed
    "--json": _option(None, "JSON alone on stdout; everything else on stderr", action="store_true"),
    "--verbose": _option(None, "report choices on stderr", "-v", action="store_true"),
}

# Keywords of winspect.WinCLIP that are passed on as they were given.
MODEL_KEYWORDS = (
    *("weights", "recipe", "prompts", "device", "bit_depth", "precision", "engine", "plan", "graphs", "gate"),
    *("batch_size", "workers"),
)
_MODEL = tuple(name for name, option in OPTIONS.items() if option.group == "model")


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, **helps: str) -> None:
    """Add options of the table, each under the group that it names there.

    Args:
        helps: help texts that replace the table's, by the option's attribute: ``min_area`` for ``--min-area``.
    """
    for group, several in groupby(names, key=lambda name: OPTIONS[name].group):
        is_parser = isinstance(parser, argparse.ArgumentParser)
        place = parser.add_argument_group(group) if group and is_parser else parser
        for name in several:
            option = OPTIONS[name]
            text = helps.get(option.arguments.get("dest") or name.removeprefix("--").replace("-", "_"), option.help)
            place.add_argument(*option.aliases, name, help=text, **option.arguments)


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
    add_options(parser, *(name for name in _MODEL if not left_out.get(name)), **helps)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--verbose``."""
    add_options(parser, "--json", "--verbose")
