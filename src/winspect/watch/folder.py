"""Watched folder: a queue of the pictures that have arrived and are complete, in order of arrival.

The system's events say where to look; because events get lost (on network shares always, anywhere when there are very
many), the whole folder is also scanned from time to time. A file counts as complete when its size and time of change
have stayed the same for ``settle_s``; whether it really is, decoding it tells. A name that is written over again and
again never comes to rest: it is scored after :data:`MOST_SETTLES` times as long, as it is then.
"""

from __future__ import annotations

import heapq
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winspect.errors import PictureError, SourceError
from winspect.watch.events import ADDED, DELETED, TICK_S, FolderEvents
from winspect.watch.journal import Journal
from winspect.watch.tree import Content, Tree, may_be_picture

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Length of the queue; where more wait, they are found again in the folder when there is room."""
MOST_SETTLES = 3
"""A name that is replaced all the time is scored after so many times ``settle_s``."""
_LONGEST_PAUSE_S = 5.0
_REMINDER_S = 600.0


@dataclass(slots=True)
class Arrival:
    """Picture in the queue.

    Attributes:
        name: below the folder.
        content: seen last; ``inode``: of the file that holds it.
        arrived: when it was noticed, ``time.monotonic()``.
        due: when to look at it again.
        is_replaced: another file came by this name, or the file became shorter: it is not one that slowly grows.
        failures: how often this content could not be decoded; ``failing_since``: the first time.
    """

    name: str
    content: Content
    inode: int
    arrived: float
    due: float
    is_replaced: bool = False
    failures: int = 0
    failing_since: float = 0.0

    def entry(self) -> dict[str, Any]:
        """The picture as rows have it: its name and what tells its content from another."""
        return {"name": self.name, **self.content._asdict()}

    def see(self, status: os.stat_result) -> None:
        """Take the content that is there now for the one to score."""
        self.is_replaced = self.is_replaced or status.st_ino != self.inode or status.st_size < self.content.bytes
        self.content, self.inode = Content.of(status), status.st_ino
        if not self.is_replaced:
            self.failures, self.failing_since = 0, 0.0


class WatchedFolder:
    """Queue of the pictures that arrive in a folder. Use it in a with-block, from a single thread.

    Args:
        root: the folder, which is there.
        journal: what was scored.
        stop: ends waiting.
        recursive: also everything below it; see :class:`~winspect.watch.tree.Tree`.
        poll: compare listings every second, for network shares, which send no events.
        settle_s: how long size and time of change stay the same before a file is taken for complete. A file that was
            renamed into place is taken at once, where that can be told.
        patience_s: how long a file that cannot be decoded is tried again.
        scan_every_s: how often the whole folder is scanned, or less often where that takes long.
        ignore: folders whose contents are no arrivals: where the results go.
        now: seconds, by which files settle.

    Raises:
        SourceError: no such folder. MissingExtraError: watchfiles is not installed.
    """

    def __init__(
        self,
        root: Path,
        journal: Journal,
        *,
        stop: threading.Event,
        recursive: bool = False,
        poll: bool = False,
        settle_s: float = 1.0,
        patience_s: float = 30.0,
        scan_every_s: float = 60.0,
        ignore: Iterable[Path] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not root.is_dir():
            raise SourceError(f"{os.fspath(root)!r}: no such folder: check the path")
        self.root, self.journal, self.stop, self.poll = root, journal, stop, poll
        self.settle_s, self.patience_s, self.scan_every_s = settle_s, patience_s, scan_every_s
        self._now = now
        self._tree = Tree(root, recursive=recursive, ignore=ignore, complain=self._complain)
        self._events = FolderEvents(root, recursive=recursive, poll=poll, stop=stop)
        self._queue: dict[str, Arrival] = {}
        self._more = 0  # in the folder, but not in the queue
        self._next_scan = 0.0
        self._complaint = ("", 0.0)

    def __enter__(self) -> WatchedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()

    @property
    def behind(self) -> int:
        """Pictures that have arrived and wait; where they are very many, about."""
        return len(self._queue) + self._more

    def behind_in_words(self) -> str:
        """How far behind the watch is; empty where nothing waits."""
        unreadable = sum(arrival.failures > 0 for arrival in self._queue.values())
        waiting = (arrival.arrived for arrival in self._queue.values() if not arrival.failures)
        words = [f"{unreadable} cannot be read so far"] if unreadable else []
        if (oldest := next(waiting, None)) is not None:
            words.insert(0, f"{self.behind - unreadable} behind, the oldest for {self._now() - oldest:.1f} s")
        elif self._more:  # they wait in the folder alone, and are queued in a moment
            words.insert(0, f"{self._more} behind")
        return ", ".join(words)

    def leave_out_existing(self) -> int:
        """Never score what is there now; returns the number of these pictures."""
        return self.journal.leave_out((name, Content.of(status)) for name, status in self._tree.walk())

    def listen(self) -> None:
        """Take in what has happened. Waits a moment where nothing has."""
        if not self._events.is_there():
            self.stop.wait(TICK_S)
            return
        try:
            self._take_in(self._events.wait())
            is_time = self._more or self._events.lost or self._now() >= self._next_scan
            if is_time and len(self._queue) <= MOST_WAITING // 2:
                self._scan()
        except OSError as error:
            self._complain(f"{self.root}: cannot be scanned ({error.strerror or error})")
            self._events.close()
            self.stop.wait(TICK_S)
        except sqlite3.OperationalError as error:  # the share with the results is away
            self._complain(f"{self.journal.path}: cannot be read ({error})")
            self.journal.close()
            self._events.lost = True
            self.stop.wait(TICK_S)

    def ready(self, most: int) -> list[Arrival]:
        """The first pictures that are complete as far as can be seen. They stay in the queue until :meth:`done`."""
        found: list[Arrival] = []
        now = self._now()
        for arrival in list(self._queue.values()) if self._events.is_there() else ():
            if len(found) == most:
                break
            if arrival.due <= now and self._is_unchanged(arrival, now):
                found.append(arrival)
        return found

    def reading(self, arrival: Arrival) -> str:
        """Note which file is read now, and return its path: what was replaced since it was ready is read as it is."""
        status = self._tree.status(arrival.name)
        if status is not None and status.st_ino != arrival.inode:
            arrival.see(status)
        return os.path.join(self.root, arrival.name)

    def is_final(self, arrival: Arrival, error: PictureError | None) -> bool:
        """Whether a result stands. If not, because the file has changed or may still be completed, it waits again.

        Args:
            error: why the picture could not be scored, or None.
        """
        now = self._now()
        status = self._tree.status(arrival.name)
        is_there = status is not None and Content.of(status) == arrival.content
        if error is None and (status is None or is_there or self._was_whole(arrival, status, now)):
            return True  # deleted or replaced meanwhile, but read before
        if error is not None and status is not None and (is_there or arrival.is_replaced):
            arrival.failing_since = arrival.failing_since or now
            if now - arrival.failing_since >= self.patience_s:
                return True
        if not is_there:
            self._is_unchanged(arrival, now)  # it waits again, or leaves the queue
            return False
        arrival.failures += 1
        pause = min(_LONGEST_PAUSE_S, 0.1 * 2**arrival.failures)
        arrival.due = min(now + pause, arrival.failing_since + self.patience_s)
        return False

    def done(self, arrival: Arrival) -> None:
        """Remove a picture that has its row. Where its name has another content by now, that is queued."""
        self._queue.pop(arrival.name, None)
        status = self._tree.status(arrival.name)
        if status is not None and Content.of(status) != arrival.content:
            self._offer(arrival.name, status)

    def _was_whole(self, arrival: Arrival, status: os.stat_result, now: float) -> bool:
        """Whether what was read is a whole content of this name, whatever the name holds now."""
        if status.st_ino != arrival.inode:
            return True  # another file came in its place: the one that was read is as it was
        return arrival.is_replaced and now >= arrival.arrived + MOST_SETTLES * self.settle_s

    def _is_unchanged(self, arrival: Arrival, now: float) -> bool:
        """Whether the file is as it was, or need not settle. If not, it waits again, or leaves the queue, if gone."""
        status = self._tree.status(arrival.name)
        if status is None:
            if self._events.is_there():  # else it is the folder that is gone
                self._queue.pop(arrival.name, None)
                logger.warning("%s: gone before it was scored", self.root / arrival.name)
            return False
        if Content.of(status) == arrival.content:
            return True
        renamed = status.st_ino != arrival.inode and self._was_renamed(status)
        arrival.see(status)
        arrival.due = now if renamed else now + self.settle_s
        if arrival.is_replaced:
            arrival.due = max(now, min(arrival.due, arrival.arrived + MOST_SETTLES * self.settle_s))
        return arrival.due <= now

    def _take_in(self, changes: set[tuple[int, str]]) -> None:
        """Queue what changed. Events come in no order: those of a moment are sorted by time of change."""
        vacated = {os.path.dirname(name) for change, name in changes if change == DELETED and not may_be_picture(name)}
        found: dict[str, os.stat_result] = {}
        came: set[str] = set()  # files by these names: new ones, or others than before
        for change, name in changes:
            if change == DELETED or not self._tree.reaches(name):
                continue
            path = self.root / name
            if change == ADDED:
                came.add(name)
            if (status := self._tree.picture(name)) is not None:
                found[name] = status
            elif change == ADDED and self._tree.enters(name) and path.is_dir() and not path.is_symlink():
                found.update(self._tree.walk(name))  # moved here as a whole: no events for what is in it
        for name, status in sorted(found.items(), key=lambda item: (item[1].st_mtime_ns, item[0])):
            renamed = not self.poll and name in came and os.path.dirname(name) in vacated
            self._offer(name, status, renamed=renamed)

    def _offer(self, name: str, status: os.stat_result, *, renamed: bool = False) -> None:
        if (waiting := self._queue.get(name)) is not None:
            if renamed:  # its inode may well be the number that the last file but one gave up
                waiting.see(status)
                waiting.is_replaced, waiting.due = True, self._now()
        elif not self.journal.knows(name, Content.of(status)):
            if self._more or len(self._queue) >= MOST_WAITING:
                self._more += 1  # behind those that are not in the queue yet
            else:
                self._put(name, status, renamed=renamed)

    def _put(self, name: str, status: os.stat_result, *, renamed: bool = False) -> None:
        """Append to the queue. What was renamed into place need not settle: it came as a hidden or temporary name went,
        or its times differ, because writing changes both at once and renaming the second alone.
        """
        now = self._now()
        due = now if renamed or self._was_renamed(status) else now + self.settle_s
        self._queue[name] = Arrival(name, Content.of(status), status.st_ino, now, due)

    def _was_renamed(self, status: os.stat_result) -> bool:
        """Whether a file's times say that it was; those of servers, which are polled, have ways of their own."""
        return not self.poll and os.name == "posix" and status.st_ctime_ns > status.st_mtime_ns

    def _scan(self) -> None:
        """Scan the whole folder; of what is new there, the oldest are queued."""
        began = self._now()
        count = 0

        def unknown() -> Iterator[tuple[int, str, os.stat_result]]:
            nonlocal count
            for name, status in self._tree.walk():
                if name not in self._queue and not self.journal.knows(name, Content.of(status)):
                    count += 1
                    yield status.st_mtime_ns, name, status

        self._events.lost = False
        oldest = heapq.nsmallest(MOST_WAITING - len(self._queue), unknown(), key=lambda found: found[:2])
        for _, name, status in oldest:
            self._put(name, status)
        self._more = count - len(oldest)
        self.journal.forget_absent()
        now = self._now()
        self._next_scan = now + max(self.scan_every_s, 10 * (now - began))

    def _complain(self, text: str) -> None:
        """Log a warning, but not at every look."""
        now = self._now()
        if text != self._complaint[0] or now - self._complaint[1] >= _REMINDER_S:
            self._complaint = (text, now)
            logger.warning("%s", text)
