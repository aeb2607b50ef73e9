"""Errors as answers: which status, which body, which headers. Never a trace, and never a path of this machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from starlette.responses import JSONResponse, Response

from winspect.errors import (
    AlreadyJudgedError,
    ClassNameError,
    FeedbackError,
    OutputError,
    PictureError,
    ReferencesError,
    SettingsError,
    UnknownPictureError,
    WinspectError,
)
from winspect.service.contract import DeadlineExceeded, NotReady, Overloaded, StoreFull, UnknownClass

logger = logging.getLogger(__name__)


class Status(NamedTuple):
    """An error's status of HTTP: its name in bodies of ``/v1``, and what the OpenAPI document says of it.

    ``reject`` is its reason in ``winspect_rejects_total``, of requests that are refused whatever is in their pictures.
    """

    name: str
    description: str
    reject: str | None = None


STATUSES = MappingProxyType(
    {
        400: Status("BadRequest", "The body is damaged."),
        401: Status("NoKey", "The service wants an API key.", "no_key"),
        403: Status("Forbidden", "A browser sent this from a page of another site.", "foreign_page"),
        404: Status("NotFound", "Unknown class, or there is nothing of what is asked for."),
        405: Status("MethodNotAllowed", "Another method is needed."),
        408: Status("TooSlow", "The body did not arrive in time.", "slow_client"),
        409: Status("AlreadyJudged", "The picture has an answer already, or none to undo."),
        413: Status("TooLarge", "Too many bytes, pictures or fields.", "too_large"),
        415: Status("UnsupportedType", "Another type of body, or a compressed one."),
        422: Status("BadValue", "A field, a class name or a picture that cannot be used."),
        429: Status("Overloaded", "Overload: ask again after Retry-After seconds.", "overload"),
        499: Status("HungUp", "The client has hung up.", "hung_up"),
        500: Status("InternalError", "A mistake of the service; it is in its log."),
        503: Status("NotReady", "Loading, restarting or ending: ask again after Retry-After seconds.", "not_ready"),
        504: Status("DeadlineExceeded", "The deadline passed.", "deadline"),
        507: Status("OutputError", "The service's disk is full; nothing was changed.", "disk_full"),
    }
)
STATUS_OF: tuple[tuple[type[WinspectError], int], ...] = (
    (UnknownPictureError, 404),
    (AlreadyJudgedError, 409),
    (FeedbackError, 422),
    (Overloaded, 429),
    (DeadlineExceeded, 504),
    (NotReady, 503),
    (UnknownClass, 404),
    (PictureError, 422),
    (ClassNameError, 422),
    (ReferencesError, 422),
    (SettingsError, 422),
    (OutputError, 507),
    (StoreFull, 507),
)
"""Errors whose message callers see, under the name of their class. Every other is a 500 without its message."""

_STORAGE_FULL = "the service cannot store this: its disk is full or cannot be written; nothing was changed"
_INTERNAL = "the service made a mistake; it is in its log"


class Refused(WinspectError):  # noqa: N818 - it is no error of the service
    """A request that is refused before anything is scored.

    Args:
        status: of HTTP. ``message``: what came, what is needed, and the fix.
        kind: the error's name in bodies of ``/v1``; None for the status' own in :data:`STATUSES`.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, message: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.kind = kind or (STATUSES[status].name if status in STATUSES else "Refused")


def answer_error(path: str, error: Exception) -> Response:
    """The answer to a request for ``path`` that ended with this error.

    ``{"error": {"type", "message"}}``; under ``/v2``, as the protocol has it, ``{"error": message}``.
    """
    refusal = error if isinstance(error, Refused) else _refusal_of(error)
    is_v2 = path == "/v2" or path.startswith("/v2/")
    content = str(refusal) if is_v2 else {"type": refusal.kind, "message": str(refusal)}
    return JSONResponse({"error": content}, refusal.status, refusal.headers)


def _refusal_of(error: Exception) -> Refused:
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            message = str(error)
            if isinstance(error, OutputError):
                logger.error("%s", error)  # it names a file of ours
                message = _STORAGE_FULL
            seconds = getattr(error, "retry_after_s", None)
            headers = {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
            return Refused(status, message, kind=kind.__name__, headers=headers)
    return Refused(500, _INTERNAL)
