"""What both clients share: options of the connection, and what becomes of an answer or its absence."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, TypeVar

from winspect._version import __version__
from winspect.client.errors import ClientError, NoAnswerError, RefusedError
from winspect.client.requests import Request
from winspect.errors import MissingExtraError, SettingsError
from winspect.system.installation import install_command
from winspect.system.retrying import BUSY, Retries, retry_after

try:
    import httpx
except ModuleNotFoundError as error:
    raise MissingExtraError(f"the client needs: {install_command('client')}") from error

Found = TypeVar("Found")

_CONNECT_S = 5.0


def options_of(url: str, api_key: str | None, tls: Any, timeout_s: float, transport: Any) -> dict[str, Any]:
    """Arguments of ``httpx.Client``.

    Raises:
        SettingsError: the address is none, or the certificates cannot be read.
    """
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"got the address {url!r}, need http://HOST:PORT or https://HOST:PORT")
    options = {
        "base_url": url,
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
        "headers": {"User-Agent": f"winspect/{__version__}", **_key(api_key)},
        "verify": _context(tls),
    }
    return options if transport is None else {**options, "transport": transport}


def read(request: Request[Found], response: httpx.Response) -> Found:
    """What the caller gets.

    Raises:
        RefusedError: the service answered with an error.
        ClientError: the answer is not the service's.
    """
    if response.is_error:
        raise _refusal(response)
    if not request.is_json:
        return request.read(response.content)
    try:
        answer = response.json()
    except ValueError as error:
        raise ClientError(
            f"{response.url}: got {response.text[:80]!r}, need JSON: is this winspect's service?"
        ) from error
    return request.read(answer)


def wait_after(retries: Retries, tried: int, response: httpx.Response) -> float | None:
    """Seconds until a request is made again after this answer; None where the answer stands."""
    if response.status_code not in BUSY:
        return None
    return retries.wait_s(tried, retry_after(response.headers))


def wait_without(request: Request[Any], retries: Retries, tried: int, error: httpx.TransportError) -> float:
    """Seconds until a request is made again that got no answer.

    Raises:
        NoAnswerError: it is not made again: it was often enough, or it might be done twice.
    """
    is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    wait_s = retries.wait_s(tried) if is_unsent or request.is_repeatable else None
    if wait_s is None:
        what = str(error) or type(error).__name__
        raise NoAnswerError(f"{request.method} {request.path}: no answer after {tried} tries: {what}") from error
    return wait_s


def _key(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not (api_key.isascii() and api_key.isprintable() and api_key):
        raise SettingsError("api_key: need printable ASCII characters on one line")
    return {"Authorization": f"Bearer {api_key}"}


def _context(tls: Any) -> ssl.SSLContext:
    if isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=None if tls is None else str(Path(tls)))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"tls: {tls}: cannot read certificates (PEM): {error}") from error


def _refusal(response: httpx.Response) -> RefusedError:
    kind, message = "", response.reason_phrase
    try:
        found = response.json()["error"]
        kind, message = ("", found) if isinstance(found, str) else (found["type"], found["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text[:200].strip() or message
    seconds = retry_after(response.headers)
    return RefusedError(message, status=response.status_code, kind=kind, retry_after_s=seconds)
