"""What the OpenAPI document says beyond the models: errors, and bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from winspect.service.http.models import (
    Body,
    CalibrationForm,
    ErrorAnswer,
    PicturesForm,
    PredictForm,
    ReferencesForm,
)
from winspect.service.http.models_v2 import InferRequest, MessageAnswer

_WORDS = {
    400: "The body is damaged.",
    401: "The service wants an API key.",
    403: "A browser sent this from a page of another site.",
    404: "Unknown class, or there is nothing of what is asked for.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pictures or fields.",
    415: "Another type of body, or a compressed one.",
    422: "A field, a class name or a picture that cannot be used.",
    429: "Overload: ask again after Retry-After seconds.",
    500: "A mistake of the service; it is in its log.",
    503: "Loading, restarting or ending: ask again after Retry-After seconds.",
    504: "The deadline passed.",
    507: "The service's disk is full; nothing was changed.",
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_ANY = (401, 500)
_WITH_BODY = (400, 403, 408, 413, 415, 422, 429)
_REFS = "#/components/schemas/{model}"


def errors(*statuses: int, body: bool = False, v2: bool = False) -> dict[int | str, dict[str, Any]]:
    """Error answers of an endpoint; those that any endpoint, or any with a body, may give are added."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_ANY, *(_WITH_BODY if body else ())}):
        described[status] = {"description": _WORDS[status], "model": MessageAnswer if v2 else ErrorAnswer}
        if status in (429, 503):
            described[status]["headers"] = _RETRY_AFTER
    return described


def request_body(model: type[Body], *kinds: str) -> dict[str, Any]:
    """A body that is read by hand, as ``openapi_extra``."""
    content = {kind: {"schema": {"$ref": _REFS.format(model=model.__name__)}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def request_schemas() -> dict[str, Any]:
    """Schemas of bodies that are read by hand, by name."""
    models = (PredictForm, PicturesForm, ReferencesForm, CalibrationForm, InferRequest)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFS)
    return schemas["$defs"]
