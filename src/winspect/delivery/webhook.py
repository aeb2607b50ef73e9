"""Posting each row to an address, signed as Standard Webhooks (standardwebhooks.com, 1.0.0) have it.

The signature is HMAC-SHA256 over ``id.timestamp.body``; the timestamp, in seconds, lets a receiver refuse what is old.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from winspect.delivery.message import AwayError, Message
from winspect.delivery.settings import WebhookSettings, secret_of
from winspect.errors import SettingsError
from winspect.system.installation import need
from winspect.system.retrying import retry_after

_PREFIX = "whsec_"
_TRY_AGAIN = (408, 429)


def signature(secret: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: ``v1,`` and base64 of HMAC-SHA256 of ``identity.timestamp.body``."""
    content = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode("ascii")


def key_of(secret: str) -> bytes:
    """The key in a secret: the base64 behind ``whsec_``, or else the text itself.

    >>> key_of("whsec_bGluZSA0"), key_of("line 4")
    (b'line 4', b'line 4')

    Raises:
        ValueError: what is behind ``whsec_`` is not base64.
    """
    if not secret.startswith(_PREFIX):
        return secret.encode("utf-8")
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


class WebhookChannel:
    """Posts rows, one after the other. 2xx: delivered. 408, 429, 5xx, no answer: sent again. Any other: refused.

    Raises:
        MissingExtraError: httpx is not installed.
        SettingsError: the secret or the certificate is not there.
    """

    at_once = 1

    def __init__(self, settings: WebhookSettings) -> None:
        httpx = need("httpx", "client", job="a webhook")
        self.settings = settings
        self.state: dict[str, Any] = {}
        self._key = _key(settings)
        try:
            verify = ssl.create_default_context(cafile=settings.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise settings.refusal("ca", settings.ca, f"a file of certificates (PEM) ({error})") from error
        self._client = httpx.Client(timeout=settings.timeout_s, verify=verify, follow_redirects=False)
        self._failures = (httpx.HTTPError, httpx.InvalidURL)
        self._unconnected = httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout

    def connect(self, stop: threading.Event) -> None:
        """Nothing is connected beforehand."""

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        """Post the messages; see :class:`winspect.delivery.message.Channel`."""
        for message in messages:
            if stop.is_set():
                raise AwayError("stopped", was_sent=False)
            yield self._post(message)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post(self, message: Message) -> str | None:
        body = message.body
        try:
            # The answer's body is of no use, and may be of any length: it is not read.
            with self._client.stream(
                "POST", self.settings.url, content=body, headers=self._headers(message, body)
            ) as answer:
                status, headers = answer.status_code, answer.headers
        except self._failures as error:
            reason = str(error) or type(error).__name__
            raise AwayError(f"{self._place}: {reason}", was_sent=not isinstance(error, self._unconnected)) from error
        if 200 <= status < 300:
            return None
        reason = f"{self._place}: HTTP {status}"
        if status in _TRY_AGAIN or status >= 500:
            raise AwayError(reason, retry_after_s=retry_after(headers))
        return f"{reason}, redirects are not followed" if 300 <= status < 400 else reason

    @property
    def _place(self) -> str:
        """The address without its query, which may hold a secret."""
        return self.settings.url.partition("?")[0]

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        timestamp = int(time.time())
        headers = {"content-type": "application/json", "webhook-id": message.id, "webhook-timestamp": str(timestamp)}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, message.id, timestamp, body)
        return headers


def _key(settings: WebhookSettings) -> bytes | None:
    secret = secret_of(settings, variable=settings.secret_env, file=settings.secret_file, key="secret")
    try:
        return None if secret is None else key_of(secret)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            f"deliveries: {settings.name}: the secret begins with {_PREFIX}, but is not base64"
        ) from error
