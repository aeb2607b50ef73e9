"""Webhooks against a receiver: signatures, refusals, absence, certificates."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading

import pytest

from tests.delivery.counterparts import other, unmarked_repeats, until
from tests.delivery.rows import row_of
from winspect.delivery import WebhookSettings
from winspect.delivery.deliverer import Deliverer
from winspect.delivery.message import AwayError, Message
from winspect.delivery.webhook import WebhookChannel, signature
from winspect.errors import SettingsError

pytest.importorskip("httpx", reason="webhooks need the extra client")
STOP = threading.Event()


def hook(receiver, **options):
    return WebhookSettings(url=f"http://127.0.0.1:{receiver.port}/rows?line=4", **options)


def send(channel, *numbers):
    return list(channel.send([Message(number, row_of(number)) for number in numbers], STOP))


def test_the_signature_is_that_of_standard_webhooks():
    """The example of the specification's reference libraries, worked out by ``openssl dgst -sha256 -hmac`` too."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_rows_arrive_signed(tmp_path, monkeypatch):
    monkeypatch.setenv("MES_SECRET", "line 4")
    with other("receiver", tmp_path) as receiver:
        channel = WebhookChannel(hook(receiver, secret_env="MES_SECRET"))
        assert send(channel, 1, 2) == [None, None]
        channel.close()
        first, second = receiver.received()
    assert first["row"] == {**row_of(1), "repeat": False}
    headers = second["headers"]
    content = f"{row_of(2)['id']}.{headers['webhook-timestamp']}.{second['body']}".encode()
    expected = base64.b64encode(hmac.new(b"line 4", content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == row_of(2)["id"]
    assert headers["content-type"] == "application/json"


def test_secrets(monkeypatch):
    monkeypatch.setenv("MES_SECRET", "whsec_no base64")
    with pytest.raises(SettingsError, match="begins with whsec_, but is not base64"):
        WebhookChannel(WebhookSettings(url="http://mes", secret_env="MES_SECRET"))
    with pytest.raises(SettingsError, match="need a file of certificates"):
        WebhookChannel(WebhookSettings(url="https://mes", ca="/no/such.pem"))


def test_what_is_refused_goes_to_a_file_and_what_is_away_comes_again(tmp_path):
    answer = tmp_path / "status"
    answer.write_text("500")
    with other("receiver", tmp_path, status_file=str(answer)) as receiver:
        with Deliverer([hook(receiver)], tmp_path / "spool") as deliverer:
            deliverer.take(row_of(1))
            until(lambda: "HTTP 500" in deliverer.behind_in_words())
            assert "line=4" not in deliverer.behind_in_words(), "a query may hold a secret"
            for status in ("408", "429", "503"):
                answer.write_text(status)
                until(lambda status=status: f"HTTP {status}" in deliverer.behind_in_words())
            assert deliverer.status()[0].waiting == 1
            answer.write_text("422")
            until(lambda: deliverer.status()[0].refused == 1)
            answer.write_text("302")
            deliverer.take(row_of(2))
            until(lambda: deliverer.status()[0].refused == 2)
            answer.write_text("204")
            deliverer.take(row_of(3))
            until(lambda: deliverer.status()[0].delivered == 1)
        assert receiver.ids() == {row_of(3)["id"]}
    dead = [json.loads(line) for line in (tmp_path / "spool" / "dead-webhook.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in dead] == [row_of(1), row_of(2)]
    assert "HTTP 422" in dead[0]["reason"]
    assert "redirects are not followed" in dead[1]["reason"]


def test_the_receiver_says_when_to_come_again(tmp_path):
    with other("receiver", tmp_path, status=503, headers={"retry-after": "7"}) as receiver:
        with pytest.raises(AwayError) as caught:
            send(WebhookChannel(hook(receiver)), 1)
        assert caught.value.retry_after_s == 7.0
        assert caught.value.was_sent


def test_a_receiver_that_is_killed(tmp_path):
    with other("receiver", tmp_path) as receiver, Deliverer([hook(receiver)], tmp_path / "spool") as deliverer:
        for number in range(1, 41):
            deliverer.take(row_of(number))
            if number % 13 == 0:
                receiver.kill()
                receiver.start(wait=False)
        until(lambda: deliverer.status()[0].waiting == 0)
        assert receiver.ids() == {row_of(number)["id"] for number in range(1, 41)}
        assert unmarked_repeats(receiver.rows()) == 0


def test_nobody_there(tmp_path):
    with other("receiver", tmp_path) as receiver:
        pass
    with pytest.raises(AwayError, match="Connection refused") as caught:
        send(WebhookChannel(hook(receiver)), 1)
    assert not caught.value.was_sent
