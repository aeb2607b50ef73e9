"""Several pictures of one request -> rows, in order; and maps small enough to be sent."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.calibration import DecisionRule, RegionRule
from winspect.calibration.judgement import check_threshold, chosen_regions
from winspect.errors import PictureError
from winspect.methods.result import Result
from winspect.methods.winclip.recipes import Recipe
from winspect.outputs.rows import row_of
from winspect.service.contract import Judged
from winspect.service.http.metrics import Metrics

if TYPE_CHECKING:
    from winspect.service.backend import Backend

MAP_PIXELS = 2**20
"""Pixels of a map that is sent, at most; maps of larger pictures are sampled at fewer places."""
REPLY_PIXELS = 4 * MAP_PIXELS
"""Pixels of all maps of one answer."""


@dataclass(frozen=True)
class Question:
    """What is asked about all pictures of a request.

    Attributes:
        category_name: what the part is called.
        deadline: on :func:`time.monotonic`'s clock.
        threshold: scores from here on are anomalous, in place of the calibration's.
        overlay, maps: what is wanted beside the score.
        boxes: which pictures get boxes of defects, ``none``, ``anomalous`` or ``all``; None for ``anomalous`` where the
            calibration says which pixels are defects.
        pixel_threshold, min_area: in place of the calibration's; see :class:`winspect.calibration.RegionRule`.
        zero_shot: judge without the class' references.
    """

    category_name: str
    deadline: float
    threshold: float | None = None
    overlay: bool = False
    maps: bool = False
    boxes: str | None = None
    pixel_threshold: float | None = None
    min_area: float | None = None
    zero_shot: bool = False

    @property
    def needs_maps(self) -> bool:
        """Whether boxes are asked for whatever the calibration says."""
        return self.boxes in ("anomalous", "all") or self.pixel_threshold is not None

    def regions(self, calibrated: RegionRule | None) -> RegionRule | None:
        """Which defects get boxes; None for none.

        Raises:
            SettingsError: a value out of range.
        """
        return chosen_regions(self.boxes, self.pixel_threshold, self.min_area, calibrated)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """One picture's row (see :func:`winspect.outputs.rows.row_of`), and what it was made from."""

    row: dict[str, Any]
    result: Result
    judged: Judged | None


async def judge_all(
    backend: Backend, metrics: Metrics, pictures: Sequence[tuple[str, bytes | np.ndarray]], question: Question
) -> list[Answer]:
    """Judge named pictures. Those that cannot be used have an error in their row; the others go on.

    Raises:
        PictureError: the only picture cannot be used.
        SettingsError: a threshold that no score of the recipe reaches.
        WinspectError: the request as a whole cannot be answered (overload, deadline, class); the rest is dropped.
    """
    if question.threshold is not None or question.pixel_threshold is not None:
        score_range = Recipe(**(await backend.info())["recipe"]).score_range
        check_threshold(question.threshold, score_range)
        check_threshold(question.pixel_threshold, score_range, "pixel_threshold")
    RegionRule(min_area=question.min_area)  # refuses a value out of range
    tasks = [asyncio.ensure_future(_judge(backend, name, picture, question)) for name, picture in pictures]
    try:
        outcomes = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # of those that still wait after an error; no effect on those that are done
        await asyncio.gather(*tasks, return_exceptions=True)
    # Looking for regions takes milliseconds a picture: not in the thread that answers everyone.
    answers = await asyncio.to_thread(
        lambda: [_answer(name, outcome, question) for (name, _), outcome in zip(pictures, outcomes, strict=True)]
    )
    for answer in answers:
        metrics.failed() if answer.judged is None else metrics.judged(answer.judged, answer.row["verdict"])
    if len(answers) == 1 and answers[0].result.error is not None:
        raise answers[0].result.error
    return answers


async def _judge(backend: Backend, name: str, picture: bytes | np.ndarray, question: Question) -> Judged | PictureError:
    try:
        return await backend.predict(
            picture,
            name=name,
            category_name=question.category_name,
            deadline=question.deadline,
            overlay=question.overlay,
            threshold=question.threshold,
            maps=question.maps or question.needs_maps,
            boxes=question.boxes != "none",
            zero_shot=question.zero_shot,
        )
    except PictureError as error:
        return error


def _answer(name: str, outcome: Judged | PictureError, question: Question) -> Answer:
    if isinstance(outcome, PictureError):
        result = Result(name, question.category_name, error=PictureError(name, outcome.reason))
        return Answer({**row_of(DecisionRule(question.threshold).decide(result)), "p_value": None}, result, None)
    result, decision = replace(outcome.result, path=name), outcome.decision
    rule = DecisionRule(question.threshold, regions=question.regions(outcome.regions))
    if decision is not None and question.threshold is None:
        rule = replace(rule, threshold=decision.threshold, anomalous_at=False)
    row = row_of(rule.decide(result))
    return Answer({**row, "p_value": None if decision is None else decision.p_value}, result, outcome)


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
    scale = min(1.0, math.sqrt(max_pixels / math.prod(result.size_wh)))

    def shrunk(length: int) -> int:
        return length if scale == 1.0 else max(1, int(length * scale))

    small = replace(
        result,
        size_wh=(shrunk(result.size_wh[0]), shrunk(result.size_wh[1])),
        # Rounding down keeps the order of edges: tiles that met or overlapped still do.
        tile_boxes=tuple(
            (int(x0 * scale), int(y0 * scale), shrunk(x1), shrunk(y1)) for x0, y0, x1, y1 in result.tile_boxes
        ),
    )
    anomaly_map = small.anomaly_map
    if anomaly_map is None:
        raise ValueError(f"{result.path}: the result has no map")
    return np.ascontiguousarray(anomaly_map, dtype="<f4")


def to_json(answer: Answer, *, overlay: bool, map_pixels: int | None) -> dict[str, Any]:
    """A row of ``/v1/predict``.

    Args:
        overlay: with the heat map over the picture, as base64 of a PNG file.
        map_pixels: with the anomaly map of at most so many pixels, as base64 of little-endian float32.
    """
    result, judged = answer.result, answer.judged
    row = {
        **answer.row,
        "size": None if result.size_wh is None else list(result.size_wh),
        "shots": None if judged is None else judged.shots,
    }
    row["map"] = None
    if overlay:
        png = None if judged is None else judged.overlay_png
        row["overlay_png"] = None if png is None else base64.b64encode(png).decode()
    if map_pixels is not None and judged is not None:
        values = small_map(result, map_pixels)
        data = base64.b64encode(values.tobytes()).decode()
        row["map"] = {"shape": list(values.shape), "dtype": "float32", "data": data, "range": judged.score_range}
    return row
