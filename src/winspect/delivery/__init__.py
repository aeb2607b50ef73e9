"""Rows that go to the machine beside the camera: MQTT, webhooks, an OPC UA server, commands.

* ``settings``: the tables ``[[deliveries]]`` of a product or of a file of their own.
* ``spool``: where rows wait, on disk, for as long as the other side is away.
* ``message``: a row as it is sent. ``channel``: what each kind of delivery does with it.
* ``mqtt``, ``webhook``, ``opcua``, ``command``: the kinds.
* ``pump``: takes rows from the spool to one channel. ``deliverer``: the one object that a watch or a service holds.

Each row arrives at least once. It has an ``id``, by which a receiver can drop what it has already, and ``repeat`` is
true where it may have arrived before.
"""

from winspect.delivery.settings import (
    CommandSettings,
    Deliveries,
    DeliverySettings,
    MqttSettings,
    OpcUaSettings,
    WebhookSettings,
    read_deliveries,
)

__all__ = [
    "CommandSettings",
    "Deliveries",
    "DeliverySettings",
    "MqttSettings",
    "OpcUaSettings",
    "WebhookSettings",
    "read_deliveries",
]
