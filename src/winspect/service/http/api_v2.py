"""``/v2``: the Open Inference Protocol, as its standard clients speak it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Request
from starlette.responses import Response

from winspect._version import __version__
from winspect.service.http import documents as doc
from winspect.service.http.api_v1 import DEFAULT_CLASS, deadline_of
from winspect.service.http.judging import MAP_PIXELS, REPLY_PIXELS, Answer, Question, judge_all, small_map
from winspect.service.http.metrics import Metrics
from winspect.service.http.refusals import JSONAnswer, Refused
from winspect.service.http.tensors import ENCODED, HEADER_LENGTH, MAP, MODEL, PIXELS, InferRequest, Reply, parse, render
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

_INPUTS = [
    {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
    {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
]
_OUTPUTS = [
    {"name": "anomaly_score", "datatype": "FP32", "shape": [-1]},
    {"name": "verdict", "datatype": "BYTES", "shape": [-1]},
    {"name": "p_value", "datatype": "FP32", "shape": [-1]},
    {"name": "error", "datatype": "BYTES", "shape": [-1]},
    {"name": "warning", "datatype": "BYTES", "shape": [-1]},
    {"name": MAP, "datatype": "FP32", "shape": [-1, -1, -1]},
]
_TAGS: list[Any] = ["Open Inference Protocol v2"]
ModelName = Annotated[str, Path(description="There is one model.", json_schema_extra={"enum": [MODEL]})]
_SMALL = 2**16
"""Bytes of a request that is read at once; larger ones are read in another thread than the one that answers all."""


def add_v2(app: FastAPI, backend: Backend, settings: ServiceSettings, metrics: Metrics) -> None:
    """The endpoints; there is one model, without versions."""

    def known(name: str) -> None:
        if name != MODEL:
            raise Refused(404, f"there is no model {name[:80]!r}; this service has {MODEL!r}")

    def ready(entries: dict[str, Any]) -> Response:
        state = backend.state
        if state == "ready":
            return JSONAnswer({**entries, "ready": True})
        return JSONAnswer({**entries, "ready": False, "error": f"the model is {state}"}, 503, {"Retry-After": "1"})

    @app.get(
        "/v2",
        tags=_TAGS,
        summary="The server",
        responses={
            **doc.json_answer("Name, version and extensions of the protocol.", {"type": "object"}),
            **doc.errors(v2=True),
        },
    )
    async def server() -> Response:
        return JSONAnswer({"name": "winspect", "version": __version__, "extensions": ["binary_tensor_data"]})

    @app.get(
        "/v2/health/live",
        tags=_TAGS,
        summary="Whether the service runs",
        responses=doc.json_answer("It does.", {"type": "object"}),
    )
    async def live() -> Response:
        return JSONAnswer({"live": True})

    @app.get(
        "/v2/health/ready",
        tags=_TAGS,
        summary="Whether pictures are judged: the model is loaded and warm",
        responses={**doc.json_answer("They are.", {"type": "object"}), **doc.errors(503, v2=True)},
    )
    async def server_ready() -> Response:
        return ready({})

    @app.get(
        "/v2/models/{name}",
        tags=_TAGS,
        summary="The model's tensors; of the two inputs a request has one",
        responses={**doc.json_answer("Inputs and outputs.", doc.MODEL_V2), **doc.errors(404, v2=True)},
    )
    async def model(name: ModelName) -> Response:
        known(name)
        return JSONAnswer({"name": MODEL, "platform": "winspect", "inputs": _INPUTS, "outputs": _OUTPUTS})

    @app.get(
        "/v2/models/{name}/ready",
        tags=_TAGS,
        summary="Whether the model is loaded and warm",
        responses={**doc.json_answer("It is.", {"type": "object"}), **doc.errors(404, 503, v2=True)},
    )
    async def model_ready(name: ModelName) -> Response:
        known(name)
        return ready({"name": MODEL})

    @app.post(
        "/v2/models/{name}/infer",
        tags=_TAGS,
        summary="Judge pictures: BYTES [n], files (in JSON as base64), or UINT8 [n, height, width, 3], RGB",
        responses={
            200: {
                "description": "A row per picture in every tensor; with binary data the JSON comes first.",
                "content": {
                    "application/json": {"schema": doc.INFER_RESPONSE},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **doc.errors(404, 503, 504, body=True, v2=True),
        },
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": doc.INFER_REQUEST}}}
        },
    )
    async def infer(name: ModelName, request: Request) -> Response:
        known(name)
        body = await request.body()
        asked = await _off_thread(len(body), parse, body, request.headers.get(HEADER_LENGTH), settings.max_pictures)
        del body
        question = _question(asked, settings)
        names = [f"{ENCODED}[{number}]" for number in range(len(asked.pictures))]
        answers = await judge_all(backend, metrics, list(zip(names, asked.pictures, strict=True)), question)
        reply = await _off_thread(_SMALL + 1 if question.maps else 0, _reply, asked, answers)
        if reply.header_length is None:
            return Response(reply.body, media_type="application/json")
        headers = {HEADER_LENGTH: str(reply.header_length)}
        return Response(reply.body, media_type="application/octet-stream", headers=headers)


async def _off_thread(size: int, function: Any, *arguments: Any) -> Any:
    return function(*arguments) if size <= _SMALL else await asyncio.to_thread(function, *arguments)


def _question(asked: InferRequest, settings: ServiceSettings) -> Question:
    parameters = asked.parameters
    return Question(
        category_name=parameters.get("class", DEFAULT_CLASS),
        deadline=deadline_of(parameters.get("timeout"), 1e-6, settings),
        threshold=parameters.get("threshold"),
        maps=MAP in asked.outputs,
        boxes="none",
        zero_shot=parameters.get("zero_shot", False),
    )


def _reply(asked: InferRequest, answers: list[Answer]) -> Reply:
    """The tensors; of a picture that could not be judged they hold NaN, no verdict, and the error."""
    rows = [answer.row for answer in answers]
    tensors: dict[str, Any] = {
        "anomaly_score": [row["anomaly_score"] for row in rows],
        "verdict": [row["verdict"] or "" for row in rows],
        "p_value": [row["p_value"] for row in rows],
        "error": ["" if row["error"] is None else row["error"]["message"] for row in rows],
        "warning": [row["warning"] or "" for row in rows],
    }
    if MAP in asked.outputs:
        tensors[MAP] = _maps(answers)
    return render(asked.id, tensors, asked.outputs)


def _maps(answers: list[Answer]) -> np.ndarray:
    """float32 (pictures, height, width)."""
    sizes = {answer.result.size_wh for answer in answers if answer.judged is not None}
    if len(sizes) > 1:
        raise Refused(400, f"got pictures of {len(sizes)} sizes, whose maps are no tensor; ask for one at a time")
    pixels = min(MAP_PIXELS, REPLY_PIXELS // len(answers))
    maps = [small_map(answer.result, pixels) if answer.judged is not None else None for answer in answers]
    shape = next((one.shape for one in maps if one is not None), (0, 0))
    return np.stack([np.full(shape, np.nan, np.float32) if one is None else one for one in maps])
