"""The channel of each kind of delivery. What it needs is imported here, when it is made."""

from __future__ import annotations

from winspect.delivery.message import Channel
from winspect.delivery.settings import (
    CommandSettings,
    DeliverySettings,
    MqttSettings,
    OpcUaSettings,
    WebhookSettings,
)


def channel_of(settings: DeliverySettings) -> Channel:
    """The channel of a delivery; nothing is connected as yet.

    Raises:
        MissingExtraError: the extra of this kind is not installed.
        SettingsError: a file or a secret that it names is not there.
    """
    if isinstance(settings, MqttSettings):
        from winspect.delivery.mqtt import MqttChannel

        return MqttChannel(settings)
    if isinstance(settings, WebhookSettings):
        from winspect.delivery.webhook import WebhookChannel

        return WebhookChannel(settings)
    if isinstance(settings, OpcUaSettings):
        from winspect.delivery.opcua import OpcUaChannel

        return OpcUaChannel(settings)
    if isinstance(settings, CommandSettings):
        from winspect.delivery.command import CommandChannel

        return CommandChannel(settings)
    raise TypeError(f"got {settings!r}, need settings of a kind")
