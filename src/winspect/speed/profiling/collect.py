"""Measures: the stages of judging pictures, and the operators of the image tower in the model's own engine."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from winspect.engines.timing import OperatorTime, synchronize
from winspect.errors import EngineError, SettingsError, SourceError
from winspect.methods.winclip.judge import judge
from winspect.pictures.decoding import Source, decode
from winspect.pictures.tiles import Prepared, prepare

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

DECODE, RESIZE, TOWER, SCORING = STAGES = ("decode", "resize", "tower", "scoring")
"""What is done to pictures, one after the other: decoding; cutting, resizing and normalising; the image tower;
windows, maps and scores."""


@dataclass(frozen=True)
class Measured:
    """Times per picture, in seconds.

    Attributes:
        stages: of every stage of :data:`STAGES`, in a round without a profiler.
        operators: of the image tower, under the engine's profiler; one of each name and type.
        pictures, tiles: how many were measured in each round.
        tiles_per_pass: tiles that share the reading of the tower's weights, on average.
    """

    stages: Mapping[str, float]
    operators: tuple[OperatorTime, ...]
    pictures: int
    tiles: int
    tiles_per_pass: float


def collect(model: WinCLIP, pictures: Sequence[Source], *, repeat: int = 3) -> Measured:
    """Measure a model on pictures, zero-shot, as its recipe, engine and precision are.

    Every picture passes every stage in each of ``repeat`` rounds, then the operators are timed as often. Of each
    stage and each operator the median counts. One round goes before and does not count.

    Args:
        pictures: at least one, all of which can be used.

    Raises:
        EngineError: the model's engine cannot say how long its operators take, or has timed none.
        SourceError: no pictures.
        SettingsError: ``repeat`` is not a whole number from 1.
        PictureError: a picture cannot be used.
    """
    if type(repeat) is not int or repeat < 1:
        raise SettingsError(f"repeat: got {repeat!r}, need a whole number from 1")
    if not len(pictures):
        raise SourceError("got no pictures to profile, need at least one")
    timings = _timings(model)
    _, tiles = _round(model, pictures)
    rounds = [_round(model, pictures)[0] for _ in range(repeat)]
    runs = [_by_operator(timings(tiles, **_options(model))) for _ in range(repeat)]
    if not any(seconds > 0 for run in runs for seconds in run.values()):
        raise EngineError(f"engine {model.engine.name} has timed no operator; profile with another engine")
    passes = math.ceil(len(tiles) / model.engine.tiles_per_pass(model.recipe.scales))
    return Measured(
        stages={name: median(seconds[name] for seconds in rounds) / len(pictures) for name in STAGES},
        operators=_medians(runs, len(pictures)),
        pictures=len(pictures),
        tiles=len(tiles),
        tiles_per_pass=len(tiles) / passes,
    )


def prepare_for(model: WinCLIP, picture: Source) -> Prepared:
    """A picture as the model's recipe cuts it.

    Raises:
        PictureError: it cannot be used.
    """
    return prepare(picture, model.preprocess, model.cut)


def _timings(model: WinCLIP) -> Callable[..., list[OperatorTime]]:
    timings = getattr(model.engine, "timings", None)
    if timings is None:
        raise EngineError(
            f"engine {model.engine.name} cannot say how long its operators take; profile with engine torch, openvino "
            "or onnx"
        )
    return timings


def _options(model: WinCLIP) -> dict[str, Any]:
    return {"scales": model.recipe.scales, "stride": model.recipe.stride, "patches": False}


def _round(model: WinCLIP, pictures: Sequence[Source]) -> tuple[dict[str, float], Tensor]:
    """Seconds of every stage for all pictures, and their tiles."""
    marks = [perf_counter()]

    def mark() -> None:
        synchronize(model.device)
        marks.append(perf_counter())

    images = [decode(picture) for picture in pictures]
    mark()
    items = [prepare_for(model, image) for image in images]
    tiles = torch.from_numpy(np.concatenate([item.tiles for item in items]))
    mark()
    embeddings = model.engine.encode(tiles, **_options(model))
    mark()
    # How long scores take does not depend on what the prompts say: the text tower is left out of it.
    text = torch.ones(2, embeddings.image.shape[-1], device=embeddings.image.device)
    with torch.inference_mode():
        judge(embeddings, text, None, model.recipe, model.grid_hw, [len(item.tiles) for item in items])
    mark()
    return {name: after - before for name, before, after in zip(STAGES, marks, marks[1:], strict=False)}, tiles


def _by_operator(times: Sequence[OperatorTime]) -> dict[tuple[Any, ...], float]:
    """The seconds of one run, by name, type and what was merged.

    OpenVINO numbers the operators it makes itself anew whenever it compiles, so numbers at the end are left out.
    """
    seconds: dict[tuple[Any, ...], float] = {}
    for own in times:
        key = _unnumbered(own.name), own.kind, tuple(_unnumbered(name) for name in own.fused)
        seconds[key] = seconds.get(key, 0.0) + own.seconds
    return seconds


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+(?=$|_)", "", name)


def _medians(runs: Sequence[Mapping[tuple[Any, ...], float]], pictures: int) -> tuple[OperatorTime, ...]:
    """Each operator with its median over the runs, per picture; the slowest first."""
    keys = dict.fromkeys(key for run in runs for key in run)
    times = [
        OperatorTime(name, kind, median(run.get((name, kind, fused), 0.0) for run in runs) / pictures, fused)
        for name, kind, fused in keys
    ]
    return tuple(sorted(times, key=lambda own: -own.seconds))
