"""Several pictures of one request -> answers, in order; and maps small enough to be sent."""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.calibration import DecisionRule
from winspect.calibration.judgement import check_threshold
from winspect.errors import PictureError
from winspect.methods.result import Result, shrunk, smaller_size
from winspect.outputs.rows import row_of
from winspect.service.contract import Answer, Question
from winspect.service.http.metrics import Metrics
from winspect.service.http.refusals import Refused
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

MAP_PIXELS = 2**20
"""Pixels of a map that is sent, at most; maps of larger pictures are sampled at fewer places."""
REPLY_PIXELS = 4 * MAP_PIXELS
"""Pixels of all maps of one answer."""


def deadline_of(asked: float | None, unit_s: float, settings: ServiceSettings) -> float:
    """When an answer is due, on :func:`time.monotonic`'s clock, counted from now: the request is whole.

    Args:
        asked: in units of ``unit_s``; None, and more than the service's own deadline, are that one.

    Raises:
        Refused: 422, not above 0.
    """
    if asked is not None and asked <= 0:
        raise Refused(422, f"the deadline: got {asked:g}, need a number above 0")
    seconds = settings.deadline_s if asked is None else min(asked * unit_s, settings.deadline_s)
    return time.monotonic() + seconds


async def inspect_all(
    backend: Backend,
    metrics: Metrics,
    pictures: Sequence[tuple[str, bytes | np.ndarray]],
    class_name: str,
    deadline: float,
    **asked: Any,
) -> list[Answer]:
    """Inspect the pictures of a request. Those that cannot be used have an error in their result; the others go on.

    Args:
        pictures: names, and files or pixels.
        asked: what else is asked about each; see :class:`Question`.

    Raises:
        PictureError: the only picture cannot be used.
        SettingsError: a threshold that no score of the recipe reaches.
        WinspectError: the request as a whole cannot be answered (overload, deadline, class); the rest is dropped.
    """
    questions = [Question(name, picture, class_name, deadline, **asked) for name, picture in pictures]
    first = questions[0]
    if (first.threshold, first.review_threshold, first.pixel_threshold) != (None, None, None):
        low, high = (await backend.info())["score_range"]
        score_range = low, math.inf if high is None else high
        check_threshold(first.threshold, score_range)
        check_threshold(first.review_threshold, score_range, "review_threshold")
        check_threshold(first.pixel_threshold, score_range, "pixel_threshold")
    tasks = [asyncio.ensure_future(_inspect(backend, question)) for question in questions]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # of those that still wait after an error; no effect on those that are done
        await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        metrics.answered(answer)
    if backend.deliverer is not None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        await backend.deliver([{**row_with_p_value(answer), "id": answer.id, "time": now} for answer in answers])
    if len(answers) == 1 and answers[0].result.error is not None:
        raise answers[0].result.error
    return answers


async def _inspect(backend: Backend, question: Question) -> Answer:
    try:
        return await backend.predict(question)
    except PictureError as error:
        failed = Result(question.name, question.category_name, error=PictureError(question.name, error.reason))
        return Answer(DecisionRule(question.threshold).decide(failed))


def small_map(result: Result, max_pixels: int) -> np.ndarray:
    """The anomaly map at the picture's own size, or sampled at as many places of it as are allowed.

    The whole map of a large picture is never made.

    Returns:
        float32 (height, width), at most ``max_pixels``, of the picture's proportions.

    Raises:
        ValueError: the result has no map.
    """
    if result.size_wh is None or result.tile_maps is None:
        raise ValueError(f"{result.path}: the result has no map")
    small = shrunk(result, smaller_size(result.size_wh, pixels=max_pixels))
    return np.ascontiguousarray(small.anomaly_map, dtype="<f4")


def row_with_p_value(answer: Answer) -> dict[str, Any]:
    """An answer as a row, with ``p_value`` whether there is a calibration or not."""
    return {**row_of(answer.judgement), "p_value": answer.judgement.p_value}


def to_json(answer: Answer, *, overlay: bool, map_pixels: int | None) -> dict[str, Any]:
    """A row of ``/v1/predict``.

    Args:
        overlay: with the heat map over the picture, as base64 of a PNG file.
        map_pixels: with the anomaly map of at most so many pixels, as base64 of little-endian float32.
    """
    result, failed = answer.result, answer.result.error is not None
    row = {**row_with_p_value(answer), "id": answer.id}
    row["size"] = None if result.size_wh is None else list(result.size_wh)
    row["shots"] = None if failed else answer.shots
    row["map"] = None
    if overlay:
        row["overlay_png"] = None if answer.overlay_png is None else base64.b64encode(answer.overlay_png).decode()
    if map_pixels is not None and not failed:
        values = small_map(result, map_pixels)
        data = base64.b64encode(values.tobytes()).decode()
        row["map"] = {"shape": list(values.shape), "dtype": "float32", "data": data, "range": answer.score_range}
    return row
