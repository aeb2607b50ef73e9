"""ASGI middleware before the service: who is let in, body size, slow clients, clients that hang up.

A body is counted while it arrives, so that an upload that is too large is refused before it is here, with or without a
Content-Length. An answer that is given before the whole body was read closes the connection: what still comes is read
and thrown away for a moment first, because closing a socket with unread data would destroy the answer on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from winspect.service.contract import Overloaded
from winspect.service.http.callers import Callers
from winspect.service.http.refusals import Refused, answer_error
from winspect.service.settings import ServiceSettings

UPLOADS_AT_ONCE = 8
"""Bodies held in memory at a time, in units of the largest that is allowed."""

_LINGER_S = 5.0


class Guard:
    """The middleware.

    Args:
        app: what answers those that are let in.
        settings: how large a body may be, and how long it may take to arrive.
        callers: who is let in.
        on_done: called with each :class:`Exchange` that is over.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServiceSettings,
        callers: Callers,
        on_done: Callable[[Exchange], None],
    ) -> None:
        self.app, self.callers, self.on_done = app, callers, on_done
        self.max_upload_bytes, self.body_timeout_s = settings.max_upload_bytes, settings.body_timeout_s
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self, scope, receive, send)
        try:
            try:
                self._check(scope, exchange.headers)
                await exchange.run()
            except Refused as refusal:
                if not exchange.is_answering:
                    await answer_error(exchange.path, refusal)(scope, receive, exchange.send)
        except Exception:
            exchange.status = exchange.status if exchange.is_answering else 500  # what is further out answers it
            raise
        finally:
            self.held_bytes -= exchange.size
            self.on_done(exchange)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse what can be refused before the body comes."""
        self.callers.check(scope, headers)
        if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
            raise Refused(
                415, f"got a body with Content-Encoding {encoding[:40]!r}; send it as it is: pictures are compressed"
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.max_upload_bytes:
            raise self.too_large()

    def too_large(self) -> Refused:
        """The answer to a body over the limit."""
        limit = self.max_upload_bytes / 2**20
        return Refused(413, f"the request is larger than {limit:g} MB; send fewer pictures, or smaller ones")


class Exchange:
    """A request and its answer.

    Attributes:
        method, path, headers: of the request. ``size``: bytes of its body that have come.
        status: of the answer; 499 for a client that hung up.
        is_answering: whether the answer has begun; ``is_answered``: whether it is complete.
    """

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.method, self.path, self.headers = scope["method"], scope["path"], Headers(scope=scope)
        self.status, self.size = 499, 0
        self.is_answering = self.is_answered = False
        self._guard, self._scope, self._receive, self._send = guard, scope, receive, send
        self._began = time.monotonic()
        self._body_deadline = self._began + guard.body_timeout_s
        self._whole, self._gone = asyncio.Event(), asyncio.Event()  # no more of the body comes; the client has hung up
        if self.headers.get("content-length", "0") == "0" and "transfer-encoding" not in self.headers:
            self._whole.set()
        self._closes = False

    @property
    def seconds(self) -> float:
        """Since the request's headers."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Let the service answer, unless the client hangs up before it has."""
        if self._whole.is_set():  # nobody waits long for the answer to a request without a body
            await self._guard.app(self._scope, self._receive, self.send)
            return
        work: asyncio.Task[None] = asyncio.create_task(
            self._guard.app(self._scope, self.receive, self.send)  # type: ignore[arg-type]
        )
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the server ends, and has waited for as long as it may
            await _stop(work)
            raise Refused(503, "the service is ending", headers={"Retry-After": "1"}) from None
        finally:
            await _stop(watch)
        if self._gone.is_set() and not self.is_answered:
            await _stop(work)
        else:
            await work

    async def receive(self) -> Message:
        """The next piece of the body, within the limits; then the client's hanging up."""
        if self._whole.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        try:
            message = await asyncio.wait_for(self._receive(), max(0.001, self._body_deadline - time.monotonic()))
        except asyncio.TimeoutError:
            self._body_deadline = 0.0  # no lingering: it has been waited for long enough
            seconds = self._guard.body_timeout_s
            raise Refused(408, f"the request's body was not here after {seconds:g} s; send it faster") from None
        if message["type"] == "http.disconnect":
            self._gone.set()
            self._whole.set()
            return message
        size = len(message.get("body", b""))
        self.size += size
        self._guard.held_bytes += size
        if self.size > self._guard.max_upload_bytes:
            raise self._guard.too_large()
        if self._guard.held_bytes > UPLOADS_AT_ONCE * self._guard.max_upload_bytes:
            raise Overloaded("too much is being uploaded at once; try again", 1.0)
        if not message.get("more_body", False):
            self._whole.set()
        return message

    async def _watch(self) -> None:
        """Return when the client has hung up."""
        await self._whole.wait()
        while not self._gone.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._gone.set()

    async def send(self, message: Message) -> None:
        """Pass on the answer; one that is given before the body was whole closes the connection."""
        if message["type"] == "http.response.start":
            self.is_answering, self.status, self._closes = True, message["status"], not self._whole.is_set()
            headers = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*headers, (b"connection", b"close")] if self._closes else headers}
        elif not message.get("more_body", False):
            self.is_answered = True
            if self._closes:
                await self._send({**message, "more_body": True})  # complete for the client: its length is known
                await self._linger()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """Throw away what still comes of the body."""
        if not self._body_deadline:
            return
        until = time.monotonic() + _LINGER_S
        more = True
        while more and (left := until - time.monotonic()) > 0:
            with suppress(asyncio.TimeoutError):
                message = await asyncio.wait_for(self._receive(), left)
                more = message["type"] == "http.request" and message.get("more_body", False)


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, whatever it is."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
