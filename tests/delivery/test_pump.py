"""From the spool over a channel: order, repeats, refusals, absence, trouble, the end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager

import pytest

from tests.delivery.counterparts import until
from tests.delivery.rows import Played, row_of
from winspect.delivery import CommandSettings
from winspect.delivery import pump as pumps
from winspect.delivery.message import AwayError, with_id
from winspect.delivery.pump import Pump
from winspect.delivery.spool import Spool


@contextmanager
def pumping(folder, channel, *, rows=(), **options):
    """A pump that runs on a spool with rows."""
    settings = CommandSettings(name="a", command="true", **options)
    spool = Spool(folder / "s.sqlite3", [settings], synced=False)
    spool.put((row, None) for row in rows)
    pump = Pump(settings, channel, spool, retries=pumps.RETRIES)
    pump.start()
    try:
        yield pump, spool
    finally:
        pump.end(wait_s=5)
        assert not pump.is_alive()
        spool.close()


def test_rows_go_out_in_order_and_once(tmp_path):
    channel = Played()
    with pumping(tmp_path, channel, rows=map(row_of, range(1, 11))) as (pump, spool):
        until(lambda: len(channel.delivered) == 10)
        spool.put([(row_of(11), None)])
        pump.news.set()
        until(lambda: pump.status().waiting == 0)
        assert channel.ids == list(range(1, 12))
        assert not any(repeat for _, repeat in channel.tried)
        status = pump.status()
        assert (status.delivered, status.refused, status.dropped, status.trouble, str(status)) == (11, 0, 0, "", "")
    assert channel.is_closed
    again = Played()
    with pumping(tmp_path, again) as (pump, _):
        assert again.state == {"count": 11}
    assert not again.tried


def test_what_may_have_arrived_is_sent_again_and_marked(tmp_path):
    channel = Played(None, AwayError("lost"), at_once=3)
    with pumping(tmp_path, channel, rows=map(row_of, (1, 2, 3, 4))):
        until(lambda: len(channel.delivered) == 4)
    tried = [(int(number, 16), repeat) for number, repeat in channel.tried]
    assert tried == [(1, False), (2, False), (2, True), (3, True), (4, False)]


def test_what_was_not_sent_is_no_repeat(tmp_path, caplog):
    channel = Played()
    channel.away = "connection refused"
    with pumping(tmp_path, channel, rows=[row_of(1)]) as (pump, _):
        until(lambda: pump.status().trouble)
        assert "a: away for 0 s, 1 rows wait: connection refused" in str(pump.status())
        channel.away = ""
        until(lambda: channel.delivered)
        until(lambda: not pump.status().trouble)
    assert channel.tried == [(row_of(1)["id"], False)]
    assert "a: away: connection refused" in caplog.text
    assert "a: well again" in caplog.text


def test_absence_is_noticed_without_rows(tmp_path):
    channel = Played()
    with pumping(tmp_path, channel) as (pump, _):
        channel.away = "connection refused"
        until(lambda: pump.status().trouble)
        channel.away = ""
        until(lambda: not pump.status().trouble)


def test_a_refused_row_goes_to_a_file_and_the_next_go_on(tmp_path, caplog):
    channel = Played(None, "HTTP 422")
    with pumping(tmp_path, channel, rows=map(row_of, (1, 2, 3))) as (pump, _):
        until(lambda: pump.status().waiting == 0)
        assert (pump.status().delivered, pump.status().refused) == (2, 1)
    assert channel.ids == [1, 3]
    (line,) = (tmp_path / "dead-a.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["row"], entry["reason"], entry["delivery"]) == (row_of(2), "HTTP 422", "a")
    assert "refused (HTTP 422)" in caplog.text


def test_a_refused_row_that_cannot_be_kept_is_not_given_up(tmp_path):
    (tmp_path / "dead-a.jsonl").mkdir()
    channel = Played("HTTP 422", "HTTP 422")
    with pumping(tmp_path, channel, rows=map(row_of, (1, 2))) as (pump, _):
        until(lambda: "file of refused rows" in pump.status().trouble)
        until(lambda: len(channel.delivered) == 2)
    assert channel.ids == [1, 2]


def test_only_the_verdicts_asked_for(tmp_path):
    rows = [row_of(1), row_of(2, verdict="anomalous"), row_of(3, error={"type": "E", "message": "m"}, verdict=None)]
    channel = Played()
    with pumping(tmp_path, channel, rows=rows, verdicts=("anomalous", "failed")) as (pump, _):
        until(lambda: pump.status().waiting == 0)
    assert channel.ids == [2, 3]


def test_a_mistake_in_a_library_ends_nothing(tmp_path):
    channel = Played(ZeroDivisionError("oh"))
    with pumping(tmp_path, channel, rows=[row_of(1)]):
        until(lambda: channel.delivered)
    assert channel.tried == [(row_of(1)["id"], False), (row_of(1)["id"], True)]


def test_a_spool_that_cannot_be_written_is_no_reason_to_send_twice(tmp_path, monkeypatch):
    channel = Played()
    with pumping(tmp_path, channel) as (pump, spool):
        note = spool.note_delivered
        failures = [sqlite3.OperationalError("database or disk is full")] * 3

        def full(*arguments):
            if failures:
                raise failures.pop()
            note(*arguments)

        monkeypatch.setattr(spool, "note_delivered", full)
        spool.put([(row_of(1), None)])
        pump.news.set()
        until(lambda: "disk is full" in pump.status().trouble)
        until(lambda: not pump.status().trouble)
        assert spool.standing("a")[0] == 1
    assert channel.tried == [(row_of(1)["id"], False)]


def test_the_other_side_says_when_to_come_again(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(Pump, "_wait", lambda self, seconds, **_: waits.append(seconds))
    channel = Played(AwayError("busy", retry_after_s=0.125), AwayError("busy", retry_after_s=3600.0))
    with pumping(tmp_path, channel, rows=[row_of(1)]):
        until(lambda: channel.delivered)
    assert 0.125 <= waits[0] <= 0.125 * 1.25
    assert 0.2 <= waits[1] <= 0.2 * 1.25, "never longer than the longest pause"


@pytest.mark.parametrize("row", [{"path": "a", "time": "t"}, {"path": "a", "time": "t", "id": ""}])
def test_a_row_without_an_id_gets_the_same_each_time(row):
    made = with_id(row)
    assert len(made["id"]) == 32
    assert with_id(json.loads(json.dumps(row))) == made
    assert with_id({**row, "time": "u"})["id"] != made["id"]
    assert with_id(made) == made
