"""What was scored: remembered across restarts, compact, and told from the results where it is lost."""

from __future__ import annotations

import sqlite3

import pytest

from tests.watch.fakes import Clock
from winspect.errors import OutputError
from winspect.watch.journal import FORGET_DAYS, JOURNAL_FILE, Journal
from winspect.watch.rows import append_row
from winspect.watch.tree import Content

ONE, OTHER = Content(10, 1_700_000_000_123_456_789), Content(10, 1_700_000_000_123_456_790)


@pytest.fixture
def opened(tmp_path):
    """Open the journal of a folder; the clock stands at the day given."""
    journals = []

    def make(day="2026-11-22"):
        journals.append(Journal(tmp_path, clock=Clock(day)))
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def write_row(folder, name, content):
    row = {"file": {"name": name, "bytes": content.bytes, "modified_ns": content.modified_ns}}
    return append_row(folder, row, Clock()())


def test_size_and_time_of_change_tell_contents_apart(opened, tmp_path):
    with opened() as journal:
        assert journal.is_new
        journal.add("a.png", ONE, write_row(tmp_path, "a.png", ONE))
        assert journal.knows("a.png", ONE)
        assert not journal.knows("a.png", OTHER)
        assert not journal.knows("b.png", ONE)
    with opened() as journal:
        assert not journal.is_new
        assert journal.knows("a.png", ONE)
        assert len(journal) == 1


def test_rows_behind_the_journal_are_followed(opened, tmp_path):
    with opened() as journal:
        journal.add("a.png", ONE, write_row(tmp_path, "a.png", ONE))
    write_row(tmp_path, "b.png", OTHER)
    with opened() as journal:
        assert journal.knows("b.png", OTHER)


@pytest.mark.parametrize("damage", [b"", b"this is no database" * 100])
def test_a_journal_that_is_lost_or_damaged_is_made_anew_from_the_results(opened, tmp_path, caplog, damage):
    with opened() as journal:
        journal.add("a.png", ONE, write_row(tmp_path, "a.png", ONE))
    (tmp_path / JOURNAL_FILE).write_bytes(damage)
    with opened() as journal:
        assert journal.knows("a.png", ONE)
    assert ("made anew from the results" in caplog.text) == bool(damage)


def test_one_of_another_release_is_made_anew(opened, tmp_path, caplog):
    with opened():
        pass
    database = sqlite3.connect(tmp_path / JOURNAL_FILE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with opened() as journal:
        assert journal.is_new
    assert "another release (version 99)" in caplog.text


def test_names_long_gone_are_forgotten_and_those_still_there_are_not(opened, tmp_path):
    with opened("2026-11-01") as journal:
        for name in ("gone.png", "there.png"):
            journal.add(name, ONE, write_row(tmp_path, name, ONE))
    with opened("2026-11-10") as journal:
        assert journal.knows("there.png", ONE)  # seen
        journal.forget_absent()
        assert len(journal) == 2
    assert FORGET_DAYS == 14
    with opened("2026-11-16") as journal:
        journal.forget_absent()
        assert not journal.knows("gone.png", ONE)
        assert journal.knows("there.png", ONE)


def test_it_is_compact(opened, tmp_path):
    with opened() as journal:
        journal.leave_out((f"line4/2026-11-22/part-{number:06d}.png", ONE) for number in range(20_000))
        assert len(journal) == 20_000
    assert (tmp_path / JOURNAL_FILE).stat().st_size / 20_000 < 100  # bytes a picture, this name being 31 of them


def test_one_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot be opened"):
        Journal(tmp_path / "nowhere")
