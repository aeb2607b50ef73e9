"""Journal of what has been scored of a watched folder, across restarts: an SQLite file, an entry per name.

The results are the truth, and the journal follows them: with each picture it notes how far each results file goes. What
lies behind that at the next start was written by a run that was killed in between, and is read again. So a picture is
neither lost nor scored twice, and a damaged journal is made anew.

Names that have not been in the folder for :data:`FORGET_DAYS` are forgotten; so the journal does not grow for ever, and
a share that is away over a long weekend is not scored again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from winspect.errors import OutputError
from winspect.watch.rows import Position, rows_behind, utc_now
from winspect.watch.tree import Content

logger = logging.getLogger(__name__)

JOURNAL_FILE = "journal.sqlite3"
FORGET_DAYS = 14
_VERSION = 1
_TABLES = """
CREATE TABLE judged (name BLOB PRIMARY KEY, bytes INTEGER, modified_ns INTEGER, seen INTEGER) WITHOUT ROWID;
CREATE TABLE written (file TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID;
"""
_PUT = "INSERT OR REPLACE INTO judged VALUES (?, ?, ?, ?)"
_PUT_POSITION = "INSERT OR REPLACE INTO written VALUES (?, ?)"


class Journal:
    """The journal of the results in a folder. Use it in a with-block, from a single thread.

    Args:
        folder: of the results; the journal is in it.
        clock: gives the time in UTC.

    Attributes:
        is_new: nothing was known, neither here nor in the results.

    Raises:
        OutputError: it cannot be opened, or a results file holds something else than rows.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.path, self.clock = folder / JOURNAL_FILE, clock
        self._database: sqlite3.Connection | None = None
        try:
            self.is_new = self._follow_results()
        except sqlite3.OperationalError as error:  # no place, no right: not the file's fault
            reason = f"{self.path}: cannot be opened ({error}); free some space, or choose another --out"
            raise OutputError(reason) from error
        except sqlite3.DatabaseError as error:
            logger.warning("%s: damaged (%s); made anew from the results", self.path, error)
            self.close()
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            self.is_new = self._follow_results()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def knows(self, name: str, content: Content) -> bool:
        """Whether this content of this file was scored. The name counts as still being there."""
        database, key, today = self._opened(), os.fsencode(name), self._today()
        row = database.execute("SELECT bytes, modified_ns, seen FROM judged WHERE name = ?", (key,)).fetchone()
        if row is None or row[:2] != content:
            return False
        if row[2] != today:
            with suppress(sqlite3.OperationalError):  # a full disk; the next look notes it
                database.execute("UPDATE judged SET seen = ? WHERE name = ?", (today, key))
        return True

    def add(self, name: str, content: Content, position: Position) -> None:
        """Note a picture that was scored, and where its row ends."""
        with self._opened() as database:
            database.execute(_PUT, (os.fsencode(name), *content, self._today()))
            database.execute(_PUT_POSITION, position)

    def leave_out(self, pictures: Iterable[tuple[str, Content]]) -> int:
        """Note pictures that are not to be scored; returns their number."""
        today = self._today()
        entries = ((os.fsencode(name), *content, today) for name, content in pictures)
        with self._opened() as database:
            return database.executemany(_PUT, entries).rowcount

    def forget_absent(self) -> None:
        """After all of the folder was looked at: drop the names that have long been gone."""
        with suppress(sqlite3.OperationalError), self._opened() as database:  # a full disk; another time will do
            database.execute("DELETE FROM judged WHERE seen < ?", (self._today() - FORGET_DAYS,))

    def __len__(self) -> int:
        return self._opened().execute("SELECT count(*) FROM judged").fetchone()[0]

    def _today(self) -> int:
        return self.clock().toordinal()

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(self.path)
            # One process holds it, so the log needs no shared memory, which network file systems do not have.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                database.close()
                raise sqlite3.DatabaseError(f"written by another release (version {version})")
            self._database = database
        return self._database

    def _follow_results(self) -> bool:
        """Note the rows that are not noted yet; returns whether nothing at all is known."""
        with self._opened() as database:
            known: dict[str, int] = dict(database.execute("SELECT file, bytes FROM written"))
            for row, position in rows_behind(self.path.parent, known):
                if isinstance(file := row.get("file"), dict):
                    entry = os.fsencode(file["name"]), file["bytes"], file["modified_ns"], self._today()
                    database.execute(_PUT, entry)
                database.execute(_PUT_POSITION, position)
            gone = [(name,) for name in known if not (self.path.parent / name).exists()]
            database.executemany("DELETE FROM written WHERE file = ?", gone)
        return not known and not len(self)
