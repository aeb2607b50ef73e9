"""Errors as answers: which status, which body, which headers. Never a trace, and never a path of this machine."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from winspect.errors import ClassNameError, OutputError, PictureError, ReferencesError, SettingsError, WinspectError
from winspect.service.contract import DeadlineExceeded, NotReady, Overloaded, StoreFull, UnknownClass

logger = logging.getLogger(__name__)

STATUS_OF: tuple[tuple[type[WinspectError], int], ...] = (
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
"""Errors whose message callers see. Every other error is a 500 without its message."""

KIND_OF = {
    400: "BadRequest",
    401: "NoKey",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    413: "TooLarge",
    415: "UnsupportedType",
    422: "BadValue",
    503: "NotReady",
}
"""Names of HTTP's errors in bodies."""

_STORAGE_FULL = "the service cannot store this: its disk is full or cannot be written; nothing was changed"
_INTERNAL = "the service made a mistake; it is in its log"


class Refused(WinspectError):  # noqa: N818 - it is no error of the service
    """A request that is refused before anything is scored.

    Args:
        status: of HTTP. ``message``: what came, what is needed, and the fix.
        kind: the error's name in bodies of ``/v1``; None for the status' own in :data:`KIND_OF`.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, message: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind or KIND_OF.get(status, "Refused"), dict(headers or {})


class JSONAnswer(Response):
    """JSON in UTF-8. What is no valid text (half a surrogate pair in a caller's name) is escaped; NaN is a mistake."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def answer_error(path: str, error: Exception) -> Response:
    """The answer to a request for ``path`` that ended with this error."""
    status, kind, message, headers = _parts(error)
    return answer_status(path, status, message, kind=kind, headers=headers)


def answer_status(
    path: str, status: int, message: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error's answer: ``{"error": {"type", "message"}}``; under ``/v2``, as the protocol has it, a message."""
    content = message if is_v2(path) else {"type": kind or KIND_OF.get(status, "Refused"), "message": message}
    return JSONAnswer({"error": content}, status, dict(headers or {}))


def is_v2(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol, whose errors have a form of their own."""
    return path == "/v2" or path.startswith("/v2/")


def _parts(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """Status, kind, message and headers of an error."""
    if isinstance(error, Refused):
        return error.status, error.kind, str(error), error.headers
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            message = str(error)
            if isinstance(error, OutputError):
                logger.error("%s", error)  # it names a file of ours
                message = _STORAGE_FULL
            return status, kind.__name__, message, _retry_after(error)
    return 500, "InternalError", _INTERNAL, {}


def _retry_after(error: Exception) -> dict[str, str]:
    """Whole seconds, as the header wants them; at least one."""
    seconds = getattr(error, "retry_after_s", None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
