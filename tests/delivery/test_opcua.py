"""The OPC UA server against asyncua's client: values, subscriptions, acknowledgement, who may do what."""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from tests.delivery.counterparts import free_port, listens, until, write_certificates
from tests.delivery.rows import row_of
from winspect.delivery import OpcUaSettings, opcua
from winspect.delivery.deliverer import Deliverer
from winspect.delivery.message import AwayError, Message
from winspect.delivery.opcua import NAMESPACE, OpcUaChannel
from winspect.errors import SettingsError

asyncua = pytest.importorskip("asyncua", reason="an OPC UA server needs the extra opcua")
STOP = threading.Event()


@contextmanager
def serving(**options):
    channel = OpcUaChannel(OpcUaSettings(port=free_port(), **options))
    channel.connect(STOP)
    try:
        yield channel
    finally:
        channel.close()


def ask(port, work, *, prepare=None):
    """Run ``work(client, node)`` with a client; ``node("nut/Score")`` is the node of an entry."""

    async def run():
        client = asyncua.Client(f"opc.tcp://127.0.0.1:{port}/winspect")
        if prepare is not None:
            await prepare(client)
        async with client:
            space = await client.get_namespace_index(NAMESPACE)
            return await work(client, lambda name: client.get_node(asyncua.ua.NodeId(name, space)))

    return asyncio.run(run())


def values(port, source, *names):
    async def read(_, node):
        return [await node(f"{source}/{name}").read_value() for name in names]

    return ask(port, read)


def send(channel, *rows):
    return list(channel.send([Message(number, row) for number, row in enumerate(rows, 1)], STOP))


async def changes(_, node):
    """Which changes are refused to a client."""
    refused = []
    for name in ("nut/Verdict", "nut/Count", "nut/Acknowledged"):
        try:
            await node(name).write_value(await node(name).read_data_value())
        except asyncua.ua.UaError:
            refused.append(name)
    try:
        await node("nut").add_folder(2, "mine")
    except asyncua.ua.UaError:
        refused.append("folder")
    return refused


def test_a_client_finds_the_newest_row_of_each_source():
    failed = row_of(2, source="line4", anomaly_score=None, verdict=None, error={"type": "E", "message": "cut off"})
    with serving(sources=("line5",)) as channel:
        port = channel.settings.port
        assert values(port, "line5", "Verdict", "Count") == ["", 0]
        assert send(channel, row_of(1), failed, row_of(3, verdict="anomalous", reason="area 14 > 5")) == [None] * 3
        names = ("Verdict", "Score", "Count", "Reason", "Id", "Path", "Class", "Repeat", "Time")
        *nut, time = values(port, "nut", *names)
        assert nut == ["anomalous", 0.003, 2, "area 14 > 5", row_of(3)["id"], "3.png", "nut", False]
        assert time.replace(tzinfo=timezone.utc) == datetime(2026, 11, 22, 12, 0, 0, 250_000, timezone.utc)
        verdict, score, count, reason = values(port, "line4", "Verdict", "Score", "Count", "Reason")
        assert (verdict, count, reason) == ("failed", 1, "cut off")
        assert math.isnan(score)
        assert channel.state == {"counts": {"nut": 2, "line4": 1}}
        assert ask(port, changes) == ["nut/Verdict", "nut/Count", "nut/Acknowledged", "folder"]


def test_a_client_that_acknowledges_misses_nothing(tmp_path):
    port = free_port()
    settings = OpcUaSettings(port=port, sources=("nut",), acknowledge=True, timeout_s=0.2)

    async def take(_, node, most):
        seen = []
        while len(seen) < most:
            identity, repeat = await node("nut/Id").read_value(), await node("nut/Repeat").read_value()
            if identity and identity not in {known for known, _ in seen}:
                seen.append((identity, repeat))
                await node("nut/Acknowledged").write_value(identity)
            await asyncio.sleep(0.01)
        return seen

    with Deliverer([settings], tmp_path) as deliverer:
        for number in range(1, 31):
            deliverer.take(row_of(number))
        until(lambda: "no client acknowledges row" in deliverer.behind_in_words())
        assert ask(port, changes) == ["nut/Verdict", "nut/Count", "folder"]
        seen = ask(port, lambda client, node: take(client, node, 12))
    with Deliverer([settings], tmp_path) as deliverer:
        until(lambda: listens(port))
        again = ask(port, lambda client, node: take(client, node, deliverer.status()[0].waiting))
        until(lambda: deliverer.status()[0].waiting == 0)
        assert values(port, "nut", "Count") == [30]
    assert {identity for identity, _ in seen + again} == {row_of(number)["id"] for number in range(1, 31)}
    assert not any(repeat for _, repeat in seen)
    assert again[0][1], "a row that an earlier process may have shown"


def test_signed_and_encrypted_with_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv("PLC_PASSWORD", "s3cret")
    certificate, key = map(str, write_certificates(tmp_path))
    user = {"certificate": certificate, "key": key, "user": "plc", "password_env": "PLC_PASSWORD"}

    def secured(password):
        async def prepare(client):
            client.application_uri = "urn:winspect"
            await client.set_security_string(f"Basic256Sha256,SignAndEncrypt,{certificate},{key}")
            client.set_user("plc")
            client.set_password(password)

        return prepare

    async def read(_, node):
        return await node("nut/Count").read_value()

    with serving(sources=("nut",), **user) as channel:
        port = channel.settings.port
        assert ask(port, read, prepare=secured("s3cret")) == 0
        with pytest.raises(asyncua.ua.UaError):
            ask(port, read, prepare=secured("wrong"))
        with pytest.raises((asyncua.ua.UaError, ConnectionError)):
            ask(port, read)


def test_a_port_in_use_is_said_and_tried_again():
    with serving() as channel:
        second = OpcUaChannel(OpcUaSettings(port=channel.settings.port))
        with pytest.raises(AwayError, match=r"cannot listen there \(Address already in use"):
            second.connect(STOP)
    second.connect(STOP)
    second.close()


def test_what_is_refused(monkeypatch):
    with pytest.raises(SettingsError, match="certificate and key: without them the password is not encrypted"):
        OpcUaSettings(user="plc")
    with pytest.raises(SettingsError, match=r"/no/such: no such file; check certificate and key"):
        OpcUaChannel(OpcUaSettings(certificate="/no/such", key="/no/such"))


def test_sources_that_callers_make_up_fill_no_memory(monkeypatch):
    monkeypatch.setattr(opcua, "MOST_SOURCES", 2)
    with serving() as channel:
        send(channel, *(row_of(number, source=f"s{number}") for number in range(2 + 3)))
        assert values(channel.settings.port, "other", "Count") == [3]
