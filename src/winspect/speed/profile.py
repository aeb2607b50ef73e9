"""Profile of a model on this machine: its stages and operators measured, beside the machine's limits."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from winspect.backbones.embeddings import Needs
from winspect.engines.timing import OperatorTime, synchronize
from winspect.errors import EngineError, SettingsError, SourceError
from winspect.methods.batch_method import BatchMethod
from winspect.methods.method import CutPicture, References
from winspect.pictures.decoding import Source, decode
from winspect.pictures.tiles import prepare
from winspect.speed.flops import ATTENTION, LAYER_NORM, LINEAR, OTHER, TowerShape, image_tower_flops
from winspect.speed.gemm import Gemm
from winspect.speed.operators import class_seconds, operator_class
from winspect.speed.roofline import Limits, class_figures, measure_bandwidth
from winspect.system.machine import describe_machine

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

SCHEMA = 1
TOWER = "tower"
STAGES = ("decode", "resize", TOWER, "scoring")
"""Stages that pictures pass, one after the other: decoding; cutting, resizing and normalising; the image tower;
windows, maps and scores."""
OPERATORS_KEPT = 20
_BLOCK = re.compile(r"^block\d+/")
_TRACED_BLOCK = re.compile(r"(?<=\bblocks\.)\d+(?=\.)")
_NUMBER = re.compile(r"_\d+(?=$|/[A-Z])")  # the number of an operator, not the 1 of ln_1/
_MADE_NUMBER = re.compile(r"_\d+(?=$|_)")
_GEMM_REPETITIONS = 10
_MOST_GEMM_ROWS = 8192  # more rows make a product no faster, and a GPU's batch would need gigabytes for it

REPORTED_SHARES: Mapping[str, float] = {LINEAR: 0.412, ATTENTION: 0.151, LAYER_NORM: 0.105, OTHER: 0.332}
REPORTED_TITLE = "an Ascend 910B4-1, recipe tiles; not measured here"
"""Shares of time that the report this project started from gives for its own machine, model and recipe (tiles)."""


@dataclass(frozen=True)
class Measured:
    """Times per picture, in seconds.

    Attributes:
        stages: of every stage of :data:`STAGES`, in a round without a profiler.
        operators: of the image tower, under the engine's profiler; one of each name and type, the slowest first.
        pictures, tiles: how many were measured in each round.
        tiles_per_pass: tiles that share the reading of the tower's weights, on average.
        tile_hw: height and width of a tile, in pixels.
    """

    stages: Mapping[str, float]
    operators: tuple[OperatorTime, ...]
    pictures: int
    tiles: int
    tiles_per_pass: float
    tile_hw: tuple[int, int]


def profile(model: WinCLIP, pictures: Sequence[Source], *, repeat: int = 3) -> dict[str, Any]:
    """Where a picture's time goes: the contents of ``profile.json``.

    Returns:
        All times per picture, in ms. ``picture_ms`` is the sum of all stages, one after the other; ``tower_ms`` the
        image tower's part, ``operators_ms`` the same as the sum of its operators under the engine's profiler, and
        ``classes`` and ``operators`` are parts of that. ``rest`` is what is outside the tower.

    Raises:
        WinspectError: see :func:`collect`.
    """
    measured, engine = collect(model, pictures, repeat=repeat), model.engine
    shape = TowerShape.of(engine.tower, _needs(model).seen_hw(measured.tile_hw))
    limits = _limits(model, shape, measured)
    figures = class_figures(
        class_seconds(measured.operators),
        image_tower_flops(shape, _needs(model)),
        limits,
        precision=engine.precision,
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
        "recipe": model.method.name,
        "pictures": measured.pictures,
        "tiles": measured.tiles,
        "repeat": repeat,
        "picture_ms": _ms(sum(measured.stages.values())),
        "tower_ms": _ms(measured.stages[TOWER]),
        "operators_ms": _ms(sum(operator.seconds for operator in measured.operators)),
        "classes": {name: _rounded(of_class) for name, of_class in figures.items()},
        "operators": slowest_operators(measured.operators),
        "rest": {name: _ms(seconds) for name, seconds in measured.stages.items() if name != TOWER},
        **_rounded(asdict(limits)),
        "reported": {"title": REPORTED_TITLE, "shares": dict(REPORTED_SHARES)},
    }


def collect(model: WinCLIP, pictures: Sequence[Source], *, repeat: int = 3) -> Measured:
    """Measure a model on pictures, as its recipe, engine and precision are.

    Zero-shot where the recipe can do it; else the first picture, upright, is the good sample. A recipe that compares
    the pictures of a batch has all of these for its batch.

    Every picture passes every stage in each of ``repeat`` rounds, then the operators are timed as often. Of each
    stage and each operator the median counts. One round goes before and does not count.

    Args:
        pictures: at least one, all of which can be used.

    Raises:
        EngineError: the model's engine cannot say how long its operators take, or has timed none.
        SourceError: no pictures, too few of them for a batch, or some whose tiles are of another size.
        SettingsError: ``repeat`` is not a whole number from 1.
        PictureError: a picture cannot be used.
    """
    if type(repeat) is not int or repeat < 1:
        raise SettingsError(f"repeat: got {repeat!r}, need a whole number from 1")
    if not len(pictures):
        raise SourceError("got no pictures to profile, need at least one")
    timings = getattr(model.engine, "timings", None)
    if timings is None:
        raise EngineError(
            f"engine {model.engine.name} cannot say how long its operators take; profile with engine torch, openvino "
            "or onnx"
        )
    references = _references(model, pictures[0])
    _, tiles = _round(model, pictures, references)
    rounds = [_round(model, pictures, references)[0] for _ in range(repeat)]
    runs = [_by_operator(timings(tiles, _needs(model))) for _ in range(repeat)]
    if not any(seconds > 0 for run in runs for seconds in run.values()):
        raise EngineError(f"engine {model.engine.name} has timed no operator; profile with another engine")
    passes = math.ceil(len(tiles) / model.engine.tiles_per_pass(_needs(model)))
    return Measured(
        stages={name: median(seconds[name] for seconds in rounds) / len(pictures) for name in STAGES},
        operators=_medians(runs, len(pictures)),
        pictures=len(pictures),
        tiles=len(tiles),
        tiles_per_pass=len(tiles) / passes,
        tile_hw=(tiles.shape[2], tiles.shape[3]),
    )


def _needs(model: WinCLIP) -> Needs:
    return model.method.needs(few_shot=not model.method.zero_shot, maps=True)


def _references(model: WinCLIP, picture: Source) -> References | None:
    """What is kept of a picture as the good sample; None for a recipe that works without."""
    if model.method.zero_shot:
        return None
    tiles = torch.from_numpy(prepare(picture, model.preprocess, model.cut).tiles)
    return model.method.fit([model.engine.encode(tiles, _needs(model))])


def _round(
    model: WinCLIP, pictures: Sequence[Source], references: References | None
) -> tuple[dict[str, float], Tensor]:
    """Seconds of every stage for all pictures, and their tiles."""
    marks = [perf_counter()]

    def mark() -> None:
        synchronize(model.device)
        marks.append(perf_counter())

    images = [decode(picture) for picture in pictures]
    mark()
    items = [prepare(image, model.preprocess, model.cut) for image in images]
    if len({item.tiles.shape[1:] for item in items}) > 1:
        raise SourceError(
            f"recipe {model.method.name} sees these pictures at several sizes: profile those of one shape"
        )
    tiles = torch.from_numpy(np.concatenate([item.tiles for item in items]))
    mark()
    embeddings = model.engine.encode(tiles, _needs(model))
    mark()
    # How long scores take does not depend on what the prompts say: the text tower is left out of it.
    text = torch.ones(2, embeddings.image.shape[-1], device=embeddings.image.device)
    with torch.inference_mode():
        pictures_cut = [CutPicture(len(item.tiles), item.size_wh) for item in items]
        if isinstance(model.method, BatchMethod):
            batch = model.method.batch(len(items))
            batch.add(embeddings)
            batch.scores()
        else:
            model.method.score(embeddings, pictures_cut, text=text, references=references)
    mark()
    return {name: after - before for name, before, after in zip(STAGES, marks, marks[1:], strict=False)}, tiles


def _by_operator(times: Iterable[OperatorTime]) -> dict[tuple[Any, ...], float]:
    """Seconds of one run, by name, type and what was merged.

    OpenVINO numbers the operators it makes itself anew whenever it compiles, so these numbers are left out.
    """
    seconds: dict[tuple[Any, ...], float] = defaultdict(float)
    for time in times:
        name, *fused = (_MADE_NUMBER.sub("", name) for name in (time.name, *time.fused))
        seconds[name, time.kind, tuple(fused)] += time.seconds
    return seconds


def _medians(runs: Sequence[Mapping[tuple[Any, ...], float]], pictures: int) -> tuple[OperatorTime, ...]:
    """Each operator with its median over the runs, per picture; the slowest first."""
    times = [
        OperatorTime(name, kind, median(run.get((name, kind, fused), 0.0) for run in runs) / pictures, fused)
        for name, kind, fused in dict.fromkeys(key for run in runs for key in run)
    ]
    return tuple(sorted(times, key=lambda time: -time.seconds))


def slowest_operators(operators: Iterable[OperatorTime]) -> list[dict[str, Any]]:
    """The slowest operators, at most :data:`OPERATORS_KEPT`, the same operator of all blocks taken together."""
    seconds: dict[tuple[str, str, str], float] = defaultdict(float)
    for operator in operators:
        seconds[_common_name(operator), operator.kind, operator_class(operator)] += operator.seconds
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:OPERATORS_KEPT]
    return [{"name": name, "kind": kind, "class": of, "ms": _ms(spent)} for (name, kind, of), spent in slowest]


def _common_name(operator: OperatorTime) -> str:
    """``block*/mlp/c_fc/matmul`` for ``block3/mlp/c_fc/matmul_17``; the type for a name the engine made up."""
    if "/" not in operator.name:
        return operator.kind
    return _NUMBER.sub("", _TRACED_BLOCK.sub("*", _BLOCK.sub("block*/", operator.name)))


def _limits(model: WinCLIP, shape: TowerShape, measured: Measured) -> Limits:
    """What this machine's matrix products and memory reach, in the engine and the precision of the model."""
    if getattr(model.engine, "openvino_device", "CPU") != "CPU":
        return Limits(None, None)  # a GPU or NPU of OpenVINO's: neither rate can be measured from here
    tokens = sum(count * length for count, length in shape.sequences(_needs(model)))
    rows = min(_MOST_GEMM_ROWS, round(tokens * measured.tiles_per_pass))
    sizes = {"rows": rows, "width": shape.width, "hidden": shape.mlp_width}
    gemm = Gemm(model.engine.name, model.engine.precision, **sizes, device=str(model.device))
    return Limits(max(gemm.rates(_GEMM_REPETITIONS), default=None), measure_bandwidth(model.device))


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Shares are left as they are, so that they sum to 1; everything else to what a measurement can tell."""
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) and name != "share" else value
        for name, value in figures.items()
    }
