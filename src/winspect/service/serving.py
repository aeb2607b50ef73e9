"""uvicorn with this service's settings: the port, TLS, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from winspect.errors import SettingsError, WinspectError
from winspect.service.backend import Backend
from winspect.service.http.app import create_app
from winspect.service.settings import ServiceSettings
from winspect.system.opening import check_file

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
MAX_HEADER_BYTES = 2**15
_KEEP_ALIVE_S = 65  # above the minute for which reverse proxies keep a connection, or they would write into its end
_LAST_S = 2.0  # for answers to be written after the queue is drained


def serve(
    backend: Backend, settings: ServiceSettings, *, say: Callable[[str], None] = print, access_log: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is queued, for at most ``drain_s``. A second one ends at once.

    Args:
        say: called with where it listens, when it is ready, and what is dangerous.
        access_log: a line per request in the log.

    Raises:
        SettingsError: the port is in use, or TLS files or API keys cannot be used.
        WinspectError: the model cannot be loaded.
    """
    Server(backend, settings, say=say, access_log=access_log).listen_and_run()


class Server(uvicorn.Server):
    """uvicorn's server. Asked to end, it first drains the backend, answering meanwhile: not ready, 503 to new work.

    Attributes:
        still_s: a connection that has stood still for longer is dropped.
    """

    def __init__(
        self, backend: Backend, settings: ServiceSettings, *, say: Callable[[str], None], access_log: bool = False
    ) -> None:
        _check_tls(settings)
        super().__init__(_config(create_app(backend, settings), settings, access_log))
        if not access_log:  # a line for each caller's mistake, which the caller hears of, would fill any disk
            for name in ("uvicorn.error", "python_multipart"):
                logging.getLogger(name).setLevel(logging.ERROR)
        self._failure: WinspectError | None = None
        self.still_s: float = _KEEP_ALIVE_S
        self._still: dict[Any, tuple[Any, float]] = {}  # connection -> where it stands, since when
        self._backend, self._settings, self._say = backend, settings, say
        self._loading: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    def listen_and_run(self) -> None:
        """Serve until the end is asked for; errors as of :func:`serve`."""
        with _listen(self._settings) as listener:
            _allow_connections()
            self._say(f"serving on {_address(listener, self._settings)}; loading the model")
            if _is_reachable(listener) and self._settings.api_key_file is None:
                host = self._settings.host
                self._say(
                    f"WARNING: whoever reaches {host} may use this service: set --api-key-file, or another --host"
                )
            self.run(sockets=[listener])
        if self._failure is not None:
            raise self._failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer; the model loads meanwhile."""
        await super().startup(sockets)
        self._loading = asyncio.create_task(self._wait_for_model())

    async def on_tick(self, counter: int) -> bool:
        """Also drop connections that have stood still for too long, once a second."""
        if counter % 10 == 0:
            self._drop_still_connections()
        return await super().on_tick(counter)

    def _drop_still_connections(self) -> None:
        """Drop clients that send their headers slowly or never read their answer, which uvicorn would wait for.

        A connection moves when a request of it begins or is answered, and when an answer is read.
        """
        now, before = time.monotonic(), self._still
        connections: Any = list(self.server_state.connections)
        self._still = {}
        for connection in connections:
            request, transport = connection.cycle, connection.transport
            if request is None or request.response_complete:
                place = (request, transport.get_write_buffer_size())
                known_place, since = before.get(connection, (place, now))
                self._still[connection] = place, since if known_place == place else now
                if now - self._still[connection][1] > self.still_s:
                    transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on a signal. It is not raised again at the end, as uvicorn does: the exit code would say so."""
        asyncio.get_running_loop().call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Drain, then end; called again: end now."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        started = time.monotonic()
        self._say("ending: answering what is queued")
        _notify("STOPPING=1")
        try:
            await self._backend.drain(self._settings.drain_s)
        finally:
            left = self._settings.drain_s - (time.monotonic() - started)
            self.config.timeout_graceful_shutdown = max(1, int(min(left, _LAST_S)))
            self.should_exit = True

    async def _wait_for_model(self) -> None:
        started = time.monotonic()
        try:
            await self._backend.wait_ready()
        except WinspectError as error:
            self._failure, self.should_exit = error, True
        else:
            self._say(f"ready after {time.monotonic() - started:.1f} s")
            _notify("READY=1")


def _config(app: FastAPI, settings: ServiceSettings, access_log: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # the implementation that bounds headers
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_s) + 1,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _listen(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        place = f"{settings.host}, port {settings.port}"
        raise SettingsError(f"cannot listen on {place}: {error.strerror or error}; choose another --port") from error


def _address(listener: socket.socket, settings: ServiceSettings) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _is_reachable(listener: socket.socket) -> bool:
    """Whether other machines reach it."""
    return not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _check_tls(settings: ServiceSettings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        for path in (settings.tls_cert, settings.tls_key):
            check_file(path)
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert,
            settings.tls_key,
            password=lambda: "",  # not asked for at a terminal
        )
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise SettingsError(
            f"{settings.tls_cert}, {settings.tls_key}: no certificate and key that belong together ({reason}); need "
            "PEM files, the key without a password"
        ) from error
    except OSError as error:
        raise SettingsError(f"{error.filename}: cannot read this TLS file: {error.strerror}") from error


def _allow_connections() -> None:
    """As many open files as connections need, where the system lets us."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _notify(state: str) -> None:
    """Tell systemd, where it has started us (see sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.connect("\0" + path[1:] if path.startswith("@") else path)
        notifier.sendall(state.encode())
