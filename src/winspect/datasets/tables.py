"""Tables in text files, row by row, each with the place to name in an error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from winspect.errors import SourceError

Row = dict[str, str]


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        SourceError: it is not there or not such a file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}): check the path") from error


def csv_rows(text: str, name: str, *, need: Collection[str]) -> Iterator[tuple[str, Row]]:
    """Rows of a table with a header line, separated by commas or, as some spreadsheets write them, by semicolons.

    Args:
        name: what the table is called in errors.
        need: columns that must be there.

    Yields:
        ``"<name>, line <number>"`` and the row; what a short row lacks is empty.

    Raises:
        SourceError: a column is missing, or a row has more fields than the header.
    """
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="", strict=True)
    try:
        reader.fieldnames = [field.strip().lower() for field in reader.fieldnames or ()]
        lacking = [column for column in need if column not in reader.fieldnames]
        if lacking:
            got = ", ".join(reader.fieldnames) or "an empty file"
            raise SourceError(f"{name}: got the columns {got}, need {', '.join(need)}: add {', '.join(lacking)}")
        for row in reader:
            where = f"{name}, line {reader.line_num}"
            if None in row:
                raise SourceError(f"{where}: more fields than the header has: quote fields that hold a {delimiter!r}")
            yield where, {key: value.strip() for key, value in row.items()}
    except csv.Error as error:
        raise SourceError(f"{name}, after line {reader.line_num}: not a table ({error}): mend the line") from error


def jsonl_rows(text: str, name: str, *, need: Collection[str]) -> Iterator[tuple[str, Row]]:
    """As :func:`csv_rows`, from one JSON object per line. ``null`` is empty, numbers become their digits."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{where}: not JSON ({error}): mend the line") from error
        if not isinstance(values, dict):
            raise SourceError(f"{where}: got {type(values).__name__}, need an object with {', '.join(need)}")
        lacking = [column for column in need if column not in values]
        if lacking:
            raise SourceError(f"{where}: no {', '.join(lacking)}: need {', '.join(need)}")
        yield where, {str(key).lower(): "" if value is None else str(value).strip() for key, value in values.items()}
