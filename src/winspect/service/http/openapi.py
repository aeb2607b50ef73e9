"""What the OpenAPI document says beyond the models: errors, and bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from winspect.service.http.models import (
    Body,
    CalibrationForm,
    ErrorAnswer,
    FeedbackForm,
    PicturesForm,
    PredictForm,
    ReferencesForm,
)
from winspect.service.http.models_v2 import InferRequest, MessageAnswer
from winspect.service.http.refusals import STATUSES

_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_ANY = (401, 500)
_WITH_BODY = (400, 403, 408, 413, 415, 422, 429)
_REFS = "#/components/schemas/{model}"


def errors(*statuses: int, body: bool = False, v2: bool = False) -> dict[int | str, dict[str, Any]]:
    """Error answers of an endpoint; those that any endpoint, or any with a body, may give are added."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_ANY, *(_WITH_BODY if body else ())}):
        described[status] = {"description": STATUSES[status].description, "model": MessageAnswer if v2 else ErrorAnswer}
        if status in (429, 503):
            described[status]["headers"] = _RETRY_AFTER
    return described


def request_body(model: type[Body], *kinds: str) -> dict[str, Any]:
    """A body that is read by hand, as ``openapi_extra``."""
    content = {kind: {"schema": {"$ref": _REFS.format(model=model.__name__)}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def request_schemas() -> dict[str, Any]:
    """Schemas of bodies that are read by hand, by name."""
    models = (PredictForm, PicturesForm, ReferencesForm, CalibrationForm, FeedbackForm, InferRequest)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFS)
    return schemas["$defs"]
