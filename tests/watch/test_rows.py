"""Rows on the disk: whole or not there, whatever happens in the middle of one."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timezone

import pytest

from winspect.errors import OutputError
from winspect.watch.rows import append_row, remove_cut_lines, rows_behind

NAME = "predictions-2026-11-22.jsonl"


NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


@pytest.fixture
def append(tmp_path):
    """Append a row of noon."""
    return lambda row: append_row(tmp_path, row, NOON)


def test_a_row_is_a_line_and_says_where_it_ends(append, tmp_path):
    first, second = append({"a": "é\udce4"}), append({"b": 1})
    text = (tmp_path / NAME).read_bytes()
    assert text == b'{"a": "\xc3\xa9\\udce4"}\n{"b": 1}\n'
    assert first == (NAME, len(text) - len(b'{"b": 1}\n'))
    assert second == (NAME, len(text))
    assert json.loads(text.splitlines()[0]) == {"a": "é\udce4"}


def test_days_are_of_utc(tmp_path):
    append_row(tmp_path, {}, datetime(2026, 12, 31, 23, 59, 59, tzinfo=timezone.utc))
    append_row(tmp_path, {}, datetime(2027, 1, 1, tzinfo=timezone.utc))
    assert sorted(os.listdir(tmp_path)) == ["predictions-2026-12-31.jsonl", "predictions-2027-01-01.jsonl"]


@pytest.mark.parametrize("when", ["write", "second write", "fsync"])
def test_a_row_that_cannot_be_written_leaves_no_trace(append, tmp_path, monkeypatch, when):
    append({"a": 1})
    before = (tmp_path / NAME).read_bytes()
    write = os.write
    calls = []

    def full(file, data):
        calls.append(data)
        if when == "second write" and len(calls) == 1:
            return write(file, data[:4])  # as much as there was room for
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        os, "fsync" if when == "fsync" else "write", full if when != "fsync" else lambda _: full(0, b"")
    )
    with pytest.raises(OSError, match="No space"):
        append({"b": 2})
    monkeypatch.undo()
    assert (tmp_path / NAME).read_bytes() == before
    append({"c": 3})
    assert (tmp_path / NAME).read_bytes() == before + b'{"c": 3}\n'


def test_a_file_that_is_moved_away_does_not_swallow_rows(append, tmp_path):
    append({"a": 1})
    (tmp_path / NAME).rename(tmp_path / "archived")
    append({"b": 2})
    assert (tmp_path / NAME).read_bytes() == b'{"b": 2}\n'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b'{"a": 1}\n{"b": ', b'{"a": 1}\n'),
        (b'{"a": 1}\n' + b"x" * 200_000, b'{"a": 1}\n'),
        (b"x" * 200_000, b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b"", b""),
    ],
)
def test_a_cut_last_line_is_removed_and_said(tmp_path, caplog, text, left):
    (tmp_path / NAME).write_bytes(text)
    remove_cut_lines(tmp_path)
    assert (tmp_path / NAME).read_bytes() == left
    assert ("cut off" in caplog.text) == (text != left)


def test_rows_behind_what_is_known(append, tmp_path):
    first, second = append({"a": 1}), append({"b": 2})
    assert list(rows_behind(tmp_path, {})) == [({"a": 1}, first), ({"b": 2}, second)]
    assert list(rows_behind(tmp_path, dict([first]))) == [({"b": 2}, second)]
    assert list(rows_behind(tmp_path, dict([second]))) == []
    assert len(list(rows_behind(tmp_path, {NAME: 999}))) == 2  # another file by that name


def test_a_line_that_is_no_row_is_refused(tmp_path):
    (tmp_path / NAME).write_text('{"a": 1}\nnot a row\n')
    with pytest.raises(OutputError, match="not a row of predictions at byte 19; move the file away"):
        list(rows_behind(tmp_path, {}))
