"""Store of what outlives a restart: references, good pictures and calibrations per class, in one SQLite file.

Classes are the words of :func:`winspect.service.contract.class_key` in a column: none ever becomes a path. Methods
may be called from any thread, one at a time; each change is atomic.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from winspect.errors import OutputError, SettingsError
from winspect.methods.winclip.prompts import class_key
from winspect.service.contract import StoredPicture, StoreFull
from winspect.system.files import make_folder, write_file

logger = logging.getLogger(__name__)

FILE = "winspect.sqlite3"
_APPLICATION = 0x77696E73  # "wins": a file of another program is not written to
_SCHEMA = 1
_RESERVE = "winspect.reserve"
_RESERVE_BYTES = 4 * 2**20  # what deleting 4 GB of pictures writes, at a page of SQLite's per megabyte
_MOST_LOG_BYTES = 64 * 2**20
_TABLES = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    class TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reference', 'good')),
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (class, kind, sha256)
);
CREATE TABLE calibrations (class TEXT PRIMARY KEY, document TEXT NOT NULL);
"""

Kind = Literal["reference", "good"]
Picture = tuple[str, bytes]
"""A file name and the file."""


class Store:
    """See the module.

    Args:
        folder: made when it is not there.
        max_bytes: of all pictures together; None for as many as the disk holds.
        max_classes: that anything is stored of; None for any number.

    Raises:
        OutputError: the folder cannot be written, or another service uses it.
        SettingsError: the file is damaged, another program's, or of a newer release.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None, max_classes: int | None = None) -> None:
        self.path = make_folder(folder) / FILE
        self.max_bytes, self.max_classes = max_bytes, max_classes
        self._reserve = self.path.with_name(_RESERVE)
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=0.5)
            self._open()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(f"{self.path}: another service uses this folder; stop it, or name another") from error
            raise OutputError(f"{self.path}: cannot be opened ({error})") from error
        except sqlite3.DatabaseError as error:
            raise SettingsError(
                f"{self.path}: damaged, or no file of winspect's ({error}); restore a copy, or move it away to start "
                "without references"
            ) from error
        self._keep_reserve()

    def _open(self) -> None:
        run = self._connection.execute
        # One service per folder: what it knows of the classes is in its memory too. The kernel lifts the lock when the
        # process ends, however it ends.
        run("PRAGMA locking_mode = EXCLUSIVE")
        (application,), (version,) = run("PRAGMA application_id").fetchone(), run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise SettingsError(f"{self.path}: a database of another program; name another folder")
        if version > _SCHEMA:
            raise SettingsError(f"{self.path}: got schema {version}, this release reads {_SCHEMA}; upgrade winspect")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")  # references are shown rarely, and must not be lost with the power
        run("PRAGMA secure_delete = OFF")  # else deleting writes as much as it deletes: no room on a full disk
        run(f"PRAGMA journal_size_limit = {_MOST_LOG_BYTES}")
        run("BEGIN IMMEDIATE")
        if not tables:
            for statement in _TABLES.strip().split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {_APPLICATION}")
            run(f"PRAGMA user_version = {_SCHEMA}")
        self._rename_classes()
        run("COMMIT")

    def _rename_classes(self) -> None:
        """Classes stored by a release for which case mattered, under their names of today."""
        run = self._connection.execute
        found = run("SELECT class FROM pictures UNION SELECT class FROM calibrations ORDER BY class").fetchall()
        names = {name for (name,) in found}
        for name in sorted(names):
            key = class_key(name)
            if key == name:
                continue
            if key in names:
                logger.warning("%s: classes %r and %r are one now; the first is left aside", self.path, name, key)
                continue
            names.add(key)
            for table in ("pictures", "calibrations"):
                run(f"UPDATE {table} SET class = ? WHERE class = ?", (key, name))

    def close(self) -> None:
        """Close the file. Closing twice does no harm."""
        with self._lock:
            self._connection.close()

    # -- reading

    def classes(self) -> list[str]:
        """Classes that anything is stored of, by name."""
        found = self._rows("SELECT class FROM pictures UNION SELECT class FROM calibrations ORDER BY class")
        return [name for (name,) in found]

    def count(self, category_name: str, kind: Kind) -> int:
        """How many pictures a class has."""
        ((number,),) = self._rows("SELECT count(*) FROM pictures WHERE class = ? AND kind = ?", category_name, kind)
        return number

    def pictures(self, category_name: str, kind: Kind) -> list[StoredPicture]:
        """The pictures of a class without their content, in the order in which they were given."""
        found = self._rows(
            "SELECT name, sha256, size FROM pictures WHERE class = ? AND kind = ? ORDER BY id", category_name, kind
        )
        return [StoredPicture(*row) for row in found]

    def contents(self, category_name: str, kind: Kind) -> list[bytes]:
        """The files of all pictures of a class, in the order of :meth:`pictures`."""
        return [self.content(category_name, kind, each.sha256) for each in self.pictures(category_name, kind)]

    def content(self, category_name: str, kind: Kind, sha256: str) -> bytes:
        """One picture's file.

        Raises:
            SettingsError: it is damaged, or not there any more.
        """
        found = self._rows(
            "SELECT name, content FROM pictures WHERE class = ? AND kind = ? AND sha256 = ?",
            category_name,
            kind,
            sha256,
        )
        if not found:
            raise SettingsError(f"{category_name}: a picture has been deleted meanwhile; start again")
        ((name, content),) = found
        if hashlib.sha256(content).hexdigest() != sha256:
            raise SettingsError(
                f"{category_name}: the stored picture {name} ({kind}) is damaged; restore a copy of {FILE}, or move "
                "it away to start without references"
            )
        return content

    def document(self, category_name: str) -> dict[str, Any] | None:
        """The calibration of a class, as :meth:`winspect.calibration.Calibration.document` made it."""
        found = self._rows("SELECT document FROM calibrations WHERE class = ?", category_name)
        return json.loads(found[0][0]) if found else None

    # -- writing

    def replace(self, category_name: str, kind: Kind, pictures: Sequence[Picture]) -> None:
        """Store pictures in place of those a class has; none to delete them. Copies are stored once.

        Raises:
            StoreFull: the pictures are too many bytes, or of one class too many.
            OutputError: the disk is full, or cannot be written; nothing has changed. Deleting works on a full disk.
        """
        if not pictures:
            self._delete("DELETE FROM pictures WHERE class = ? AND kind = ?", category_name, kind)
            return
        with self._change() as run:
            run("DELETE FROM pictures WHERE class = ? AND kind = ?", (category_name, kind))
            self._insert(run, category_name, kind, pictures)

    def add(self, category_name: str, kind: Kind, pictures: Sequence[Picture]) -> None:
        """Store further pictures; those that a class has already are left out. Errors as of :meth:`replace`."""
        with self._change() as run:
            self._insert(run, category_name, kind, pictures)

    def remove(self, category_name: str, kind: Kind, sha256: str) -> None:
        """Delete one picture of a class. Works on a full disk, too."""
        self._delete("DELETE FROM pictures WHERE class = ? AND kind = ? AND sha256 = ?", category_name, kind, sha256)

    def set_document(self, category_name: str, document: dict[str, Any] | None) -> None:
        """Store the calibration of a class; None deletes it. Errors as of :meth:`replace`."""
        if document is None:
            self._delete("DELETE FROM calibrations WHERE class = ?", category_name)
            return
        text = json.dumps(document, allow_nan=False)
        with self._change() as run:
            run("INSERT OR REPLACE INTO calibrations VALUES (?, ?)", (category_name, text))

    def _delete(self, query: str, *values: Any) -> None:
        """Delete rows. That writes a little; on a full disk what was reserved for it is used up, and made again."""
        self._keep_reserve()
        try:
            with self._change() as run:
                run(query, values)
        except OutputError:
            self._reserve.unlink(missing_ok=True)
            with self._change() as run:
                run(query, values)
            self._rows("PRAGMA wal_checkpoint(RESTART)")  # what is written next overwrites the log
        self._keep_reserve()

    def _keep_reserve(self) -> None:
        """Hold some of the disk back; where it is full already there is none, until there is room."""
        with suppress(OSError, OutputError):
            if not self._reserve.exists():
                write_file(self._reserve, bytes(_RESERVE_BYTES))

    def _insert(self, run: Any, category_name: str, kind: Kind, pictures: Sequence[Picture]) -> None:
        pictures = list(pictures)
        self._check_room(run, category_name, sum(len(content) for _, content in pictures))
        for name, content in pictures:
            digest = hashlib.sha256(content).hexdigest()
            run(
                "INSERT OR IGNORE INTO pictures (class, kind, name, sha256, size, content) VALUES (?, ?, ?, ?, ?, ?)",
                (category_name, kind, name, digest, len(content), content),
            )

    def _check_room(self, run: Any, category_name: str, more_bytes: int) -> None:
        (stored,) = run("SELECT total(size) FROM pictures").fetchone()
        if self.max_bytes is not None and stored + more_bytes > self.max_bytes:
            limit, left = self.max_bytes / 2**20, max(0, self.max_bytes - stored) / 2**20
            raise StoreFull(
                f"got {more_bytes / 2**20:.1f} MB of pictures, of {limit:g} MB that may be stored {left:.1f} are left; "
                "delete what is not needed, or start the service with a larger --max-store-mb"
            )
        others = "SELECT class FROM pictures WHERE class != ?1 UNION SELECT class FROM calibrations WHERE class != ?1"
        (classes,) = run(f"SELECT count(*) FROM ({others})", (category_name,)).fetchone()
        if self.max_classes is not None and classes >= self.max_classes:
            raise StoreFull(f"{classes} classes are stored, which is the most; delete one that is not needed")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, _named_errors():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[Any]:
        with self._lock, _named_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself rolls back where the disk is full
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def _named_errors() -> Iterator[None]:
    """SQLite's errors as ones that callers may see: without a path."""
    try:
        yield
    except sqlite3.Error as error:
        logger.error("the store: %s", error)
        if "full" in str(error):
            raise OutputError("the store cannot be written: the disk is full; free some space") from error
        raise OutputError(f"the store cannot be used: {error}; see the service's disk") from error
