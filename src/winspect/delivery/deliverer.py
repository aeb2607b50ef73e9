"""The one object through which a watch or a service delivers its rows. It never stops the line."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from winspect.delivery.channels import channel_of
from winspect.delivery.message import with_id
from winspect.delivery.pump import DeliveryStatus, Pump
from winspect.delivery.settings import DeliverySettings
from winspect.delivery.spool import SPOOL_FILE, Entry, Spool
from winspect.errors import OutputError
from winspect.system.files import make_folder

logger = logging.getLogger(__name__)

MOST_IN_MEMORY = 10_000
"""Rows of a service that are kept in memory while the spool cannot be written; above that the oldest are lost."""
DRAIN_S = 5.0
"""How long rows that wait are still delivered at the end."""
_AGAIN_S = 1.0  # between attempts to write to a spool that could not be written
_CAUGHT_UP = 1_000
_REMINDER_S = 60.0


class ResultsFiles(Protocol):
    """The results files of a watch. A position is the name of a file, and a number of its bytes."""

    def ends(self) -> Iterable[tuple[str, int]]:
        """The position at which each file ends."""

    def behind(self, known: dict[str, int]) -> Iterable[tuple[Mapping[str, Any], tuple[str, int]]]:
        """The rows behind what has been read of each file, and the positions at which they end."""


class Deliverer:
    """Takes rows, and delivers them from threads of its own. Use it in a with-block.

    Args:
        deliveries: where rows go.
        folder: of the spool, and of the files of refused rows; made when it is not there.
        results: the results files, which have the rows that could not be spooled and those of a run that was killed;
            None where there are none, as in a service.

    Attributes:
        unspooled: rows that could not be put into the spool and wait to be. lost: those that were given up.

    Raises:
        OutputError: the spool cannot be opened.
        MissingExtraError, SettingsError: a delivery needs an extra, a file or a secret that is not there.
    """

    def __init__(
        self, deliveries: Sequence[DeliverySettings], folder: Path, *, results: ResultsFiles | None = None
    ) -> None:
        self.folder, self._settings, self._results = folder, tuple(deliveries), results
        self._channels = [channel_of(settings) for settings in self._settings]
        self._lock = threading.Lock()
        self._kept: deque[Mapping[str, Any]] = deque(maxlen=MOST_IN_MEMORY)
        self._caught_up: deque[str] = deque(maxlen=_CAUGHT_UP)
        self._trouble, self._since, self._reminded, self._tried = "", 0.0, 0.0, 0.0
        self._pumps: list[Pump] = []
        self.unspooled = self.lost = 0

    def __enter__(self) -> Deliverer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the spool, and begin to deliver; errors as of the class."""
        path = make_folder(self.folder) / SPOOL_FILE
        begin_at = self._results.ends() if self._results is not None else ()
        with ExitStack() as entered:
            self._spool = Spool(path, self._settings, synced=self._results is None, begin_at=begin_at)
            entered.callback(self._spool.close)
            if self._results is not None and not self._put(self._left_out()):
                raise OutputError(f"{path}: cannot be written ({self._trouble}); free some space")
            self._pumps = [
                Pump(settings, channel, self._spool, look_round=self._catch_up)
                for settings, channel in zip(self._settings, self._channels, strict=True)
            ]
            self._entered = entered.pop_all()
        for pump in self._pumps:
            pump.start()

    def close(self) -> None:
        """Deliver what can be delivered in a few seconds, and end; the rest waits for the next start."""
        with self._entered:
            self._catch_up()
            for pump in self._pumps:
                pump.end_soon()
            for pump in self._pumps:
                if left := pump.end(wait_s=DRAIN_S):
                    logger.warning("%s: %d rows wait for the next start", pump.settings.name, left)
            if self._kept:
                logger.warning("%s: cannot be written; %d rows lost", self._spool.path, len(self._kept))

    def take(self, row: Mapping[str, Any], position: tuple[str, int] | None = None) -> None:
        """Take a row that is on the disk, or answered. Raises nothing: what cannot be done now is done later.

        Args:
            position: the results file of the row, and the byte at which it ends; None where it is in none.
        """
        row = with_id(row)
        with self._lock:
            if self._trouble or (row["id"] not in self._caught_up and not self._put([(row, position)])):
                self._keep(row)
        if self._trouble and time.monotonic() - self._tried >= _AGAIN_S:
            self._catch_up()
        for pump in self._pumps:
            pump.news.set()

    def status(self) -> list[DeliveryStatus]:
        """Where each delivery stands."""
        return [pump.status() for pump in self._pumps]

    def behind_in_words(self) -> str:
        """What is not well; empty for nothing."""
        words = [str(status) for status in self.status()]
        if self._trouble:
            words.append(f"{self.unspooled} rows wait to be spooled: {self._trouble}")
        if self.lost:
            words.append(f"{self.lost} rows lost")
        return "; ".join(filter(None, words))

    def _keep(self, row: Mapping[str, Any]) -> None:
        """Remember a row that cannot be spooled: the results files have it, or else the memory."""
        self.unspooled += 1
        if self._results is None:
            if len(self._kept) == MOST_IN_MEMORY:
                self.lost += 1
                self.unspooled -= 1
            self._kept.append(row)

    def _put(self, entries: Iterable[Entry]) -> bool:
        """Store rows; False, with the trouble noted, where that fails."""
        try:
            self._spool.put(entries)
        except (sqlite3.Error, OSError, OutputError) as error:
            now = time.monotonic()
            if not self._trouble:
                self._since = self._reminded = now
            if not self._trouble or now - self._reminded >= _REMINDER_S:
                self._reminded = now
                logger.warning("%s: cannot be written (%s); rows are delivered later", self._spool.path, error)
            self._trouble = str(error) or type(error).__name__
            return False
        return True

    def _catch_up(self) -> None:
        """Put into the spool what could not be put there before, if that can be done now."""
        with self._lock:
            self._tried = time.monotonic()
            if not self._trouble or not self._put(self._left_out()):
                return
            logger.warning("%s: written after %.0f s", self._spool.path, time.monotonic() - self._since)
            self._kept.clear()
            self._trouble, self.unspooled = "", 0
        for pump in self._pumps:
            pump.news.set()

    def _left_out(self) -> Iterable[Entry]:
        if self._results is None:
            return [(row, None) for row in self._kept]
        return self._read_behind(self._results, self._spool.read_up_to())

    def _read_behind(self, results: ResultsFiles, known: dict[str, int]) -> Iterable[Entry]:
        for row, position in results.behind(known):
            entry = with_id(row)
            self._caught_up.append(entry["id"])
            yield entry, position
