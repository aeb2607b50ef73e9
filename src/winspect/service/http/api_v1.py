"""``/v1``: pictures in, rows out; references, calibrations and classes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from winspect.service.contract import Answer, UnknownClass, class_key
from winspect.service.http import models, openapi
from winspect.service.http.forms import read_form
from winspect.service.http.inspecting import MAP_PIXELS, REPLY_PIXELS, deadline_of, inspect_all, to_json
from winspect.service.http.metrics import Metrics
from winspect.service.http.refusals import Refused
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

ClassName = Annotated[str, Query(alias="class", description="What the part is called.")]
OneName = Annotated[str | None, Query(description="Only the good sample of this name.")]
OneHash = Annotated[str | None, Query(description="Only the good sample of this SHA-256.")]

_FORM = "multipart/form-data"
_SMALL_FORMS = (_FORM, "application/json", "application/x-www-form-urlencoded")
_READ, _DELETED = openapi.errors(404, 422, 503), openapi.errors(403, 404, 422, 503, 507)
_ASKED = {"threshold", "review_threshold", "overlay", "boxes", "pixel_threshold", "min_area", "zero_shot"}
_STORED = openapi.errors(404, 503, 507, body=True)


def add_v1(app: FastAPI, backend: Backend, settings: ServiceSettings, metrics: Metrics) -> None:
    """The endpoints of pictures, references, classes and the model."""

    @app.post(
        "/v1/predict",
        tags=["predict"],
        summary="Inspect pictures",
        response_model=models.Predictions,
        response_description="A row per picture; one that cannot be used among several has an error.",
        responses=openapi.errors(404, 503, 504, body=True),
        openapi_extra=openapi.request_body(models.PredictForm, _FORM),
    )
    async def predict(request: Request) -> Response:
        form: models.PredictForm = await _pictures_form(request, models.PredictForm, settings)
        asked = form.model_dump(include=_ASKED)
        deadline = deadline_of(form.deadline_ms, 1e-3, settings)
        answers = await inspect_all(backend, metrics, form.pictures, form.class_name, deadline, maps=form.map, **asked)
        if form.overlay or form.map:  # megabytes to encode: not in the thread that answers everyone
            return await asyncio.to_thread(_rows, answers, form)
        return _rows(answers, form)

    @app.post(
        "/v1/references",
        tags=["references"],
        summary="Show good samples of a class: it is inspected few-shot from now on",
        responses=_STORED,
        openapi_extra=openapi.request_body(models.ReferencesForm, _FORM),
    )
    async def set_references(request: Request) -> models.ClassAnswer:
        form: models.ReferencesForm = await _pictures_form(request, models.ReferencesForm, settings)
        return models.ClassAnswer.of(await backend.set_references(form.class_name, form.pictures, add=form.add))

    @app.get("/v1/references", tags=["references"], summary="The good samples of a class", responses=_READ)
    async def references(category_name: ClassName) -> models.ReferencesAnswer:
        stored = [models.Reference.model_validate(item) for item in await backend.references(category_name)]
        return models.ReferencesAnswer(class_name=class_key(category_name), references=stored)

    @app.delete(
        "/v1/references",
        tags=["references"],
        summary="Forget one good sample of a class, or all of them: without any it is zero-shot again",
        responses=_DELETED,
    )
    async def delete_references(
        category_name: ClassName, name: OneName = None, sha256: OneHash = None
    ) -> models.ClassAnswer:
        if name is None and sha256 is None:
            await backend.delete_references(category_name)
        else:
            await backend.remove_reference(category_name, name=name, sha256=sha256)
        return models.ClassAnswer.of(await backend.class_info(category_name))

    @app.get(
        "/v1/classes", tags=["classes"], summary="The classes that something is known of", responses=openapi.errors(503)
    )
    async def classes() -> models.ClassesAnswer:
        return models.ClassesAnswer(classes=[models.ClassAnswer.of(info) for info in await backend.classes()])

    @app.get(
        "/v1/model",
        tags=["model"],
        summary="What inspects: model, weights, recipe, engine, precision; the range of scores",
        responses=openapi.errors(503),
    )
    async def model() -> dict[str, Any]:
        return await backend.info()

    _add_calibrations(app, backend, settings)


def _add_calibrations(app: FastAPI, backend: Backend, settings: ServiceSettings) -> None:
    tags: list[Any] = ["calibrations"]

    @app.post(
        "/v1/calibrations/pictures",
        tags=tags,
        summary="Store good pictures of a class to calibrate with",
        response_description="How many the class has now; copies count once.",
        responses=_STORED,
        openapi_extra=openapi.request_body(models.PicturesForm, _FORM),
    )
    async def add_good(request: Request) -> models.GoodPicturesAnswer:
        form: models.PicturesForm = await _pictures_form(request, models.PicturesForm, settings)
        count = await backend.add_good(form.class_name, form.pictures)
        return models.GoodPicturesAnswer(class_name=class_key(form.class_name), good_pictures=count)

    @app.delete(
        "/v1/calibrations/pictures", tags=tags, summary="Forget the good pictures of a class", responses=_DELETED
    )
    async def delete_good(category_name: ClassName) -> models.ClassAnswer:
        await backend.delete_good(category_name)
        return models.ClassAnswer.of(await backend.class_info(category_name))

    @app.post(
        "/v1/calibrations",
        tags=tags,
        status_code=202,
        summary="Calibrate a class on its stored good pictures, in the background",
        responses=_STORED,
        openapi_extra=openapi.request_body(models.CalibrationForm, *_SMALL_FORMS),
    )
    async def start_calibration(request: Request) -> models.CalibrationAnswer:
        form: models.CalibrationForm = models.CalibrationForm.read(await read_form(request))
        await backend.start_calibration(form.class_name, form.max_false_alarms, form.review, force=form.force)
        return await calibration(form.class_name)

    @app.get("/v1/calibrations", tags=tags, summary="Where the calibration of a class stands", responses=_READ)
    async def calibration(category_name: ClassName) -> models.CalibrationAnswer:
        return models.CalibrationAnswer.of(class_key(category_name), await backend.calibration(category_name))

    @app.get(
        "/v1/calibrations/document",
        tags=tags,
        summary="The calibration of a class as `winspect predict --calibration` reads it",
        responses=_READ,
    )
    async def document(category_name: ClassName) -> dict[str, Any]:
        state = await backend.calibration(category_name)
        if state.document is None:
            raise UnknownClass(f"{class_key(category_name)!r} has no calibration; its state is {state.state!r}")
        return state.document

    @app.delete(
        "/v1/calibrations",
        tags=tags,
        summary="Drop the calibration of a class, or stop the one that runs",
        responses=_DELETED,
    )
    async def delete_calibration(category_name: ClassName) -> models.ClassAnswer:
        await backend.delete_calibration(category_name)
        return models.ClassAnswer.of(await backend.class_info(category_name))


async def _pictures_form(request: Request, model: type[models.Body], settings: ServiceSettings) -> Any:
    fields = await read_form(request, max_files=settings.max_pictures)
    if "pictures" not in fields:
        raise Refused(422, "got no pictures; send one or more files in the field 'pictures'")
    return model.read(fields)


def _rows(answers: list[Answer], form: models.PredictForm) -> Response:
    map_pixels = min(MAP_PIXELS, REPLY_PIXELS // len(answers)) if form.map else None
    return JSONResponse(
        {"results": [to_json(answer, overlay=form.overlay, map_pixels=map_pixels) for answer in answers]}
    )
