"""What the system tells of a folder, for as long as the folder is there."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from winspect.system.installation import need
from winspect.watch.tree import below

logger = logging.getLogger(__name__)

TICK_S = 0.1
"""How long to wait for events at a time."""
_REMINDER_S = 60.0
ADDED, DELETED = 1, 3  # as watchfiles.Change has them


def need_watchfiles() -> None:
    """Check that watchfiles is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    need("watchfiles", "watch", job="watching a folder")


class FolderEvents:
    """Changes below a folder, which may vanish and come back: a network share, another folder by the same name.

    Args:
        poll: compare listings every second instead of asking the system.
        stop: ends waiting.

    Attributes:
        lost: changes may have been missed since this was last set to False: look through the folder.
    """

    def __init__(self, root: Path, *, recursive: bool, poll: bool, stop: threading.Event) -> None:
        need_watchfiles()
        self.root, self.recursive, self.poll, self.stop = root, recursive, poll, stop
        self.lost = True
        self._changes: Generator[Any, None, None] | None = None
        self._real = ""
        self._identity: tuple[int, int] | None = None
        self._away_since = self._said_away = 0.0

    def close(self) -> None:
        """Stop listening; what happens from now on is missed."""
        changes, self._changes = self._changes, None
        self.lost = True
        if changes is not None:
            changes.close()

    def wait(self) -> set[tuple[int, str]]:
        """What changed, in no order: a ``watchfiles.Change`` and a name below the folder. Waits a moment where nothing
        has changed.

        Raises:
            OSError: the folder cannot be watched now.
        """
        try:
            if self._changes is None:
                self._real = os.path.realpath(self.root)  # names in events begin with it
                changes = self._first(poll=self.poll)
                self.lost = True  # what came before there were events
            else:
                changes = next(self._changes, set())
        except RuntimeError as error:  # watchfiles found something it cannot say, such as a name that is no UTF-8
            raise OSError(0, f"the system's events cannot be read: {error}") from error
        return {(int(change), name) for change, path in changes if (name := below(self._real, path))}

    def is_there(self) -> bool:
        """Whether the folder can be looked at; says when it vanishes, and when it is back."""
        identity = self._look()
        now = time.monotonic()
        if identity is None:
            self._away_since = self._away_since or now
            if not self._said_away or now - self._said_away >= _REMINDER_S:
                self._said_away = now
                logger.warning("%s: the folder is not there (unmounted?); waiting for it to come back", self.root)
            self.close()
            return False
        if self._away_since:
            logger.warning("%s: the folder is back after %.0f s", self.root, now - self._away_since)
            self._away_since = self._said_away = 0.0
        if identity != self._identity:
            self._identity = identity
            self.close()  # another folder by the same name: listen to that one
        return True

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.root)
            if not stat.S_ISDIR(status.st_mode):
                return None
            # Where a share was mounted and is no more, an empty folder of the disk below comes to light.
            if self._identity and status.st_dev != self._identity[0] and not os.listdir(self.root):
                return None
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _first(self, *, poll: bool) -> set[Any]:
        """Begin to listen; where the system cannot send events, to compare listings."""
        import watchfiles

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # else -v logs a line per event
        try:
            self._changes = changes = watchfiles.watch(
                self._real,
                watch_filter=None,
                debounce=100,
                step=50,
                stop_event=self.stop,
                rust_timeout=round(1000 * TICK_S),
                yield_on_timeout=True,
                force_polling=poll or None,
                poll_delay_ms=1000,
                recursive=self.recursive,
                ignore_permission_denied=True,
            )
            return next(changes, set())
        except OSError as error:
            if poll or self._look() is None:
                self.close()
                raise
            logger.warning("%s: the system sends no events (%s); comparing listings instead", self.root, error)
            return self._first(poll=True)
