"""The HTTP application: what is served where, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from winspect._version import __version__
from winspect.errors import WinspectError
from winspect.service.http import docs
from winspect.service.http.api_drift import add_drift
from winspect.service.http.api_feedback import add_feedback
from winspect.service.http.api_v1 import add_v1
from winspect.service.http.api_v2 import add_v2
from winspect.service.http.callers import Callers, read_keys
from winspect.service.http.guard import Exchange, Guard
from winspect.service.http.metrics import Metrics
from winspect.service.http.openapi import request_schemas
from winspect.service.http.page import add_page
from winspect.service.http.refusals import Refused, answer_error
from winspect.service.settings import ServiceSettings

if TYPE_CHECKING:
    from winspect.service.backend import Backend

_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"  # which every Prometheus reads
_DESCRIPTION = (
    "Finds defects in pictures of parts with no training, or with a few good samples. More is more anomalous; "
    "`GET /v1/model` says from where to where scores run: 0 to 1 for recipes paper, tiles and log. "
    "`/v2` is the Open Inference Protocol with the binary tensor data extension."
)


def create_app(backend: Backend, settings: ServiceSettings) -> FastAPI:
    """The application on a backend, which it starts and drains with its own life.

    Raises:
        SettingsError: the file of API keys cannot be used.
    """
    keys = read_keys(settings.api_key_file) if settings.api_key_file else None
    any_host = keys is not None and not settings.allowed_hosts

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        yield
        if backend.status.state != "draining":
            await backend.drain(settings.drain_s)

    app = FastAPI(
        title="winspect",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=life,
        docs_url=None,  # FastAPI's fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    metrics = Metrics(backend)
    backend.batcher.on_batch = metrics.batch
    add_v1(app, backend, settings, metrics)
    add_feedback(app, backend)
    add_drift(app, backend)
    add_v2(app, backend, settings, metrics)
    if settings.page:
        add_page(app)
        docs.add_docs(app)

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics() -> Response:
        text = await asyncio.to_thread(generate_latest, metrics.registry)  # the drift alarm's may wait for its disk
        return Response(text, headers={"Content-Type": _TEXT_FORMAT})

    def count(exchange: Exchange) -> None:
        metrics.exchange(exchange, _endpoint(app, exchange))

    _add_error_answers(app)
    app.add_middleware(
        Guard,  # type: ignore[arg-type]
        settings=settings,
        callers=Callers(hosts=None if any_host else (settings.host, *settings.allowed_hosts), keys=keys),
        on_done=count,
    )
    _complete_document(app, has_keys=keys is not None)
    return app


def _endpoint(app: FastAPI, exchange: Exchange) -> str:
    """The route of a request, which is one of few; "other" for what is not served."""
    scope = {"type": "http", "method": exchange.method, "path": exchange.path, "root_path": "", "headers": []}
    for route in app.router.routes:
        match, _ = route.matches(scope)
        if match != Match.NONE:
            return getattr(route, "path", "other")
    return "other"


def _add_error_answers(app: FastAPI) -> None:
    """Every error is JSON of the documented form: ours, the framework's, and mistakes."""

    async def ours(request: Request, error: Exception) -> Response:
        return answer_error(request.scope["path"], error)

    async def framework(request: Request, error: Any) -> Response:
        allowed = (error.headers or {}).get("Allow") or (error.headers or {}).get("allow")
        words = {
            404: f"there is nothing at {request.scope['path'][:200]!r}; /docs and /openapi.json tell what there is",
            405: f"{request.method} is not answered here" + (f"; need {allowed}" if allowed else ""),
        }
        message = words.get(error.status_code, str(error.detail))
        return answer_error(request.scope["path"], Refused(error.status_code, message, headers=error.headers))

    async def bad_query(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        return answer_error(request.scope["path"], Refused(422, f"{first['loc'][-1]}: {first['msg']}"))

    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, bad_query)
    app.add_exception_handler(WinspectError, ours)
    app.add_exception_handler(Exception, ours)


def _complete_document(app: FastAPI, *, has_keys: bool) -> None:
    """Put into the OpenAPI document the bodies that are read by hand, and the keys that clients must send."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(request_schemas())
        if has_keys:
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            document["security"] = [{"bearer": []}, {"header": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
