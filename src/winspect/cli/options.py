"""Table of the options that several verbs have. A verb picks from it; what was not given stays None."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

MODEL_VARIABLE = "WINSPECT_MODEL"


class Option(NamedTuple):
    """Declaration of an option: its group in the help (None: no group), and the arguments of ``add_argument``."""

    group: str | None
    arguments: dict[str, Any]


def _value(metavar: str, help: str, group: str | None = None, **more: Any) -> Option:
    return Option(group, {"metavar": metavar, "help": help, **more})


def _switch(help: str, group: str | None = None, **more: Any) -> Option:
    return Option(group, {"action": "store_const", "const": True, "help": help, **more})


def _model(metavar: str, help: str, **more: Any) -> Option:
    return _value(metavar, help, "model", **more)


OPTIONS: dict[str, Option] = {
    # What scores
    "--model": _model(
        "NAME",
        "an open_clip architecture, or winspect-tiny, the bundled model "
        f"(default: ${MODEL_VARIABLE} or ViT-B-16-plus-240)",
    ),
    "--weights": _model("TAG|FILE", "a pretrained tag, or a .pt, .bin or .safetensors file"),
    "--bundle": _model(
        "DIR", "an edge bundle of `winspect export`, in place of --model and all else in this group", type=Path
    ),
    "--recipe": _model("paper|tiles|log", "how scores are made (default: the model's own)"),
    "--set": _model(
        "NAME=VALUE",
        "one setting of the recipe: temperature, scales, stride, tile_stride, text_average, fusion, tiling, "
        "repeat_last, tile_references, patch_norm, underscores",
        action="append",
        dest="settings",
    ),
    "--prompts": _model(
        "FILE|NAME", "YAML file of states and templates, or a published set: winclip (default), accurate-winclip"
    ),
    "--device": _model("auto|cpu|cuda|npu:0|openvino:GPU", "where the model runs (default: auto)"),
    "--bit-depth": _model("N", "of the camera, as in 12, whose values are stored unscaled in 16-bit files", type=int),
    "--precision": _model(
        "auto|fp32|bf16|fp16|int8",
        "precision of the image tower (default: the calibration's, or what `winspect precision` says, or fp32; auto: "
        "bf16 where this CPU has it and these weights pass the precision gate)",
    ),
    "--engine": _model("auto|torch|openvino|onnx", "what runs the image tower (default: auto)"),
    "--plan": _model("auto|serial|tile-batch|prefetch", "how tiles become passes (default: tile-batch)"),
    "--graphs": _switch("captured graphs for fixed batch sizes (cuda, npu)", "model"),
    "--int8-pictures": _model("DIR|FILE", "pictures of your parts to calibrate int8 on", nargs="+"),
    "--skip-gate": _switch("run int8 even where its scores differ from fp32's", "model", const="skip", dest="gate"),
    "--batch-size": _model("N", "tiles per pass at most (default: the device's)", type=int),
    "--workers": _model("N", "threads that decode and resize (default: one per core)", type=int),
    # What is inspected, with which good samples
    "--class": _value(
        "NAME", "what the part is called (default: the calibration's class, or object)", dest="category_name"
    ),
    "--reference": _value("DIR|FILE", "good samples, for few-shot scores", nargs="+"),
    "--shots": _value("K", "use the first K good samples (default: all)", type=int),
    # What decides
    "--calibration": _value("FILE", "verdicts, p-values and boxes by a file of `winspect calibrate`", type=Path),
    "--threshold": _value("SCORE", "scores from here on are anomalous", type=float),
    "--pixel-threshold": _value(
        "SCORE", "a defect's region has a map value above this (default: the calibration's)", type=float
    ),
    "--min-area": _value("PIXELS", "smaller regions are no defects (default: a tenth of a patch)", type=float),
    "--boxes": _value(
        "none|anomalous|all",
        "which pictures get boxes of defects: none (less work), anomalous, or all, also normal ones (default: "
        "anomalous, where there is a pixel threshold)",
        choices=("none", "anomalous", "all"),
    ),
    "--stretch": _switch(
        "stretch the colours of heat maps to each picture, and draw nothing on them (default: one scale for the run, "
        "with score, verdict and boxes)",
        default=False,
    ),
    # Where it runs
    "--address": _value(
        "auto|HOST:PORT|ray://HOST:PORT", "a Ray cluster (default: $RAY_ADDRESS, else this machine alone)", "cluster"
    ),
    "--pool": _value(
        "N|MIN-MAX", "number of scoring processes (default: from 1 to one per GPU, NPU or machine)", "cluster"
    ),
    # What is printed
    "--json": _switch("JSON alone on stdout; everything else on stderr", default=False),
    "--verbose": _switch("report choices on stderr", default=False),
}
_SHORT = {"--verbose": "-v"}

# Keywords of winspect.WinCLIP that are passed on as they were given.
MODEL_KEYWORDS = (
    *("weights", "recipe", "prompts", "device", "bit_depth", "precision", "engine", "plan", "graphs", "gate"),
    *("batch_size", "workers"),
)
_MODEL_OPTIONS = tuple(name for name, option in OPTIONS.items() if option.group == "model")


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, **helps: str) -> None:
    """Add options of the table, each under the group that it names there.

    Args:
        helps: help texts that replace the table's, by the option's attribute: ``min_area`` for ``--min-area``.
    """
    for group, several in groupby(names, key=lambda name: OPTIONS[name].group):
        is_parser = isinstance(parser, argparse.ArgumentParser)
        place = parser.add_argument_group(group) if group and is_parser else parser
        for name in several:
            arguments = OPTIONS[name].arguments
            attribute = arguments.get("dest") or name.removeprefix("--").replace("-", "_")
            arguments = {**arguments, "help": helps.get(attribute, arguments["help"])}
            place.add_argument(*_SHORT.get(name, "").split(), name, **arguments)


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
    add_options(parser, *(name for name in _MODEL_OPTIONS if not left_out.get(name)), **helps)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--verbose``."""
    add_options(parser, "--json", "--verbose")
