"""Where rows wait: across restarts, kills and damage, and within bounds."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.delivery.rows import row_of
from winspect.delivery import CommandSettings
from winspect.delivery.spool import AHEAD, Spool
from winspect.errors import OutputError


def command(name: str = "a", **options: object) -> CommandSettings:
    return CommandSettings(name=name, command="true", **options)


def opened(folder: Path, *settings: CommandSettings, synced: bool = False, **options: object) -> Spool:
    return Spool(folder / "s.sqlite3", settings or [command()], synced=synced, **options)


def waiting(spool: Spool, delivered: int = 0, repeats_to: int = 0) -> list[int]:
    return [int(message.id, 16) for message in spool.behind(delivered, 1000, repeats_to=repeats_to)]


@pytest.mark.parametrize("synced", [False, True])
def test_rows_wait_across_restarts_until_all_have_delivered_them(tmp_path, synced):
    both = command("a"), command("b")
    spool = opened(tmp_path, *both, synced=synced)
    spool.put((row_of(number), None) for number in (1, 2, 3))
    spool.note_delivered("a", 2, {"count": 2})
    spool.close()
    spool = opened(tmp_path, *both, synced=synced)
    assert spool.standing("a") == (2, 0, 0, {"count": 2})
    assert waiting(spool, 2) == [3]
    assert waiting(spool) == [1, 2, 3]  # b's
    spool.note_delivered("b", 3, {})
    assert waiting(spool) == [3]
    assert spool.last() == 3
    spool.close()


def test_a_row_comes_back_as_it_was(tmp_path):
    spool = opened(tmp_path)
    row = row_of(1, path="Prüfling \udcff.png", boxes=[[1, 2, 3, 4]], anomaly_score=0.1 + 0.2)
    spool.put([(row, None)])
    assert spool.behind(0, 1, repeats_to=0)[0].row == row
    spool.close()


def test_what_may_have_been_sent_by_an_earlier_process_is_a_repeat_and_nothing_else(tmp_path):
    spool = opened(tmp_path)
    spool.put((row_of(number), None) for number in range(1, 101))
    assert spool.note_tried("a", 2) == 2 + AHEAD
    spool.close()
    spool = opened(tmp_path)
    assert spool.standing("a")[1] == 2 + AHEAD
    spool.note_tried("a", 100)
    spool.close()
    spool = opened(tmp_path)
    assert spool.standing("a")[1] == 100, "a row that comes later cannot have been sent"
    marks = [message.is_repeat for message in spool.behind(97, 3, repeats_to=99)]
    assert marks == [True, True, False]
    spool.close()


def test_the_oldest_make_room_and_are_counted(tmp_path):
    spool = opened(tmp_path, command("a", keep_rows=3), command("b"))
    for number in range(1, 6):
        spool.put([(row_of(number), None)])
    assert spool.standing("a") == (2, 0, 2, {})
    assert spool.standing("b") == (0, 0, 0, {})
    assert waiting(spool) == [1, 2, 3, 4, 5]
    spool.close()
    spool = opened(tmp_path, command("a", keep_rows=3))  # b is no delivery any more
    assert waiting(spool) == [3, 4, 5]
    spool.close()


def test_a_new_delivery_gets_what_comes_from_now_on(tmp_path, caplog):
    spool = opened(tmp_path)
    spool.put([(row_of(1), None)])
    spool.close()
    spool = opened(tmp_path, command("b"))
    assert spool.standing("b")[0] == 1
    assert "1 rows waited for a, which is no delivery any more" in caplog.text
    spool.close()


def test_positions_are_noted_with_the_rows_or_not_at_all(tmp_path):
    spool = opened(tmp_path, begin_at=[("d.jsonl", 10)])
    spool.put([(row_of(1), ("d.jsonl", 20))])

    def half():
        yield row_of(2), ("d.jsonl", 30)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        spool.put(half())
    assert spool.read_up_to() == {"d.jsonl": 20}
    assert waiting(spool) == [1]
    spool.close()
    spool = opened(tmp_path, begin_at=[("d.jsonl", 99)])
    assert spool.read_up_to() == {"d.jsonl": 20}, "where to begin is for a spool that is new"
    spool.close()


def test_a_damaged_spool_is_moved_aside_and_said(tmp_path, caplog):
    (tmp_path / "s.sqlite3").write_bytes(b"no database" * 1000)
    spool = opened(tmp_path)
    spool.put([(row_of(1), None)])
    assert waiting(spool) == [1]
    assert "damaged" in caplog.text
    assert [path.read_bytes()[:2] for path in tmp_path.glob("*.damaged-*")] == [b"no"]
    spool.close()


def test_a_spool_of_another_release(tmp_path, caplog):
    database = sqlite3.connect(tmp_path / "s.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.close()
    opened(tmp_path).close()
    assert "version 99" in caplog.text


def test_a_place_that_cannot_be_written_and_a_spool_in_use(tmp_path):
    with pytest.raises(OutputError, match="cannot be opened"):
        Spool(tmp_path / "none" / "s.sqlite3", [command()], synced=False)
    spool = opened(tmp_path)
    with pytest.raises(OutputError, match=r"locked.*end the other process"):
        opened(tmp_path)
    spool.close()


_WRITER = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from tests.delivery.test_spool import opened, row_of
spool = opened(Path({folder!r}), synced=True)
number = spool.last()
while True:
    number += 1
    spool.put([(row_of(number), ("d.jsonl", number))])
    print(number, flush=True)
    if number % 7 == 0:
        spool.note_tried("a", number)
        spool.note_delivered("a", number - 3, {{}})
"""


def test_kills_leave_it_whole_and_what_was_stored_there(tmp_path):
    code = _WRITER.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path))
    for kill in range(5):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ) as process:
            stored = [int(process.stdout.readline()) for _ in range(5 + 4 * kill)]
            process.send_signal(signal.SIGKILL)
            stored += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
        spool = opened(tmp_path)
        last, (delivered, *_) = spool.last(), spool.standing("a")
        assert last >= stored[-1]
        assert spool.read_up_to() == {"d.jsonl": last}
        assert waiting(spool) == list(range(delivered + 1, last + 1))
        spool.close()
