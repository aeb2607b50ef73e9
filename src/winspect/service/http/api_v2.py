"""``/v2``: the Open Inference Protocol, as its standard clients speak it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
from fastapi import FastAPI, Path, Request
from starlette.responses import JSONResponse, Response

from winspect._version import __version__
from winspect.service.contract import Answer
from winspect.service.http import models_v2 as models
from winspect.service.http import openapi
from winspect.service.http.inspecting import (
    MAP_PIXELS,
    REPLY_PIXELS,
    deadline_of,
    inspect_all,
    row_with_p_value,
    small_map,
)
from winspect.service.http.metrics import Metrics
from winspect.service.http.models_v2 import ENCODED, MAP, PIXELS, InferRequest
from winspect.service.http.refusals import Refused
from winspect.service.http.tensors import HEADER_LENGTH, MODEL, TEXTS, outputs_of, parse, render
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

_INPUTS = [
    models.TensorMetadata(name=ENCODED, datatype="BYTES", shape=[-1]),
    models.TensorMetadata(name=PIXELS, datatype="UINT8", shape=[-1, -1, -1, 3]),
]
_OUTPUTS = [
    models.TensorMetadata(
        name=name, datatype="BYTES" if name in TEXTS else "FP32", shape=[-1, -1, -1] if name == MAP else [-1]
    )
    for name in get_args(models.OutputName)
]
ModelName = Annotated[str, Path(description="There is one model.", json_schema_extra={"enum": [MODEL]})]
_SMALL = 2**16
"""Bytes of a request that is read at once; larger ones are read in another thread than the one that answers all."""


def add_v2(app: FastAPI, backend: Backend, settings: ServiceSettings, metrics: Metrics) -> None:
    """The endpoints; there is one model, without versions."""
    tags: list[Any] = ["Open Inference Protocol v2"]

    def known(name: str) -> None:
        if name != MODEL:
            raise Refused(404, f"there is no model {name[:80]!r}; this service has {MODEL!r}")

    def ready(entries: dict[str, Any]) -> Response:
        state = backend.status.state
        if state == "ready":
            return JSONResponse({**entries, "ready": True})
        return JSONResponse({**entries, "ready": False, "error": f"the model is {state}"}, 503, {"Retry-After": "1"})

    @app.get("/v2", tags=tags, summary="The server", responses=openapi.errors(v2=True))
    async def server() -> models.ServerMetadata:
        return models.ServerMetadata(name="winspect", version=__version__, extensions=["binary_tensor_data"])

    @app.get("/v2/health/live", tags=tags, summary="Whether the service runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get(
        "/v2/health/ready",
        tags=tags,
        summary="Whether pictures are inspected: the model is loaded and warm",
        response_model=dict[str, Any],
        responses=_readiness(),
    )
    async def server_ready() -> Response:
        return ready({})

    @app.get(
        "/v2/models/{name}",
        tags=tags,
        summary="The model's tensors; of the two inputs a request has one",
        responses=openapi.errors(404, v2=True),
    )
    async def model(name: ModelName) -> models.ModelMetadata:
        known(name)
        return models.ModelMetadata(name=MODEL, platform="winspect", inputs=_INPUTS, outputs=_OUTPUTS)

    @app.get(
        "/v2/models/{name}/ready",
        tags=tags,
        summary="Whether the model is loaded and warm",
        response_model=dict[str, Any],
        responses=_readiness(404),
    )
    async def model_ready(name: ModelName) -> Response:
        known(name)
        return ready({"name": MODEL})

    @app.post(
        "/v2/models/{name}/infer",
        tags=tags,
        summary="Inspect pictures: BYTES [n], files (in JSON as base64), or UINT8 [n, height, width, 3], RGB",
        response_model=models.InferAnswer,
        response_description="A row per picture in every tensor; with binary data the JSON comes first.",
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            **openapi.errors(404, 503, 504, body=True, v2=True),
        },
        openapi_extra=openapi.request_body(InferRequest, "application/json"),
    )
    async def infer(name: ModelName, request: Request) -> Response:
        known(name)
        body = await request.body()
        header_length = request.headers.get(HEADER_LENGTH)
        asked, pictures = await _off_thread(len(body), parse, body, header_length, settings.max_pictures)
        del body
        outputs, parameters = outputs_of(asked), asked.parameters
        named = [(f"{ENCODED}[{number}]", picture) for number, picture in enumerate(pictures)]
        deadline, needs_maps = deadline_of(parameters.timeout, 1e-6, settings), MAP in outputs
        options = {"maps": needs_maps, "boxes": "none", **parameters.model_dump(include={"threshold", "zero_shot"})}
        answers = await inspect_all(backend, metrics, named, parameters.class_name, deadline, **options)
        content, json_length = await _off_thread(_SMALL + 1 if needs_maps else 0, _reply, asked.id, answers, outputs)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(json_length)})


def _readiness(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = openapi.errors(503, *statuses, v2=True)
    described[503]["model"] = dict[str, Any]  # it also says what is not ready
    return described


async def _off_thread(size: int, function: Any, *arguments: Any) -> Any:
    return function(*arguments) if size <= _SMALL else await asyncio.to_thread(function, *arguments)


def _reply(identifier: str | None, answers: list[Answer], outputs: Mapping[str, bool]) -> tuple[bytes, int | None]:
    """The tensors; of a picture that could not be scored they hold NaN, no verdict, and the error."""
    rows = [row_with_p_value(answer) for answer in answers]
    tensors: dict[str, Any] = {
        "anomaly_score": [row["anomaly_score"] for row in rows],
        "verdict": [row["verdict"] or "" for row in rows],
        "p_value": [row["p_value"] for row in rows],
        "error": ["" if row["error"] is None else row["error"]["message"] for row in rows],
        "warning": [row["warning"] or "" for row in rows],
    }
    if MAP in outputs:
        tensors[MAP] = _maps(answers)
    return render(identifier, tensors, outputs)


def _maps(answers: list[Answer]) -> np.ndarray:
    """float32 (pictures, height, width)."""
    sizes = {answer.result.size_wh for answer in answers if answer.result.error is None}
    if len(sizes) > 1:
        raise Refused(400, f"got pictures of {len(sizes)} sizes, whose maps are no tensor; ask for one at a time")
    pixels = min(MAP_PIXELS, REPLY_PIXELS // len(answers))
    maps = [small_map(answer.result, pixels) if answer.result.error is None else None for answer in answers]
    shape = next((each.shape for each in maps if each is not None), (0, 0))
    return np.stack([np.full(shape, np.nan, np.float32) if each is None else each for each in maps])
