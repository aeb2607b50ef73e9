"""Rows of a service on their way to another machine: once for each answer, across restarts, and what metrics say."""

from __future__ import annotations

import json

import httpx
from prometheus_client.parser import text_string_to_metric_families
from service.fake_models import spec
from service.running import Running, grey

from tests.delivery.counterparts import until
from winspect.delivery import CommandSettings
from winspect.service.http.app import create_app


def asked(own, method, path, **options):
    async def ask():
        transport = httpx.ASGITransport(create_app(own.backend, own.backend.settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **options)

    return own.ask(ask())


def metrics(own):
    families = text_string_to_metric_families(asked(own, "GET", "/metrics").text)
    return {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("winspect_delivery")
    }


def post(own, *contents):
    files = [("pictures", (f"{number}.png", content)) for number, content in enumerate(contents)]
    return asked(own, "POST", "/v1/predict", files=files, data={"class": "nut", "threshold": "0.2"}).json()["results"]


def test_each_answer_is_delivered_with_its_id_also_by_the_next_process(tmp_path):
    away, there = tmp_path / "away", tmp_path / "rows.jsonl"
    away.touch()
    command = ["sh", "-c", f"test -e {away} && exit 75; cat >> {there}"]
    settings = CommandSettings(name="gate", command=command, at_once=1)
    with Running(tmp_path / "data", spec(), deliveries=[settings]) as own:
        results = post(own, grey(10), grey(200), b"no picture")
        until(lambda: metrics(own)["winspect_delivery_well", None] == 0)
        assert metrics(own)["winspect_delivery_waiting", None] == 3
    away.unlink()
    with Running(tmp_path / "data", spec(), deliveries=[settings]) as own:
        until(lambda: metrics(own)["winspect_delivery_waiting", None] == 0)
        assert metrics(own)["winspect_delivery_rows_total", "delivered"] == 3
        assert metrics(own)["winspect_delivery_lost_total", None] == 0
    rows = [json.loads(line) for line in there.read_text().splitlines()]
    assert [row["id"] for row in rows] == [result["id"] for result in results]
    assert [row["verdict"] for row in rows] == [result["verdict"] for result in results]
    assert rows[2]["error"]["type"] == "PictureError"
    assert all(row["class"] == "nut" and row["time"] and row["repeat"] for row in rows)
