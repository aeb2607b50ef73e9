"""Where rows wait for the other side: an SQLite file, which a process that is killed at any moment leaves whole.

Each row is stored once, for all deliveries, and removed when the last has delivered it. Of each delivery the spool
knows how far it has *delivered*, and how far it may have *tried*: rows up to there are marked as repeats when they are
sent by a later process. With the rows it notes how far the results files have been read, in one transaction: what a
killed watch wrote behind that is read again at the next start.

Bounds: of a delivery at most ``keep_rows`` rows wait; the oldest make room, and are counted as dropped.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from winspect.delivery.message import Message
from winspect.delivery.settings import DeliverySettings
from winspect.errors import OutputError

logger = logging.getLogger(__name__)

SPOOL_FILE = "deliveries.sqlite3"
AHEAD = 64
"""Rows noted as tried ahead of those that are sent, so that not every row costs a write of its own."""
_VERSION = 1
_TABLES = """
CREATE TABLE waiting (seq INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT NOT NULL);
CREATE TABLE deliveries (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL, tried INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0, keep INTEGER NOT NULL, state TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE TABLE read (file TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""
_UNSYNCED = "PRAGMA synchronous = NORMAL"
_LAST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'waiting'"
_REMOVE = "DELETE FROM waiting WHERE seq <= (SELECT min(delivered) FROM deliveries)"
_DROP = """UPDATE deliveries SET dropped = dropped + (:last - keep - delivered), delivered = :last - keep
    WHERE delivered < :last - keep"""

Entry = tuple[Mapping[str, Any], tuple[str, int] | None]
"""A row, and where it ends: a results file and a number of bytes; None for a row that is in no file."""


class Spool:
    """The spool of a folder. Any thread may use it.

    Args:
        path: of the file, which is made where it is not there.
        deliveries: that rows wait for. Of those that are new, what comes from now on.
        synced: each row is on the disk before :meth:`put` returns, for rows that are nowhere else; without it a power
            cut may take the last ones, which are then read from the results files again.
        begin_at: how far the results files count as read in a spool that is new.

    Raises:
        OutputError: it cannot be written, or another process holds it.
    """

    def __init__(
        self,
        path: Path,
        deliveries: Sequence[DeliverySettings],
        *,
        synced: bool,
        begin_at: Iterable[tuple[str, int]] = (),
    ) -> None:
        self.path, self._lock, self._synced, self._begin_at = path, threading.Lock(), synced, begin_at
        try:
            self._open(deliveries)
        except sqlite3.OperationalError as error:  # no place, no right, or in use: not the file's fault
            self.close()
            raise OutputError(
                f"{path}: cannot be opened ({error}); free some space, choose another folder, or end the other process"
            ) from error
        except sqlite3.DatabaseError as error:
            self.close()
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            logger.warning("%s: damaged (%s); moved to %s, rows in it are not delivered", path, error, aside.name)
            path.rename(aside)
            for ending in ("-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            self._open(deliveries)

    def close(self) -> None:
        """Close the file."""
        database: sqlite3.Connection | None = getattr(self, "_database", None)
        if database is not None:
            database.close()

    def put(self, entries: Iterable[Entry]) -> None:
        """Store rows, in their order: all of them or none.

        Raises:
            sqlite3.Error, OSError: nothing was stored.
        """
        with self._lock, self._syncing(), self._database as database:
            for row, position in entries:
                database.execute("INSERT INTO waiting (row) VALUES (?)", (json.dumps(row),))
                if position is not None:
                    database.execute("INSERT OR REPLACE INTO read VALUES (?, ?)", position)
            last = database.execute(_LAST).fetchone()[0]
            if database.execute(_DROP, {"last": last}).rowcount:
                database.execute(_REMOVE)

    def read_up_to(self) -> dict[str, int]:
        """How far the results files have been read: name -> bytes."""
        with self._lock:
            return dict(self._database.execute("SELECT file, bytes FROM read"))

    def behind(self, delivered: int, most: int, *, repeats_to: int) -> list[Message]:
        """The first rows behind one that was delivered.

        Args:
            repeats_to: rows up to this number may have been sent before.
        """
        query = "SELECT seq, row FROM waiting WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._lock:
            found = self._database.execute(query, (delivered, most)).fetchall()
        return [Message(seq, json.loads(row), seq <= repeats_to) for seq, row in found]

    def last(self) -> int:
        """The number of the last row that was stored; there are no gaps."""
        with self._lock:
            return self._database.execute(_LAST).fetchone()[0]

    def standing(self, name: str) -> tuple[int, int, int, dict[str, Any]]:
        """Of a delivery: the last row delivered, the last one tried, how many were dropped, the channel's state."""
        query = "SELECT delivered, tried, dropped, state FROM deliveries WHERE name = ?"
        with self._lock:
            delivered, tried, dropped, state = self._database.execute(query, (name,)).fetchone()
        return delivered, tried, dropped, json.loads(state)

    def note_tried(self, name: str, seq: int) -> int:
        """Note that rows are about to be sent, up to one and some ahead; returns up to which."""
        tried = seq + AHEAD
        with self._lock, self._database as database:
            database.execute("UPDATE deliveries SET tried = ? WHERE name = ? AND tried < ?", (tried, name, tried))
        return tried

    def note_delivered(self, name: str, seq: int, state: Mapping[str, Any]) -> None:
        """Note the last row that was delivered, and remove what every delivery has delivered."""
        query = "UPDATE deliveries SET delivered = max(delivered, ?), state = ? WHERE name = ?"
        with self._lock, self._database as database:
            database.execute(query, (seq, json.dumps(state), name))
            database.execute(_REMOVE)

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        """Write through to the disk, where that is asked for. What else is noted can be told from the rows again."""
        if self._synced:
            self._database.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            if self._synced:
                self._database.execute(_UNSYNCED)

    def _open(self, deliveries: Sequence[DeliverySettings]) -> None:
        self._database = database = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
        # One process holds it, so the log needs no shared memory, which network file systems do not have.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(_UNSYNCED)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"written by another release (version {version})")
        with database:
            if version == 0:
                database.execute("BEGIN")
                for table in filter(None, map(str.strip, _TABLES.split(";"))):
                    database.execute(table)
                database.executemany("INSERT INTO read VALUES (?, ?)", self._begin_at)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            self._enter(database, deliveries)

    def _enter(self, database: sqlite3.Connection, deliveries: Sequence[DeliverySettings]) -> None:
        """Note the deliveries that are new, and forget those that are no more."""
        last = database.execute(_LAST).fetchone()[0]
        names = {settings.name for settings in deliveries}
        for name, delivered in database.execute("SELECT name, delivered FROM deliveries").fetchall():
            if name not in names:
                database.execute("DELETE FROM deliveries WHERE name = ?", (name,))
                if last > delivered:
                    logger.warning(
                        "%s: %d rows waited for %s, which is no delivery any more", self.path, last - delivered, name
                    )
        for settings in deliveries:
            new = (settings.name, last, last, settings.keep_rows)
            database.execute("INSERT OR IGNORE INTO deliveries (name, delivered, tried, keep) VALUES (?, ?, ?, ?)", new)
            database.execute("UPDATE deliveries SET keep = ? WHERE name = ?", (settings.keep_rows, settings.name))
        # What comes from here on cannot have been tried.
        database.execute("UPDATE deliveries SET tried = min(tried, ?)", (last,))
        database.execute(_DROP, {"last": last})
        database.execute(_REMOVE)
