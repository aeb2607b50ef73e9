"""Rows on disk, one file a day. A row is on the disk, whole, before the next picture is scored.

Days are days of UTC: none is an hour longer or shorter than another, none is entered twice when clocks go back, and
the files of stations in different places agree.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from winspect.errors import OutputError
from winspect.outputs.rows import line_of, read_rows, remove_cut_line

logger = logging.getLogger(__name__)

PATTERN = "predictions-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].jsonl"

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


class Position(NamedTuple):
    """The end of a row: the name of its file, and how many bytes of it there are up to there."""

    file: str
    bytes: int


class DailyRows:
    """Appends rows to ``predictions-YYYY-MM-DD.jsonl`` in a folder that is there.

    A last line that an earlier run left cut off is removed at once, and logged.

    Args:
        clock: gives the time in UTC.
    """

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        self.folder, self.clock = folder, clock
        for path in sorted(folder.glob(PATTERN)):
            if size := remove_cut_line(path):
                logger.warning("%s: removed a last line that was cut off (%d bytes)", path, size)

    def append(self, row: dict[str, Any]) -> Position:
        """Write a row through to the disk; where that fails, the file is as it was before.

        Raises:
            OSError: what the system says; the same row can be tried again.
        """
        line = line_of(row)
        path = self.folder / f"predictions-{self.clock():%Y-%m-%d}.jsonl"
        is_new = not path.exists()
        # Opened for each row: a file that was moved away or deleted meanwhile must not swallow what follows.
        with path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                _write_all(file.fileno(), line)
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(start)
                raise
        if is_new:
            _sync_folder(self.folder)
        return Position(path.name, start + len(line))


def rows_behind(folder: Path, known: dict[str, int]) -> Iterator[tuple[dict[str, Any], Position]]:
    """The rows behind what is known, each with where it ends.

    Args:
        known: file name -> bytes. A file that has become shorter than that is read from its start.

    Raises:
        OutputError: a line is not a row.
    """
    for path in sorted(folder.glob(PATTERN)):
        start = known.get(path.name, 0)
        if path.stat().st_size == start:
            continue
        try:
            for row, end in read_rows(path, start):
                yield row, Position(path.name, end)
        except ValueError as error:
            raise OutputError(f"{path}: {error}; move the file away") from error


def _write_all(file: int, line: bytes) -> None:
    """All bytes: where the disk gets full in the middle, the system takes some, and complains at the next call."""
    while line:
        line = line[os.write(file, line) :]


def _sync_folder(folder: Path) -> None:
    """Make a new file's name last; not every system lets a folder be opened."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
