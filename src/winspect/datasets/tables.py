"""Tables in text files, CSV and JSON lines: the reader behind every manifest and list, whatever program saved it.

UTF-8 with or without a byte order mark, or UTF-16. Columns separated by commas, semicolons or tabs, as the header or a
first line ``sep=;`` sets. Names of columns in either case.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from winspect.errors import SourceError
from winspect.system.opening import read_bytes

logger = logging.getLogger(__name__)

Row = dict[str, str]
Columns = Mapping[str, Sequence[str]]
"""What a reader asks for -> the names that its column may have; the first that is there counts."""
Record = tuple[Any, ...]
"""The line's number, then a text or None for each of the columns asked for."""

JSON_ENDINGS = (".jsonl", ".ndjson")
TEXT_TABLES = (".csv", *JSON_ENDINGS)
FILE_COLUMNS = ("path", "image", "mask")
"""Columns that name a file: in JSON a text, never a number."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_DELIMITERS = ",;\t"


class TextTable:
    """The rows of a table in a text file, read one after the other.

    Args:
        ending: of the file's name, one of :data:`TEXT_TABLES`.
        columns: those asked for; others are ignored.
        problem: called with the number of a line that cannot be read, and why; the next lines follow.
        fill_short: take what a short row of a CSV file lacks as empty, instead of calling ``problem``.

    Attributes:
        names: of the columns, or of the keys of the first JSON object; empty for an empty file.
        found: those of the columns asked for that are there; complete once all rows are read.
    """

    def __init__(
        self, ending: str, columns: Columns, problem: Callable[[int, str], None], *, fill_short: bool = False
    ) -> None:
        self.columns = {role: tuple(names) for role, names in columns.items()}
        self.problem, self.fill_short = problem, fill_short
        self.names: tuple[str, ...] = ()
        self.found: set[str] = set()
        self._is_json = ending.lower() in JSON_ENDINGS

    def rows(self, text: IO[str]) -> Iterator[Record]:
        """The rows of a file, opened with ``newline=""``.

        Raises:
            UnicodeDecodeError: see :func:`not_text`.
        """
        return self._json_rows(text) if self._is_json else self._csv_rows(text)

    def _csv_rows(self, text: IO[str]) -> Iterator[Record]:
        header, before = text.readline(), 0
        stated = _SEPARATOR_LINE.fullmatch(header)
        if stated:
            header, before = text.readline(), 1
        delimiter = stated[1] if stated else max(_DELIMITERS, key=header.count)
        reader = csv.reader(chain([header], text), delimiter=delimiter, strict=True)
        rows = self._parsed(reader, before)
        names = [name.strip().lower() for name in next(rows, [])]
        self.names, width = tuple(names), len(names)
        keys = find_columns(self.names, tuple(self.columns.values()))
        self.found = {role for role, key in zip(self.columns, keys, strict=True) if key is not None}
        # A row gets two more fields: its line, and None, which stands for the columns that are not there.
        pick = itemgetter(width, *(width + 1 if key is None else names.index(key) for key in keys))
        for row in rows:
            if self.fill_short and row:
                row.extend([""] * (width - len(row)))
            if len(row) == width:
                row.extend((reader.line_num + before, None))
                yield pick(row)
            elif row:  # an empty line is no row
                what = f"fields: {len(row)}, in the header {width}: quote fields that hold a {delimiter!r}"
                self.problem(reader.line_num + before, what)

    def _parsed(self, reader: Any, before: int) -> Iterator[list[Any]]:
        while True:
            try:
                yield from reader
                return
            except csv.Error as error:
                self.problem(reader.line_num + before, f"not a table's row ({error}): mend the line")

    def _json_rows(self, text: IO[str]) -> Iterator[Record]:
        decode = json.JSONDecoder().decode
        aliases = tuple(self.columns.values())
        files = [at for at, role in enumerate(self.columns) if role in FILE_COLUMNS]
        known: tuple[str | None, ...] = ()
        for number, line in enumerate(text, start=1):
            if line.isspace():
                continue
            try:
                row = decode(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{line.strip()[:40]} is no object, need one with {', '.join(self.columns)}")
                keys = find_columns(tuple(row), aliases)
                if keys is not known:
                    known, self.names = keys, self.names or tuple(row)
                    self.found |= {role for role, key in zip(self.columns, keys, strict=True) if key is not None}
                values = [None if key is None else _text(key, row[key]) for key in keys]
                for at in files:
                    if values[at] is not None and type(row[keys[at]]) is not str:
                        raise ValueError(f"{keys[at]} is {values[at]}, need text")
            except (ValueError, RecursionError) as error:
                is_json = not isinstance(error, json.JSONDecodeError | RecursionError)
                self.problem(number, str(error) if is_json else f"not JSON ({error}): mend the line")
                continue
            yield (number, *values)


@lru_cache(maxsize=1024)
def find_columns(names: tuple[str, ...], columns: tuple[tuple[str, ...], ...]) -> tuple[str | None, ...]:
    """Which of the names, in either case and with blanks around, is each of the columns; None for none."""
    plain = {name.strip().lower(): name for name in reversed(names)}
    return tuple(next((plain[name] for name in aliases if name in plain), None) for aliases in columns)


def _text(key: str, value: Any) -> str | None:
    """A JSON value as text; numbers as JSON writes them."""
    if type(value) is str:
        if not value.isascii():
            value.encode()  # half a surrogate pair is no text, and a ValueError
        return value
    if value is None:
        return None
    if isinstance(value, dict | list):
        raise ValueError(f"{key} is {json.dumps(value)[:40]}, need text or a number")
    return str(value) if type(value) is int else json.dumps(value)


def encoding_of(start: bytes) -> str:
    """The encoding of a text that starts with these bytes: UTF-8, or UTF-16 by its mark or its zero bytes."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if 0 in start[:2] and len(start) > 1:
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def not_text(name: str, error: UnicodeDecodeError, *, with_position: bool = True) -> SourceError:
    """The error for a file that is not the text it should be; names the encoding that it probably has."""
    encoding = error.encoding.upper().removesuffix("-SIG")
    position = f" (byte {error.start})" if with_position else ""
    if encoding != "UTF-8":
        return SourceError(f"{name}: not {encoding} text{position}: save it as UTF-8")
    byte = error.object[error.start]
    character = bytes([byte]).decode("cp1252", errors="replace")
    return SourceError(
        f"{name}: not UTF-8 text{position}, probably Windows-1252 (cp1252), where the byte 0x{byte:02X} is "
        f"{character!r}: save it as UTF-8"
    )


def decode_text(data: bytes, name: str) -> str:
    """The text in a file's bytes; a SourceError where it is neither UTF-8 nor UTF-16."""
    try:
        return data.decode(encoding_of(data[:2]))
    except UnicodeDecodeError as error:
        raise not_text(name, error) from error


def read_text(path: Path) -> str:
    """A text file in UTF-8 or UTF-16; a SourceError where there is none."""
    try:
        return decode_text(read_bytes(path), str(path))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}): check the path") from error


def table_rows(
    text: str, name: str, ending: str, columns: Columns, *, need: Collection[str]
) -> Iterator[tuple[str, Row]]:
    """The rows of a table, each with the place to name in an error; texts without blanks around.

    Args:
        name: what the table is called in errors.
        need: columns of which each must be there.

    Yields:
        ``"<name>, line <number>"`` and the row, a text for each of ``columns``; what it lacks is empty.

    Raises:
        SourceError: a column is missing, or a line cannot be read; names it.
    """

    def refuse(line: int, what: str) -> None:
        raise SourceError(f"{name}, line {line}: {what}")

    def named(columns: Collection[str]) -> str:
        """The columns, with what else each may be called."""
        others = [f"{name} may be called {' or '.join(more)}" for name in columns if (more := table.columns[name][1:])]
        return ", ".join(columns) + (f" ({'; '.join(others)})" if others else "")

    table = TextTable(ending, columns, refuse, fill_short=True)
    is_json = ending.lower() in JSON_ENDINGS
    for line, *values in table.rows(io.StringIO(text, newline="")):
        row = dict(zip(table.columns, values, strict=True))
        lacking = [column for column in need if row[column] is None]
        if lacking and is_json:
            refuse(line, f"no {', '.join(lacking)}: need {named(need)}")
        elif lacking:
            break
        yield f"{name}, line {line}", {column: (value or "").strip() for column, value in row.items()}
    lacking = [column for column in need if column not in table.found]
    if lacking and not is_json:
        got = ", ".join(table.names) or "an empty file"
        raise SourceError(f"{name}: got the columns {got}, need {', '.join(need)}: add {named(lacking)}")


class Separators:
    r"""File names as Windows writes them, ``sub\a.png``: read as ``sub/a.png`` where only that is there.

    Args:
        name: of the file that holds the names, for :meth:`report`.
    """

    def __init__(self, name: str) -> None:
        self.name, self.count, self.first = name, 0, ""

    def place(self, folder: str | os.PathLike[str], text: str) -> str:
        """The path of a name that counts from a folder; the name itself where it is absolute."""
        path = os.path.join(folder, text)
        if os.sep == "/" and "\\" in text and not os.path.lexists(path):
            slashed = os.path.join(folder, text.replace("\\", "/"))
            if os.path.lexists(slashed):
                self.count, self.first = self.count + 1, self.first or text
                return slashed
        return path

    def report(self) -> None:
        """Log once how many names were read so."""
        if self.count:
            logger.warning("%s: \\ read as / in %d file names, as in %s", self.name, self.count, self.first)
