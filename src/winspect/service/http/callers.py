"""Who is let in: requests for a host this service is known by, from no other site's page, with a key.

A page of another site can let its own name stand for this machine's address (DNS rebinding): for the browser its
requests are then of one origin, and it reads every answer. Their Host header still has the name of that site.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope

from winspect.errors import SettingsError
from winspect.service.http.refusals import Refused
from winspect.system.opening import read_text

OPEN_PATHS = ("/", "/docs", "/v2/health/live", "/v2/health/ready")
"""Answered without a key: health, which probes ask for; the page, which holds nothing and asks for a key itself; and
the description of the API, which is the same for every service."""
OPEN_FOLDER = "/page/"

SHORTEST_KEY = 16
"""Characters; shorter keys can be guessed."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def read_keys(path: Path) -> list[str]:
    """Read a file with a key a line; empty lines and lines that start with # are left out.

    Raises:
        SettingsError: it cannot be read, holds no key, or one that is too short.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"{path}: cannot read the API keys: {reason}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise SettingsError(f"{path}: holds no API key; write one a line, as `openssl rand -hex 32` makes it")
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise SettingsError(f"{path}: a key is shorter than {SHORTEST_KEY} characters; use `openssl rand -hex 32`")
    return keys


class Callers:
    """See the module.

    Args:
        hosts: where the service listens, and what else it is called, beside loopback's names. An address of all
            interfaces (0.0.0.0, ::) stands for each address of this machine. None for any name: for services with a
            key, which a page does not have.
        keys: only their hashes are kept; None lets everyone in.
    """

    def __init__(self, *, hosts: Iterable[str] | None, keys: Iterable[str] | None = None) -> None:
        self._hosts = None if hosts is None else {_plain(name) for name in hosts}
        self._digests = None if keys is None else [_digest(key) for key in keys]

    def check(self, scope: Scope, headers: Headers) -> None:
        """Refuse a request before anything of its body is read.

        Raises:
            Refused: 401, no key; 403, another host, or a page of another site.
        """
        self._check_host(headers.get("host"), str((scope.get("server") or ("",))[0]))
        _check_origin(scope["method"], headers)
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER)
        if not is_open and not self.has_key(headers):
            raise Refused(
                401,
                "need an API key: Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": 'Bearer realm="winspect"'},
            )

    def has_key(self, headers: Headers) -> bool:
        """Whether a request may do all; all keys are compared, each in constant time."""
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        digest = _digest(credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        # A list, so that the first match does not end the comparison.
        return self._digests is None or any([hmac.compare_digest(digest, known) for known in self._digests])

    def _check_host(self, header: str | None, arrived_at: str) -> None:
        """One without a Host header comes from no browser."""
        if self._hosts is None or header is None:
            return
        name, bracket, _ = header.strip().rpartition("]")
        host = _plain(name + bracket if bracket else header.strip().partition(":")[0])
        if not host or not (host in self._hosts or host == _plain(arrived_at) or _is_loopback(host)):
            raise Refused(
                403,
                f"got the Host {header[:80]!r}, which this service is not known by; ask for localhost, or start it "
                "with --allowed-host NAME",
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _plain(name: str) -> str:
    return name.strip().strip("[]").rstrip(".").lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_origin(method: str, headers: Headers) -> None:
    """Refuse what a foreign web page makes a browser send: a service on loopback is within its reach.

    Browsers say where a request comes from in Sec-Fetch-Site, older ones in Origin; other clients send neither.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_foreign = (
        site not in ("same-origin", "none")
        if site is not None
        else origin is not None and origin.partition("://")[2] != headers.get("host")
    )
    if is_foreign and method not in _SAFE_METHODS:
        raise Refused(403, "this comes from a page of another site; open the service's own page")
