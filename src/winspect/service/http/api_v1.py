"""``/v1``: pictures in, rows out; references, calibrations and classes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from winspect.service.contract import CalibrationState, ClassInfo, UnknownClass, class_key
from winspect.service.http import documents as doc
from winspect.service.http.forms import Form, read_form
from winspect.service.http.judging import MAP_PIXELS, REPLY_PIXELS, Answer, Question, judge_all, to_json
from winspect.service.http.metrics import Metrics
from winspect.service.http.refusals import JSONAnswer, Refused
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

DEFAULT_CLASS = "object"
DEFAULT_RATE = 0.01

_FIELDS = ("class", "overlay", "map", "threshold", "boxes", "pixel_threshold", "min_area", "zero_shot", "deadline_ms")
_FILES = ("pictures", "picture")
ClassName = Annotated[str, Query(alias="class", description="What the part is called.")]


def add_v1(app: FastAPI, backend: Backend, settings: ServiceSettings, metrics: Metrics) -> None:
    """The endpoints. Bodies are read by :mod:`winspect.service.http.forms`, which holds the limits."""

    async def pictures_form(request: Request, *fields: str) -> Form:
        form = await read_form(request, fields=fields, files=_FILES, max_files=settings.max_pictures)
        if not form.files:
            raise Refused(422, "got no pictures; send one or more files in the field 'pictures'")
        return form

    @app.post(
        "/v1/predict",
        tags=["predict"],
        summary="Judge pictures",
        responses={
            **doc.json_answer(
                "A row per picture; one that cannot be used among several has an error.", doc.PREDICTIONS
            ),
            **doc.errors(404, 503, 504, body=True),
        },
        openapi_extra=doc.multipart(
            {
                "class": {**doc.CLASS, "default": DEFAULT_CLASS},
                "overlay": {"type": "boolean", "description": "Also the heat map over the picture, as PNG."},
                "map": {"type": "boolean", "description": "Also the anomaly map, of at most a megapixel."},
                "threshold": {"type": "number", "description": "Scores from here on are anomalous."},
                "boxes": {
                    "enum": ["none", "anomalous", "all"],
                    "description": "Which pictures get boxes of defects; all: also those judged normal. Without it "
                    "anomalous, where the class has a calibration. none is less work.",
                },
                "pixel_threshold": {"type": "number", "description": "A defect has a map value above this."},
                "min_area": {"type": "number", "minimum": 0, "description": "Smaller regions, in pixels, are none."},
                "zero_shot": {"type": "boolean", "description": "Judge without the class' good samples."},
                "deadline_ms": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "Answer by then, or not at all.",
                },
            },
            ["pictures"],
        ),
    )
    async def predict(request: Request) -> Response:
        form = await pictures_form(request, *_FIELDS)
        question = Question(
            category_name=form.text("class", DEFAULT_CLASS),
            deadline=deadline_of(form.number("deadline_ms"), 1e-3, settings),
            threshold=form.number("threshold"),
            overlay=form.flag("overlay"),
            maps=form.flag("map"),
            boxes=form.choice("boxes", ("none", "anomalous", "all")),
            pixel_threshold=form.number("pixel_threshold"),
            min_area=form.number("min_area"),
            zero_shot=form.flag("zero_shot"),
        )
        answers = await judge_all(backend, metrics, [(file.name, file.content) for file in form.files], question)
        if question.overlay or question.maps:  # megabytes to encode: not in the thread that answers everyone
            return await asyncio.to_thread(_rows, answers, question)
        return _rows(answers, question)

    @app.post(
        "/v1/references",
        tags=["references"],
        summary="Show good samples of a class: it is judged few-shot from now on",
        responses={
            **doc.json_answer("The class with its good samples.", doc.CLASS_INFO),
            **doc.errors(404, 503, 507, body=True),
        },
        openapi_extra=doc.multipart(
            {
                "class": doc.CLASS,
                "add": {"type": "boolean", "default": False, "description": "Beside those shown before, not in place."},
            },
            ["class", "pictures"],
        ),
    )
    async def set_references(request: Request) -> Response:
        form = await pictures_form(request, "class", "add")
        pictures = [(file.name, file.content) for file in form.files]
        return JSONAnswer(_class(await backend.set_references(form.text("class"), pictures, add=form.flag("add"))))

    @app.get(
        "/v1/references",
        tags=["references"],
        summary="The good samples of a class",
        responses={**doc.json_answer("In the order shown.", doc.REFERENCES), **doc.errors(404, 422, 503)},
    )
    async def references(category_name: ClassName) -> Response:
        stored = await backend.references(category_name)
        return JSONAnswer({"class": class_key(category_name), "references": [asdict(one) for one in stored]})

    @app.delete(
        "/v1/references",
        tags=["references"],
        summary="Forget the good samples of a class: it is judged zero-shot again",
        responses={**doc.json_answer("The class.", doc.CLASS_INFO), **doc.errors(403, 404, 422, 503, 507)},
    )
    async def delete_references(category_name: ClassName) -> Response:
        await backend.delete_references(category_name)
        return JSONAnswer(_class(await backend.class_info(category_name)))

    @app.get(
        "/v1/classes",
        tags=["classes"],
        summary="The classes that something is known of",
        responses={**doc.json_answer("By name.", doc.CLASSES), **doc.errors(503)},
    )
    async def classes() -> Response:
        return JSONAnswer({"classes": [_class(one) for one in await backend.classes()]})

    @app.get(
        "/v1/model",
        tags=["model"],
        summary="What judges: model, weights, recipe, engine, precision",
        responses={**doc.json_answer("What decides the scores.", {"type": "object"}), **doc.errors(503)},
    )
    async def model() -> Response:
        return JSONAnswer(await backend.info())

    _add_calibrations(app, backend, pictures_form)


def _add_calibrations(app: FastAPI, backend: Backend, pictures_form: Callable[..., Awaitable[Form]]) -> None:
    @app.post(
        "/v1/calibrations/pictures",
        tags=["calibrations"],
        summary="Store good pictures of a class to calibrate with",
        responses={
            **doc.json_answer("How many the class has now; copies count once.", doc.GOOD_PICTURES),
            **doc.errors(404, 503, 507, body=True),
        },
        openapi_extra=doc.multipart({"class": doc.CLASS}, ["class", "pictures"]),
    )
    async def add_good(request: Request) -> Response:
        form = await pictures_form(request, "class")
        count = await backend.add_good(form.text("class"), [(file.name, file.content) for file in form.files])
        return JSONAnswer({"class": class_key(form.text("class")), "good_pictures": count})

    @app.delete(
        "/v1/calibrations/pictures",
        tags=["calibrations"],
        summary="Forget the good pictures of a class",
        responses={**doc.json_answer("The class.", doc.CLASS_INFO), **doc.errors(403, 404, 422, 503, 507)},
    )
    async def delete_good(category_name: ClassName) -> Response:
        await backend.delete_good(category_name)
        return JSONAnswer(_class(await backend.class_info(category_name)))

    @app.post(
        "/v1/calibrations",
        tags=["calibrations"],
        status_code=202,
        summary="Calibrate a class on its stored good pictures, in the background",
        responses={
            202: {"description": "It runs.", "content": {"application/json": {"schema": doc.CALIBRATION}}},
            **doc.errors(404, 503, 507, body=True),
        },
        openapi_extra=doc.multipart(
            {
                "class": doc.CLASS,
                "max_false_alarms": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "exclusiveMaximum": 1,
                    "default": DEFAULT_RATE,
                    "description": "The share of good pictures that may be flagged; 1/k needs k - 1 pictures.",
                },
            },
            ["class"],
        ),
    )
    async def start_calibration(request: Request) -> Response:
        form = await read_form(request, fields=("class", "max_false_alarms"))
        rate = form.number("max_false_alarms")
        await backend.start_calibration(form.text("class"), DEFAULT_RATE if rate is None else rate)
        return JSONAnswer(await state_of(form.text("class")), 202)

    @app.get(
        "/v1/calibrations",
        tags=["calibrations"],
        summary="Where the calibration of a class stands",
        responses={**doc.json_answer("State, and what it came to.", doc.CALIBRATION), **doc.errors(404, 422, 503)},
    )
    async def calibration(category_name: ClassName) -> Response:
        return JSONAnswer(await state_of(category_name))

    @app.get(
        "/v1/calibrations/document",
        tags=["calibrations"],
        summary="The calibration of a class as `winspect predict --calibration` reads it",
        responses={**doc.json_answer("A calibration.", {"type": "object"}), **doc.errors(404, 422, 503)},
    )
    async def document(category_name: ClassName) -> Response:
        state = await backend.calibration(category_name)
        if state.document is None:
            raise UnknownClass(f"{class_key(category_name)!r} has no calibration; its state is {state.state!r}")
        return JSONAnswer(state.document)

    @app.delete(
        "/v1/calibrations",
        tags=["calibrations"],
        summary="Drop the calibration of a class, or stop the one that runs",
        responses={**doc.json_answer("The class.", doc.CLASS_INFO), **doc.errors(403, 404, 422, 503, 507)},
    )
    async def delete_calibration(category_name: ClassName) -> Response:
        await backend.delete_calibration(category_name)
        return JSONAnswer(_class(await backend.class_info(category_name)))

    async def state_of(category_name: str) -> dict[str, Any]:
        return {"class": class_key(category_name), **_calibration(await backend.calibration(category_name))}


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


def _rows(answers: list[Answer], question: Question) -> Response:
    map_pixels = min(MAP_PIXELS, REPLY_PIXELS // len(answers)) if question.maps else None
    return JSONAnswer(
        {"results": [to_json(answer, overlay=question.overlay, map_pixels=map_pixels) for answer in answers]}
    )


def _class(info: ClassInfo) -> dict[str, Any]:
    has_calibration = info.calibration.state != "none"
    return {
        "class": info.category_name,
        "shots": info.shots,
        "good_pictures": info.good_pictures,
        "calibration": _calibration(info.calibration) if has_calibration else None,
    }


def _calibration(state: CalibrationState) -> dict[str, Any]:
    return {name: value for name, value in asdict(state).items() if name != "document"}
