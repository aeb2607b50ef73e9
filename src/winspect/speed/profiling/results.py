"""The profile of a model on this machine: measured, counted, and held against the machine's limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from winspect.engines.timing import OperatorTime
from winspect.pictures.decoding import Source
from winspect.speed.flops import ATTENTION, LAYER_NORM, LINEAR, OTHER, TowerShape, image_tower_flops
from winspect.speed.profiling.chart import profile_chart
from winspect.speed.profiling.classes import class_seconds, operator_class
from winspect.speed.profiling.collect import TOWER, Measured, collect
from winspect.speed.profiling.roofline import Limits, class_figures, measure_bandwidth
from winspect.system.files import make_folder, replacing
from winspect.system.machine import describe_machine

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

SCHEMA = 1
RESULTS_FILE, CHART_FILE = "profile.json", "profile.svg"
OPERATORS_KEPT = 20
_BLOCK = re.compile(r"^block\d+/")
_NUMBER = re.compile(r"_\d+(?=$|/[A-Z])")  # the number of an operator, not the 1 of ln_1/
_GEMM_REPETITIONS = 10
_MOST_GEMM_ROWS = 8192  # more rows make a product no faster, and a GPU's batch would need gigabytes for it

REPORTED_SHARES: Mapping[str, float] = MappingProxyType(
    {LINEAR: 0.412, ATTENTION: 0.151, LAYER_NORM: 0.105, OTHER: 0.332}
)
REPORTED_TITLE = "an Ascend 910B4-1, recipe tiles; not measured here"
"""Shares of time that the report this project started from gives for its own machine, model and recipe (tiles)."""


def profile(model: WinCLIP, pictures: Sequence[Source], *, repeat: int = 3) -> dict[str, Any]:
    """Where a picture's time goes: the contents of ``profile.json``.

    Returns:
        All times per picture, in ms. ``picture_ms`` is the sum of all stages, one after the other; ``tower_ms`` the
        image tower's part, ``operators_ms`` the same as the sum of its operators under the engine's profiler, and
        ``classes`` and ``operators`` are parts of that. ``rest`` is what is outside the tower.

    Raises:
        WinspectError: see :func:`winspect.speed.profiling.collect.collect`.
    """
    measured = collect(model, pictures, repeat=repeat)
    shape = TowerShape.of(model.engine.tower)
    limits = _limits(model, shape, measured)
    recipe = model.recipe
    figures = class_figures(
        class_seconds(measured.operators),
        image_tower_flops(shape, scales=recipe.scales, stride=recipe.stride, patches=False),
        limits,
        precision=model.engine.precision,
        tiles_per_picture=measured.tiles / measured.pictures,
        tiles_per_pass=measured.tiles_per_pass,
    )
    return {
        "schema": SCHEMA,
        "machine": describe_machine(str(model.device)),
        "model": model.model,
        "engine": model.engine.name,
        "precision": model.engine.precision,
        "device": str(model.device),
        "recipe": recipe.name,
        "pictures": measured.pictures,
        "tiles": measured.tiles,
        "repeat": repeat,
        "picture_ms": _ms(sum(measured.stages.values())),
        "tower_ms": _ms(measured.stages[TOWER]),
        "operators_ms": _ms(sum(operator.seconds for operator in measured.operators)),
        "classes": {name: _rounded(asdict(own)) for name, own in figures.items()},
        "operators": slowest_operators(measured.operators),
        "rest": {name: _ms(seconds) for name, seconds in measured.stages.items() if name != TOWER},
        **_rounded(asdict(limits)),
        "reported": {"title": REPORTED_TITLE, "shares": dict(REPORTED_SHARES)},
    }


def slowest_operators(operators: Iterable[OperatorTime]) -> list[dict[str, Any]]:
    """The slowest operators, at most :data:`OPERATORS_KEPT`, the same operator of all blocks taken together."""
    seconds: dict[tuple[str, str, str], float] = {}
    for own in operators:
        key = _common_name(own), own.kind, operator_class(own)
        seconds[key] = seconds.get(key, 0.0) + own.seconds
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:OPERATORS_KEPT]
    return [{"name": name, "kind": kind, "class": own, "ms": _ms(spent)} for (name, kind, own), spent in slowest]


def _common_name(operator: OperatorTime) -> str:
    """``block*/mlp/c_fc/matmul`` for ``block3/mlp/c_fc/matmul_17``; the type for a name the engine made up."""
    if "/" not in operator.name:
        return operator.kind
    return _NUMBER.sub("", _BLOCK.sub("block*/", operator.name))


def write_profile(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``profile.json`` and ``profile.svg``; returns both paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(folder)
    contents = {RESULTS_FILE: json.dumps(results, indent=2) + "\n", CHART_FILE: f"{profile_chart(results)}\n"}
    paths = []
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


def _limits(model: WinCLIP, shape: TowerShape, measured: Measured) -> Limits:
    """What this machine's matrix products and memory reach, in the engine and the precision of the model."""
    from winspect.speed.benchmark.gemm import Gemm

    if getattr(model.engine, "openvino_device", "CPU") != "CPU":
        return Limits(None, None)  # a GPU or NPU of OpenVINO's: neither rate can be measured from here
    scales = model.recipe.scales
    tokens = 1 + shape.patches + sum(shape.windows(s, model.recipe.stride) * (1 + s * s) for s in scales)
    rows = min(_MOST_GEMM_ROWS, round(tokens * measured.tiles_per_pass))
    sizes = {"rows": rows, "width": shape.width, "hidden": shape.mlp_width}
    gemm = Gemm(model.engine.name, model.engine.precision, **sizes, device=str(model.device))
    best = None if gemm.error else max(gemm.rates(_GEMM_REPETITIONS))
    return Limits(best, measure_bandwidth(model.device))


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Shares are left as they are, so that they sum to 1; everything else to what a measurement can tell."""
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) and name != "share" else value
        for name, value in figures.items()
    }
