"""Publishing rows to an MQTT broker (3.1.1, QoS 1). Each row is settled when the broker has acknowledged it."""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from winspect.delivery.message import AwayError, Message, source_of
from winspect.delivery.settings import MqttSettings, secret_of
from winspect.errors import SettingsError
from winspect.system.installation import need

logger = logging.getLogger(__name__)

PORTS = {False: 1883, True: 8883}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NO_TOPIC = re.compile(r"[+#/\x00-\x1f\x7f]")
_LOOK_S = 0.1


def topic_of(template: str, row: Mapping[str, Any]) -> str:
    """The topic of a row.

    Args:
        template: with names of entries in braces; ``product.name`` is ``{product}``.

    >>> topic_of("line4/{class}/{verdict}", {"class": "nut M8/1", "verdict": None})
    'line4/nut M8_1/none'
    """

    def entry(found: re.Match[str]) -> str:
        name = found[1]
        value = source_of(row) if name == "source" else row.get(name)
        if isinstance(value, Mapping):
            value = value.get("name")
        return _NO_TOPIC.sub("_", "none" if value is None else str(value)) or "none"

    return _PLACEHOLDER.sub(entry, template)


class MqttChannel:
    """Publishes rows. A connection that was lost is not used again: what it had not acknowledged is published anew.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
        SettingsError: the password or a certificate is not there.
    """

    at_once = 100

    def __init__(self, settings: MqttSettings) -> None:
        self._mqtt = need("paho.mqtt.client", "mqtt", job="delivering over MQTT")
        self.settings = settings
        self.state: dict[str, Any] = {}
        self._password = secret_of(
            settings, variable=settings.password_env, file=settings.password_file, key="password"
        )
        self._tls = _tls_context(settings) if settings.tls else None
        self._news = threading.Condition()
        self._client: Any = None
        self._acknowledged: set[int] = set()
        self._is_connected, self._lost = False, ""

    def connect(self, stop: threading.Event) -> None:
        """Connect, where there is no connection; see :class:`winspect.delivery.message.Channel`."""
        if self._client is not None and not self._lost:
            return
        self.close()
        settings, mqtt = self.settings, self._mqtt
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.timeout_s
        client.max_inflight_messages_set(self.at_once)
        client.on_connect, client.on_disconnect, client.on_publish = self._connected, self._gone, self._published
        if settings.user:
            client.username_pw_set(settings.user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        self._acknowledged, self._is_connected, self._lost = set(), False, ""
        self._client = client
        try:
            self._open(client, stop)
        except BaseException:
            self.close()
            raise

    def _open(self, client: Any, stop: threading.Event) -> None:
        settings = self.settings
        try:
            client.connect(
                settings.host, settings.port or PORTS[settings.tls], keepalive=max(1, round(settings.keepalive_s))
            )
            client.loop_start()
            self._until(lambda: self._is_connected, "did not answer", stop)
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not to be trusted ({error.verify_message}); check host and ca"
            raise AwayError(f"{self._place}: {reason}", was_sent=False) from error
        except (OSError, ValueError) as error:  # refused, unknown name, no TLS there, ...
            raise AwayError(f"{self._place}: {error}", was_sent=False) from error
        except AwayError as error:
            error.was_sent = False
            raise

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        """Publish the messages, then wait for each to be acknowledged; see
        :class:`winspect.delivery.message.Channel`."""
        try:
            self.connect(stop)
            numbers = [self._publish(message) for message in messages]
            for number in numbers:
                self._until(lambda number=number: number in self._acknowledged, "did not acknowledge a row", stop)
                self._acknowledged.discard(number)
                yield None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.disconnect()
            with suppress(Exception):
                client.loop_stop()

    @property
    def _place(self) -> str:
        return f"{self.settings.host}:{self.settings.port or PORTS[self.settings.tls]}"

    def _publish(self, message: Message) -> int:
        info = self._client.publish(topic_of(self.settings.topic, message.row), message.body, qos=1)
        if info.rc not in (self._mqtt.MQTT_ERR_SUCCESS, self._mqtt.MQTT_ERR_NO_CONN):
            raise AwayError(f"{self._place}: {self._mqtt.error_string(info.rc)}")
        return info.mid

    def _until(self, condition: Any, trouble: str, stop: threading.Event) -> None:
        """Wait until something is so.

        Raises:
            AwayError: the connection was lost, nothing came in time, or the process ends.
        """
        end = time.monotonic() + self.settings.timeout_s
        with self._news:
            while not condition():
                if self._lost:
                    raise AwayError(f"{self._place}: {self._lost}")
                if stop.is_set():
                    raise AwayError("stopped")
                if time.monotonic() > end:
                    raise AwayError(f"{self._place}: {trouble} for {self.settings.timeout_s:g} s")
                self._news.wait(_LOOK_S)

    # Called from the client's thread.

    def _connected(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        with self._news:
            if reason.is_failure:
                self._lost = f"refused: {reason}; check user, password and client_id"
            self._is_connected = not reason.is_failure
            self._news.notify_all()

    def _gone(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        with self._news:
            self._lost = self._lost or f"connection lost ({reason})"
            self._news.notify_all()

    def _published(self, client: Any, _: Any, number: int, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        with self._news:
            self._acknowledged.add(number)
            self._news.notify_all()


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (settings.ca, settings.certificate, settings.key)))
        raise SettingsError(
            f"deliveries: {settings.name}: cannot use the certificates ({error}); check {files}"
        ) from error
    return context
