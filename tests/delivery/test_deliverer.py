"""What a watch holds: full disks, rows of killed runs, an end that loses nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.delivery.counterparts import other, unmarked_repeats, until
from tests.delivery.rows import Played, row_of
from winspect.delivery import CommandSettings, WebhookSettings, deliverer
from winspect.delivery.deliverer import Deliverer
from winspect.delivery.spool import Spool
from winspect.errors import OutputError, SettingsError
from winspect.watch.rows import ResultsFiles, append_row

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SETTINGS = [CommandSettings(name="a", command="true")]


@pytest.fixture
def channel(monkeypatch):
    played = Played()
    monkeypatch.setattr(deliverer, "channel_of", lambda settings: played)
    return played


def written(folder, number):
    """A row on the disk, as a watch writes it."""
    return row_of(number), append_row(folder, row_of(number), NOW)


@pytest.fixture
def full(monkeypatch):
    """A switch: the spool's disk is full while it is set."""
    put, is_full = Spool.put, []

    def maybe(self, entries):
        if is_full:
            raise sqlite3.OperationalError("database or disk is full")
        put(self, entries)

    monkeypatch.setattr(Spool, "put", maybe)
    return is_full


def test_rows_of_a_watch_that_could_not_be_spooled_are_read_from_its_results(tmp_path, channel, full, caplog):
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)) as own:
        own.take(*written(tmp_path, 1))
        full.append(True)
        for number in (2, 3):
            own.take(*written(tmp_path, number))
        assert own.unspooled == 2
        assert own.behind_in_words() == "2 rows wait to be spooled: database or disk is full"
        full.clear()
        until(lambda: channel.ids == [1, 2, 3])
        assert own.unspooled == 0
        own.take(*written(tmp_path, 4))
        until(lambda: channel.ids == [1, 2, 3, 4])
        assert own.behind_in_words() == ""
    assert "cannot be written (database or disk is full)" in caplog.text
    assert not any(repeat for _, repeat in channel.tried)


def test_a_row_that_was_read_from_the_results_is_not_taken_again(tmp_path, channel, full):
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)) as own:
        full.append(True)
        own.take(*written(tmp_path, 1))
        late = written(tmp_path, 2)  # on the disk, and not taken as yet
        full.clear()
        until(lambda: channel.ids == [1, 2])
        own.take(*late)
        own.take(*written(tmp_path, 3))
        until(lambda: channel.ids == [1, 2, 3])


def test_rows_of_a_service_that_could_not_be_spooled_are_kept_up_to_a_number(
    tmp_path, channel, full, monkeypatch, caplog
):
    monkeypatch.setattr(deliverer, "MOST_IN_MEMORY", 3)
    with Deliverer(SETTINGS, tmp_path) as own:
        full.append(True)
        for number in range(1, 6):
            own.take(row_of(number))
        assert (own.unspooled, own.lost) == (3, 2)
        assert own.behind_in_words() == "3 rows wait to be spooled: database or disk is full; 2 rows lost"
        full.clear()
        until(lambda: channel.ids == [3, 4, 5])
        full.append(True)
        own.take(row_of(6))
    assert "cannot be written; 1 rows lost" in caplog.text


def test_what_a_killed_watch_wrote_and_did_not_deliver(tmp_path, channel):
    for number in (1, 2):
        written(tmp_path, number)
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)) as own:  # the first ever: nothing of before
        own.take(*written(tmp_path, 3))
    for number in (4, 5):
        written(tmp_path, number)
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)) as own:
        until(lambda: channel.ids == [3, 4, 5])
        assert own.status()[0].waiting == 0
    assert not any(repeat for _, repeat in channel.tried)


def test_results_that_were_moved_away(tmp_path, channel):
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)) as own:
        for number in (1, 2):
            own.take(*written(tmp_path, number))
        next(tmp_path.glob("predictions-*")).unlink()
        own.take(*written(tmp_path, 3))
    written(tmp_path, 4)
    with Deliverer(SETTINGS, tmp_path, results=ResultsFiles(tmp_path)):
        until(lambda: channel.ids == [1, 2, 3, 4])


def test_the_end_says_what_waits(tmp_path, channel, caplog):
    channel.away = "connection refused"
    with Deliverer(SETTINGS, tmp_path) as own:
        own.take(row_of(1))
    assert "a: 1 rows wait for the next start" in caplog.text
    assert channel.is_closed


def test_a_mistake_in_the_settings_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(SettingsError, match="secret_env: got 'NO_SUCH_SECRET'"):
        Deliverer([WebhookSettings(url="http://mes", secret_env="NO_SUCH_SECRET")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="this is a file, not a folder"), Deliverer(SETTINGS, tmp_path / "out"):
        pass


_WATCH = """
import sys, threading; sys.path.insert(0, {root!r})
from pathlib import Path
from tests.watch.fakes import QuickModel
from winspect.delivery import WebhookSettings
from winspect.delivery.deliverer import Deliverer
from winspect.watch.folder import WatchedFolder
from winspect.watch.journal import Journal
from winspect.watch.results import WatchResults
from winspect.watch.rows import ResultsFiles
from winspect.watch.run import Station, Status
folder = Path({folder!r})
stop = threading.Event()
deliverer = Deliverer([WebhookSettings(url={url!r})], folder / "out", results=ResultsFiles(folder / "out"))
with WatchResults(folder / "out", stop=stop) as results, Journal(folder / "out") as journal, deliverer:
    watched = WatchedFolder(folder / "in", journal, stop=stop, settle_s=0.05)
    station = Station(QuickModel(), results, Status(print), lambda row: None, deliverer=deliverer)
    station.watch_folder(watched)
"""


def test_kills_of_the_watch_and_of_the_receiver_lose_nothing(tmp_path):
    from tests.watch.fakes import picture

    (tmp_path / "in").mkdir()
    with other("receiver", tmp_path) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        code = _WATCH.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path), url=url)
        for kill in range(4):
            watch = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
            for number in range(10):
                picture(tmp_path / "in" / f"{kill}-{number}.png", 10 * number)
            until(lambda kill=kill: len(receiver.ids()) > 10 * kill + 2, 60)
            if kill == 1:
                receiver.kill()
                receiver.start(wait=False)
            if kill == 3:
                until(lambda: len(receiver.ids()) == 40, 60)
            watch.send_signal(signal.SIGKILL)
            watch.wait()
        rows = receiver.rows()
    assert {row["file"]["name"] for row in rows} == {f"{kill}-{n}.png" for kill in range(4) for n in range(10)}
    assert len({row["id"] for row in rows}) == 40
    assert unmarked_repeats(rows) == 0
