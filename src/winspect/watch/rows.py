"""Rows on disk, one file a day. A row is on the disk, whole, before the next picture is scored.

Days are days of UTC: none is an hour longer or shorter than another, none is entered twice when clocks go back, and
the files of stations in different places agree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from winspect.errors import OutputError
from winspect.outputs.rows import line_of, read_rows, remove_cut_line
from winspect.system.files import append_line

logger = logging.getLogger(__name__)

_PATTERN = "predictions-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].jsonl"


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime) -> str:
    """A time in UTC as a part of file names, which sorts by time.

    >>> from datetime import datetime
    >>> stamp(datetime(2026, 11, 22, 14, 5, 9, 250))
    '2026-11-22T140509.000250Z'
    """
    return f"{moment:%Y-%m-%dT%H%M%S.%fZ}"


class Position(NamedTuple):
    """The end of a row: the name of its file, and how many bytes of it there are up to there."""

    file: str
    bytes: int


def remove_cut_lines(folder: Path) -> None:
    """Remove last lines that an earlier run left cut off; each is logged."""
    for path in sorted(folder.glob(_PATTERN)):
        if size := remove_cut_line(path):
            logger.warning("%s: removed a last line that was cut off (%d bytes)", path, size)


def append_row(folder: Path, row: dict[str, Any], moment: datetime) -> Position:
    """Write a row through to the disk, into the file of its day; where that fails, the file is as it was before.

    Raises:
        OSError: what the system says; the same row can be tried again.
    """
    line = line_of(row)
    path = folder / f"predictions-{moment:%Y-%m-%d}.jsonl"
    start = append_line(path, line)
    return Position(path.name, start + len(line))


def rows_behind(folder: Path, known: dict[str, int]) -> Iterator[tuple[dict[str, Any], Position]]:
    """The rows behind what is known, each with where it ends.

    Args:
        known: file name -> bytes. A file that has become shorter than that is read from its start.

    Raises:
        OutputError: a line is not a row.
    """
    for path in sorted(folder.glob(_PATTERN)):
        start = known.get(path.name, 0)
        if path.stat().st_size == start:
            continue
        try:
            for row, end in read_rows(path, start):
                yield row, Position(path.name, end)
        except ValueError as error:
            raise OutputError(f"{path}: {error}; move the file away") from error


def newest_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the newest day; none where there is no file, or from a line on that is no row."""
    with suppress(ValueError):
        for path in sorted(folder.glob(_PATTERN))[-1:]:
            yield from (row for row, _ in read_rows(path))


class ResultsFiles:
    """The results files of a folder, for deliveries; see :class:`winspect.delivery.deliverer.ResultsFiles`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ends(self) -> list[Position]:
        """The position at which each file ends."""
        return [Position(path.name, path.stat().st_size) for path in sorted(self.folder.glob(_PATTERN))]

    def behind(self, known: dict[str, int]) -> Iterator[tuple[dict[str, Any], Position]]:
        """See :func:`rows_behind`."""
        return rows_behind(self.folder, known)
