"""What can go wrong between a program and the service.

ClientError
├── NoAnswerError     no connection, or no answer in time
└── RefusedError      the service answered with an error
"""

from __future__ import annotations

from winspect.errors import WinspectError


class ClientError(WinspectError):
    """A request that brought no result."""


class NoAnswerError(ClientError):
    """The service cannot be reached, the connection broke, or no answer came in time."""


class RefusedError(ClientError):
    """The service answered with an error.

    Attributes:
        status: of HTTP, as 422 for a picture that cannot be used.
        kind: the error's name, as ``PictureError``; empty where the answer has none. ``message``: the service's.
        retry_after_s: when to ask again, for 429 and 503; None where the answer does not say.
    """

    def __init__(self, message: str, *, status: int, kind: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {kind}: {message}" if kind else f"{status}: {message}")
        self.status, self.kind, self.message, self.retry_after_s = status, kind, message, retry_after_s
