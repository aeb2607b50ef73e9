"""MQTT against a broker: QoS 1, broker away and back, users, certificates."""

from __future__ import annotations

import threading

import pytest

from tests.delivery.counterparts import free_port, other, unmarked_repeats, until, write_certificates
from tests.delivery.rows import row_of
from winspect.delivery import MqttSettings
from winspect.delivery.deliverer import Deliverer
from winspect.delivery.message import AwayError, Message
from winspect.delivery.mqtt import MqttChannel, topic_of
from winspect.errors import MissingExtraError, SettingsError

pytest.importorskip("paho.mqtt.client", reason="MQTT needs the extra mqtt")
pytest.importorskip("amqtt", reason="the broker of the tests")
STOP = threading.Event()


def send(channel, *numbers, **more):
    messages = [Message(number, row_of(number, **more)) for number in numbers]
    return list(channel.send(messages, STOP))


def settings(port, **options):
    return MqttSettings(host="127.0.0.1", port=port, **options)


@pytest.mark.parametrize(
    ("template", "topic"),
    [
        ("winspect/{class}", "winspect/M8_nut_1"),
        ("line4/{verdict}/{source}", "line4/none/rtsp:__cam"),
        ("{product}/{no_such}", "p7/none"),
        ("a/{path}", "a/_$SYS_x"),
    ],
)
def test_topics_of_a_row_hold_no_wildcard_and_no_level_of_its_text(template, topic):
    row = {"class": "M8+nut/1", "verdict": None, "source": "rtsp://cam", "product": {"name": "p7"}, "path": "#$SYS/x"}
    assert topic_of(template, row) == topic


def test_rows_arrive_as_json_also_when_the_broker_was_away(tmp_path):
    with other("broker", tmp_path) as broker:
        deliveries = [settings(broker.port, topic="line4/{class}/{verdict}", keepalive_s=5)]
        with Deliverer(deliveries, tmp_path / "spool") as deliverer:
            deliverer.take(row_of(1))
            until(lambda: deliverer.status()[0].waiting == 0)
            broker.kill()
            for number in range(2, 250):
                deliverer.take(row_of(number, verdict="anomalous"))
            until(lambda: "Connection refused" in deliverer.behind_in_words())
            broker.start()
            until(lambda: deliverer.status()[0].waiting == 0)
            assert deliverer.behind_in_words() == ""
        received = broker.received()
    assert received[0]["topic"] == "line4/nut/normal"
    assert received[-1]["topic"] == "line4/nut/anomalous"
    assert received[0]["row"] == {**row_of(1), "repeat": False}
    assert broker.ids() == {row_of(number)["id"] for number in range(1, 250)}
    assert unmarked_repeats(broker.rows()) == 0


def test_rows_that_the_broker_did_not_acknowledge_in_time(tmp_path):
    """A port that takes connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = MqttChannel(settings(silent.getsockname()[1], timeout_s=0.2))
        with pytest.raises(AwayError, match=r"did not answer for 0.2 s") as caught:
            send(channel, 1)
    assert not caught.value.was_sent


def test_users(tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_PASSWORD", "s3cret")
    with other("broker", tmp_path, user="line4", password="s3cret") as broker:
        channel = MqttChannel(settings(broker.port, user="line4", password_env="LINE_PASSWORD"))
        assert send(channel, 1) == [None]
        channel.close()
        monkeypatch.setenv("LINE_PASSWORD", "wrong")
        with pytest.raises(AwayError, match="check user, password and client_id"):
            send(MqttChannel(settings(broker.port, user="line4", password_env="LINE_PASSWORD")), 2)
        assert len(broker.rows()) == 1
    monkeypatch.delenv("LINE_PASSWORD")
    with pytest.raises(SettingsError, match="password_env: got 'LINE_PASSWORD'"):
        MqttChannel(settings(1, user="line4", password_env="LINE_PASSWORD"))


# paho leaves the socket of a handshake that failed to be collected.
@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")
def test_certificates(tmp_path):
    (tmp_path / "other").mkdir()
    certificate, key = map(str, write_certificates(tmp_path))
    stranger, _ = write_certificates(tmp_path / "other")
    with other("broker", tmp_path, certificate=certificate, key=key) as broker:
        channel = MqttChannel(settings(broker.port, tls=True, ca=certificate))
        assert send(channel, 1) == [None]
        channel.close()
        for trusted in (str(stranger), ""):
            with pytest.raises(AwayError, match=r"certificate is not to be trusted \(self.signed.*check host and ca"):
                send(MqttChannel(settings(broker.port, tls=True, ca=trusted)), 2)
        wrong_name = MqttSettings(host="localhost", port=broker.port, tls=True, ca=certificate)
        with pytest.raises(AwayError, match=r"not valid for 'localhost'|Hostname mismatch"):
            send(MqttChannel(wrong_name), 2)
        with pytest.raises(AwayError):
            send(MqttChannel(settings(broker.port, timeout_s=1.0)), 2)  # without TLS
        assert len(broker.rows()) == 1
    with pytest.raises(SettingsError, match="cannot use the certificates"):
        MqttChannel(settings(1, tls=True, ca=str(tmp_path / "none.pem")))


def test_nobody_there_and_no_such_host():
    with pytest.raises(AwayError, match="Connection refused"):
        MqttChannel(settings(free_port())).connect(STOP)
    with pytest.raises(AwayError, match=r"no\.such\.host\.invalid"):
        MqttChannel(MqttSettings(host="no.such.host.invalid")).connect(STOP)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "paho.mqtt.client", None)
    with pytest.raises(MissingExtraError, match=r"delivering over MQTT needs: pip install .*mqtt"):
        MqttChannel(settings(1))
