"""HTTP/1.1 as uvicorn speaks it, with an end to clients that send their headers slowly or never read their answer."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.h11_impl import H11Protocol

from winspect.service.http.refusals import KIND_OF

MAX_CONNECTIONS = 4096
MAX_HEADER_BYTES = 2**15


class PatientProtocol(H11Protocol):
    """One connection. ``patience_s``: for the headers of a request to arrive, and between signs of reading."""

    patience_s = 20.0

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, f"more than {MAX_CONNECTIONS} connections are open; try again", "Retry-After: 1\r\n")
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The timer runs while a request has begun and its headers are not whole."""
        super().data_received(data)
        if self._is_answering:
            self._disarm()
        elif self._timer is None and not self.transport.is_closing():
            self._arm()

    def on_response_complete(self) -> None:
        """An answer is written; whether it is read shows in what is left to be sent."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.patience_s, self._check_reading, self.transport.get_write_buffer_size())

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(400, msg)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.patience_s, self._headers_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _headers_late(self) -> None:
        if not self._is_answering:
            self._refuse(408, f"the request's headers were not here after {self.patience_s:g} s")

    def _refuse(self, status: int, message: str, headers: str = "") -> None:
        """Answer without the application, and close."""
        if self.transport.is_closing():
            return
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            body = json.dumps({"error": {"type": KIND_OF[status], "message": message}})
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            end = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(f"{head}{headers}{end}{body}".encode("ascii"))
        self.transport.close()

    def _check_reading(self, left_before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= left_before:
            self.transport.abort()
        elif left:
            self.loop.call_later(self.patience_s, self._check_reading, left)
