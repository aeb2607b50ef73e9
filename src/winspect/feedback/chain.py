"""Audit log: lines of JSON that are only ever added, each with the SHA-256 of the line before.

``audit/audit-000001.jsonl`` is followed by ``audit-000002.jsonl`` when it is full; the chain goes on. Every line has
``n``, its number from 1; ``time`` in UTC; ``event``; what belongs to the event; and ``previous``, the hash of the line
before it without its line break. ``audit/head.json`` names the last line, so that lines cut off the end are noticed.

Lines are on the disk when :meth:`Writer.append` returns. Writers, of one process or several, wait for each other. What
a crash leaves of a line is removed by the next writer, which adds the event ``repair`` and says so.

Who can write to the folder can write a whole new log, too: keep the last line's hash elsewhere (``winspect feedback DIR
--verify`` prints it) to notice that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from winspect.errors import OutputError
from winspect.system.files import append_line, make_folder, output_error, replacing_in_cache
from winspect.system.run_folder import FolderLock

logger = logging.getLogger(__name__)

AUDIT_FOLDER, HEAD_FILE = "audit", "head.json"
START = "0" * 64
"""``previous`` of the first line."""

_PATTERN = "audit-[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"
_LOCK_FILE = ".lock"
_WAIT_S, _PAUSE_S = 10.0, 0.005
_TAIL_BYTES = 2**16


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def hash_of(line: bytes) -> str:
    """SHA-256 of a line, without its line break."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def log_files(folder: Path) -> list[Path]:
    """The files of the log in a folder of results or data, the first line's first."""
    return sorted((folder / AUDIT_FOLDER).glob(_PATTERN))


class Head(NamedTuple):
    """Number and hash of a line; 0 and zeros before the first."""

    n: int
    sha256: str


class _End(NamedTuple):
    """Where the log ends: its last file and how long that is, and its last line."""

    path: Path | None
    size: int
    head: Head


@dataclass
class Writer:
    """Adds lines while it alone may; see :meth:`AuditLog.writing`."""

    log: AuditLog

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, through to the disk; where that fails, the log is as it was.

        Args:
            entries: each with ``event``, and without ``n`` and ``previous``; ``time`` is now where it has none.

        Raises:
            OutputError: the disk is full, or cannot be written.
        """
        if entries:
            self.log._append(entries)


class AuditLog:
    """The audit log of a folder. Any number of processes may read and write it.

    Args:
        folder: of a watch's results, or a service's data; the log is in its ``audit/``.
        file_bytes: from this size on a file is full.
        clock: gives the time in UTC.
    """

    def __init__(self, folder: Path, *, file_bytes: int = 64 * 2**20, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder, self.file_bytes, self.clock = folder / AUDIT_FOLDER, file_bytes, clock
        self._end: _End | None = None
        self._read_file, self._read_bytes = "", 0  # up to where :meth:`new_entries` has come

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written."""
        return any(self.folder.glob(_PATTERN))

    def new_entries(self) -> Iterator[dict[str, Any]]:
        """Entries that were not given before, in order; a line without its end is none yet.

        A line that is no entry is logged and passed over: a line must go on whatever became of its log, and
        :func:`winspect.feedback.verifying.verify` names it.
        """
        for path in sorted(self.folder.glob(_PATTERN)):
            if path.name < self._read_file:
                continue
            start = self._read_bytes if path.name == self._read_file else 0
            with path.open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read_file, self._read_bytes = path.name, start + len(line)
                    start = self._read_bytes
                    if (entry := entry_of(line)) is not None:
                        yield entry
                    else:
                        logger.error(
                            "%s: a line was altered (%r); see `winspect feedback DIR --verify`", path, line[:40]
                        )

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Keep other writers out; what a crash has left is repaired first.

        Raises:
            OutputError: the folder cannot be written, or another writer does not come to its end.
        """
        make_folder(self.folder)
        with self._locked():
            self._find_end()
            yield Writer(self)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock, until = FolderLock(self.folder / _LOCK_FILE, str(self.folder)), time.monotonic() + _WAIT_S
        while True:
            try:
                lock.acquire()
                break
            except OutputError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)
        try:
            yield
        finally:
            lock.release()

    def _find_end(self) -> None:
        """Find the last line, where somebody else has written since; put right what a crash has left of one."""
        files = sorted(self.folder.glob(_PATTERN))
        last = files[-1] if files else None
        size = last.stat().st_size if last else 0
        if self._end is not None and (last, size) == self._end[:2]:
            return
        notes: list[dict[str, Any]] = []
        if last is not None and (cut := _remove_cut_line(last)):
            size -= cut
            notes.append({"event": "repair", "file": last.name, "removed_bytes": cut})
            logger.warning("%s: removed a last line that a crash had cut off (%d bytes)", last, cut)
        known = read_head(self.folder)
        head = Head(0, START)
        for path in reversed(files):  # the last file may hold nothing but what was cut off
            if lines := _last_lines(path):
                head = Head(_number_of(lines, known), hash_of(lines[-1]))
                break
        if known is not None and (known.n > head.n or (known.n == head.n and known != head)):
            notes.append({"event": "gap", "known_n": known.n, "known_sha256": known.sha256})
            logger.error(
                "%s: its last lines were cut off or altered: line %d was there; see --verify", self.folder, known.n
            )
        self._end = _End(last, size, head)
        if notes:
            self._append(notes)

    def _append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        assert self._end is not None  # found when the writer came in
        path, size, head = self._end
        if path is None or size >= self.file_bytes:
            number = 1 if path is None else int(path.stem.rpartition("-")[2]) + 1
            path, size = self.folder / f"audit-{number:06d}.jsonl", 0
        lines = []
        for entry in entries:
            now = {"n": head.n + 1, "time": self.clock().isoformat(timespec="milliseconds")}
            line = json.dumps({**now, **entry, "previous": head.sha256}, separators=(",", ":"), ensure_ascii=True)
            lines.append(line.encode())
            head = Head(head.n + 1, hash_of(lines[-1]))
        content = b"".join(line + b"\n" for line in lines)
        try:
            append_line(path, content)
        except OSError as error:
            self._end = None
            raise output_error(path, error) from error
        self._end = _End(path, size + len(content), head)
        with suppress(OSError), replacing_in_cache(self.folder / HEAD_FILE) as temporary:
            temporary.write_text(json.dumps({"n": head.n, "sha256": head.sha256}) + "\n")


def read_head(folder: Path) -> Head | None:
    """What ``head.json`` says in the log's folder; None where it is missing or damaged."""
    try:
        document = json.loads((folder / HEAD_FILE).read_text())
        return Head(int(document["n"]), str(document["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def entry_of(line: bytes) -> dict[str, Any] | None:
    """A line as an entry; None where it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_entry = isinstance(entry, dict) and isinstance(entry.get("n"), int) and isinstance(entry.get("event"), str)
    return entry if is_entry else None


def _number_of(lines: Sequence[bytes], known: Head | None) -> int:
    """Number of the last of some lines, of which the last ones may be damaged."""
    for behind, line in enumerate(reversed(lines)):
        if (entry := entry_of(line)) is not None:
            return int(entry["n"]) + behind
    return 0 if known is None else known.n


def _remove_cut_line(path: Path) -> int:
    """Remove a last line without its end; returns its number of bytes."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end, step = size, _TAIL_BYTES
        if size == 0:
            return 0
        while end > 0:
            start = max(0, end - step)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return size - end


def _last_lines(path: Path) -> list[bytes]:
    """The last lines of a file that ends with a line break, at least one where it has any."""
    with path.open("rb") as file:
        size, tail = file.seek(0, os.SEEK_END), b""
        while size and tail.count(b"\n") < 2:
            start = max(0, size - _TAIL_BYTES)
            file.seek(start)
            tail = file.read(size - start) + tail
            size = start
    lines = tail.splitlines()
    return lines[1:] if size and len(lines) > 1 else lines
