"""Host headers that are answered.

A page of another site can let its own name stand for this machine's address (DNS rebinding): for the browser its
requests are then of one origin, and it reads every answer. Their Host header still has the name of that site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import Scope

from winspect.service.http.refusals import Refused


class Hosts:
    """The names this service is reached by: of loopback, and those named.

    Args:
        names: where it listens, and what else it is called. An address of all interfaces (0.0.0.0, ::) stands for each
            address of this machine.
        any_host: answer to every name; for services with a key, which a page does not have.
    """

    def __init__(self, names: Iterable[str], *, any_host: bool = False) -> None:
        self._names, self._any_host = {_plain(name) for name in names}, any_host

    def check(self, scope: Scope, header: str | None) -> None:
        """Refuse a request for another host. One without a Host header comes from no browser.

        Raises:
            Refused: 403.
        """
        if self._any_host or header is None:
            return
        name = _name_of(header)
        arrived_at = _plain(str((scope.get("server") or ("",))[0]))
        if name and (name in self._names or name == arrived_at or _is_loopback(name)):
            return
        raise Refused(
            403,
            f"got the Host {header[:80]!r}, which this service is not known by; ask for localhost, or start it with "
            "--allowed-host NAME",
        )


def _name_of(header: str) -> str:
    """Without the port."""
    name, bracket, _ = header.strip().rpartition("]")
    return _plain(name + bracket if bracket else header.strip().partition(":")[0])


def _plain(name: str) -> str:
    return name.strip().strip("[]").rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
