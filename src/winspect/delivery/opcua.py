"""An OPC UA server of our own, with an object for each source that shows its newest row.

Below ``Objects/winspect``, in the namespace ``urn:winspect``, each source is an object with a variable per entry; the
node of an entry is ``s=SOURCE/ENTRY``. ``Count`` is written last: a client that sees it change finds the whole row.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from winspect.delivery.message import AwayError, Message, source_of
from winspect.delivery.settings import OpcUaSettings, secret_of
from winspect.errors import SettingsError
from winspect.system.installation import need

NAMESPACE = "urn:winspect"
ACKNOWLEDGED = "Acknowledged"
MOST_SOURCES, OTHER = 256, "other"
"""Objects at most; the sources above that share one."""
_KINDS = {
    **{"Verdict": "String", "Score": "Double", "Reason": "String", "Class": "String", "Path": "String"},
    **{"Id": "String", "Time": "DateTime", "Repeat": "Boolean", "Count": "UInt32"},
}
_CALL_S = 30.0
_LOOK_S = 0.02
_WRAP = 2**32


class OpcUaChannel:
    """Shows rows on a server, which has a thread with an event loop.

    Raises:
        MissingExtraError: asyncua is not installed.
        SettingsError: the password or a certificate is not there.
    """

    at_once = 1

    def __init__(self, settings: OpcUaSettings) -> None:
        need("asyncua", "opcua", job="an OPC UA server")
        self.settings = settings
        self.state: dict[str, Any] = {}
        self._password = secret_of(
            settings, variable=settings.password_env, file=settings.password_file, key="password"
        )
        if settings.user and not self._password:
            raise settings.refusal("user", settings.user, "its password in password_env or password_file")
        for path in filter(None, (settings.certificate, settings.key)):
            if not Path(path).is_file():
                raise SettingsError(f"deliveries: {settings.name}: {path}: no such file; check certificate and key")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._parent: Any = None
        self._nodes: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, str] = {}  # source -> id

    def connect(self, stop: threading.Event) -> None:
        """Start the server, where it does not run.

        Raises:
            AwayError: it cannot be started, as on a port that is in use.
        """
        if self._server is not None:
            return
        place = self.settings.host, self.settings.port
        try:
            # Asked for first: making the server takes seconds.
            socket.create_server(place, family=socket.AF_INET6 if ":" in place[0] else socket.AF_INET).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise AwayError(f"{place[0]}:{place[1]}: cannot listen there ({reason})", was_sent=False) from error
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name="winspect-opcua", daemon=True)
        self._thread.start()
        try:
            self._call(self._start())
        except Exception as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise AwayError(f"the server cannot be started ({reason})", was_sent=False) from error

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        """Show the rows, one after the other; see :class:`winspect.delivery.message.Channel`."""
        self.connect(stop)
        for message in messages:
            source = self._call(self._source(source_of(message.row)))
            if self._shown.get(source) != message.id:
                self._call(self._show(source, message))
                self._shown[source] = message.id
            if self.settings.acknowledge:
                self._await_acknowledgement(source, message, stop)
            counts = self.state.get("counts", {})
            self.state = {"counts": {**counts, source: self._count(source) + 1}}
            yield None

    def close(self) -> None:
        """Stop the server."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if self._server is not None:
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._server.stop(), loop).result(_CALL_S)
        self._server, self._nodes, self._shown = None, {}, {}
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CALL_S)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    def _await_acknowledgement(self, source: str, message: Message, stop: threading.Event) -> None:
        end = time.monotonic() + self.settings.timeout_s
        node = self._nodes[source][ACKNOWLEDGED]
        while self._call(node.read_value()) != message.id:
            if stop.is_set():
                raise AwayError("stopped")
            if time.monotonic() > end:
                raise AwayError(f"{source}: no client acknowledges row {message.id}", retry_after_s=0.0)
            time.sleep(_LOOK_S)

    # In the server's loop.

    async def _start(self) -> None:
        from asyncua import Server, ua

        settings = self.settings
        server = Server(user_manager=_Users(settings.user, self._password))
        await server.init()
        await server.set_application_uri(NAMESPACE)
        server.set_server_name("winspect")
        server.set_endpoint(f"opc.tcp://{settings.host}:{settings.port}/winspect")
        policy = ua.SecurityPolicyType
        if settings.certificate:
            await server.load_certificate(settings.certificate)
            await server.load_private_key(settings.key)
            server.set_security_policy([policy.Basic256Sha256_SignAndEncrypt, policy.Basic256Sha256_Sign])
        else:
            server.set_security_policy([policy.NoSecurity])
        server.set_identity_tokens([ua.UserNameIdentityToken if settings.user else ua.AnonymousIdentityToken])
        space = await server.register_namespace(NAMESPACE)
        self._parent = await server.nodes.objects.add_folder(ua.NodeId("winspect", space), "winspect")
        for source in (*settings.sources, *self.state.get("counts", {})):
            await self._source(source)
        await server.start()
        self._server = server

    async def _source(self, source: str) -> str:
        """Make the nodes of a source, where they are not there; returns the source that has them."""
        from asyncua import ua

        if source not in self._nodes and len(self._nodes) >= MOST_SOURCES:
            source = OTHER
        if source in self._nodes:
            return source
        space = self._parent.nodeid.NamespaceIndex
        parent = await self._parent.add_object(ua.NodeId(source, space), ua.QualifiedName(source, space))
        nodes = {}
        for name, kind in {**_KINDS, ACKNOWLEDGED: "String"}.items():
            variant = ua.Variant(_EMPTY[kind], ua.VariantType[kind])
            node_id = ua.NodeId(f"{source}/{name}", space)
            nodes[name] = await parent.add_variable(node_id, ua.QualifiedName(name, space), variant)
        await nodes["Count"].write_value(ua.Variant(self._count(source), ua.VariantType.UInt32))
        if self.settings.acknowledge:
            await nodes[ACKNOWLEDGED].set_writable()
        self._nodes[source] = nodes
        return source

    def _count(self, source: str) -> int:
        return int(self.state.get("counts", {}).get(source, 0)) % _WRAP

    async def _show(self, source: str, message: Message) -> None:
        from asyncua import ua

        count = self._count(source) + 1
        for name, value in {**values_of(message), "Count": count % _WRAP}.items():
            await self._nodes[source][name].write_value(ua.Variant(value, ua.VariantType[_KINDS[name]]))


_EMPTY: dict[str, Any] = {
    **{"String": "", "Double": math.nan, "Boolean": False, "UInt32": 0},
    "DateTime": datetime(1601, 1, 1),  # OPC UA's first
}


def values_of(message: Message) -> dict[str, Any]:
    """The values of a row's nodes, but for ``Count``; a score that is not there is NaN."""
    row = message.row
    error = row.get("error")
    reason = row.get("reason") or (error.get("message") if isinstance(error, Mapping) else error) or row.get("warning")
    score = row.get("anomaly_score")
    return {
        "Verdict": message.verdict,
        "Score": math.nan if score is None else float(score),
        "Reason": str(reason or ""),
        "Class": str(row.get("class") or ""),
        "Path": str(row.get("path") or ""),
        "Time": _utc_of(row.get("time")),
        "Repeat": message.is_repeat,
        "Id": message.id,
    }


def _utc_of(text: Any) -> datetime:
    """A time without its zone, in UTC, as OPC UA has it; now where the row has none."""
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        moment = datetime.now(timezone.utc)
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and close it with what is left in it."""
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.close()


class _Users:
    """Lets in the one user, or everyone where there is none; nobody may change nodes that are not for clients."""

    def __init__(self, user: str, password: str | None) -> None:
        self._user, self._password = user, password or ""

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        from asyncua.crypto.permission_rules import User, UserRole

        given = (str(username or ""), str(password or ""))
        is_user = hmac.compare_digest("\0".join(given).encode(), f"{self._user}\0{self._password}".encode())
        return User(role=UserRole.User) if not self._user or is_user else None
