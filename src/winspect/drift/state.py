"""The state of lines across restarts: an SQLite file with a row for each picture, and one for each line.

A picture and the state after it are written together or not at all, so that what is read back is the state after some
picture, exactly: the ranks are made of the values that are in the file, the martingales are as they were.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winspect.drift.line import Crossing, LineState
from winspect.drift.martingale import Martingale
from winspect.drift.settings import WATCHED
from winspect.errors import OutputError

logger = logging.getLogger(__name__)

FILE = "drift.sqlite3"
_VERSION = 1
_MOST_LOG_BYTES = 16 * 2**20
_TABLES = f"""
CREATE TABLE lines (
    line TEXT PRIMARY KEY, identity TEXT, began TEXT, life INTEGER, pictures INTEGER, martingales TEXT, crossing TEXT
) WITHOUT ROWID;
CREATE TABLE pictures (
    line TEXT, number INTEGER, time TEXT, path TEXT, id TEXT, {", ".join(f"{name} REAL" for name in WATCHED)},
    PRIMARY KEY (line, number)
) WITHOUT ROWID;
"""
_PUT_LINE = "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_PICTURE = f"INSERT INTO pictures VALUES ({', '.join('?' * (5 + len(WATCHED)))})"


@dataclass(frozen=True)
class Seen:
    """A picture of a line.

    Attributes:
        time: ISO 8601, UTC. path, id: as in its row.
        values: by statistic; those that it has.
    """

    time: str
    path: str
    id: str | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Kept:
    """A line as it is kept.

    Attributes:
        identity: of the product, model, calibration and settings that it was watched with.
        began: time of the beginning of this life, ISO 8601, UTC.
    """

    identity: str
    began: str
    state: LineState


class DriftFile:
    """The file. Any thread may use it, one at a time.

    Raises:
        OutputError: the folder cannot be written, or another process has the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._database = self._opened()
        except sqlite3.OperationalError as error:
            self._refuse(error)
        except sqlite3.DatabaseError as error:
            aside = path.with_name(path.name + ".damaged")
            logger.warning("%s: damaged (%s); moved to %s, the drift alarm begins anew", path, error, aside.name)
            path.replace(aside)
            for ending in ("-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            try:
                self._database = self._opened()
            except sqlite3.OperationalError as second:
                self._refuse(second)

    def _refuse(self, error: sqlite3.Error) -> None:
        reason = "another process uses it" if "locked" in str(error) else str(error)
        raise OutputError(f"{self.path}: cannot be opened ({reason}); free some space, or name another folder")

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=0.5)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA journal_size_limit = {_MOST_LOG_BYTES}")
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.strip().split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"written by another release (version {version})")
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def lines(self) -> list[str]:
        """Names of the lines that are kept."""
        return [name for (name,) in self._database.execute("SELECT line FROM lines ORDER BY line")]

    def line(self, name: str) -> Kept | None:
        """A line; None where it is not kept."""
        row = self._database.execute("SELECT * FROM lines WHERE line = ?", (name,)).fetchone()
        if row is None:
            return None
        _, identity, began, life, pictures, martingales, crossing = row
        read = {key: Martingale.read(document) for key, document in json.loads(martingales).items()}
        crossed = None if crossing is None else Crossing(**json.loads(crossing))
        return Kept(identity, began, LineState(life, pictures, read, crossed))

    def values(self, line: str, statistic: str, first: int) -> list[float]:
        """The values of a statistic from a picture on."""
        query = f"SELECT {statistic} FROM pictures WHERE line = ? AND number >= ? AND {statistic} IS NOT NULL"
        return [value for (value,) in self._database.execute(query, (line, first))]

    def begin(self, line: str, kept: Kept) -> None:
        """Keep a line that begins; what was kept of it is forgotten."""
        with self._writing() as database:
            database.execute("DELETE FROM pictures WHERE line = ?", (line,))
            database.execute(_PUT_LINE, _row_of(line, kept))

    def add(self, line: str, kept: Kept, seen: Seen, *, forget_before: int = 0) -> None:
        """Keep a picture, and the state after it; pictures before a number are forgotten.

        Raises:
            sqlite3.Error: nothing has changed.
        """
        values = (seen.values.get(name) for name in WATCHED)
        with self._writing() as database:
            database.execute(_PUT_PICTURE, (line, kept.state.pictures, seen.time, seen.path, seen.id, *values))
            database.execute(_PUT_LINE, _row_of(line, kept))
            if forget_before:
                database.execute("DELETE FROM pictures WHERE line = ? AND number < ?", (line, forget_before))

    def picture(self, line: str, number: int) -> Seen | None:
        """A picture by its number; None where it is forgotten."""
        row = self._database.execute("SELECT * FROM pictures WHERE line = ? AND number = ?", (line, number)).fetchone()
        return None if row is None else _seen(row)

    def farthest(self, line: str, crossing: Crossing, most: int) -> list[Seen]:
        """The pictures since a change that lie farthest in its direction, the farthest first."""
        order = "DESC" if crossing.direction == "rising" else "ASC"
        query = (
            f"SELECT * FROM pictures WHERE line = ? AND number >= ? AND {crossing.statistic} IS NOT NULL "
            f"ORDER BY {crossing.statistic} {order}, number DESC LIMIT ?"
        )
        return [_seen(row) for row in self._database.execute(query, (line, crossing.since, most))]

    def newest(self, line: str, most: int) -> list[Seen]:
        """The newest pictures, the oldest of them first."""
        query = "SELECT * FROM pictures WHERE line = ? ORDER BY number DESC LIMIT ?"
        return [_seen(row) for row in self._database.execute(query, (line, most))][::-1]

    def _writing(self) -> _Transaction:
        return _Transaction(self._database)


class _Transaction:
    """A with-block whose writes are made together, or not at all."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # a full disk may have rolled it back itself
                self._database.execute("ROLLBACK")
            if kind is None:
                raise


def _row_of(line: str, kept: Kept) -> tuple[Any, ...]:
    state = kept.state
    martingales = json.dumps({name: martingale.document() for name, martingale in state.martingales.items()})
    crossing = None if state.crossing is None else json.dumps(asdict(state.crossing))
    return line, kept.identity, kept.began, state.life, state.pictures, martingales, crossing


def _seen(row: tuple[Any, ...]) -> Seen:
    _, _, time, path, id_, *values = row
    return Seen(
        time, path, id_, {name: value for name, value in zip(WATCHED, values, strict=True) if value is not None}
    )
