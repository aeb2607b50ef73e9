"""The line of status that a watch prints every so often: how much, how fast, how far behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from winspect.outputs.rows import Counts, count_of_warnings


class Status:
    """Counts rows, and gives a line every ``every_s`` seconds.

    Args:
        say: takes the line. every_s: 0 for never.
        now: seconds, as :func:`time.monotonic`.
    """

    def __init__(
        self, say: Callable[[str], None], *, every_s: float = 60.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = Counts()
        self._say, self._every_s, self._now = say, every_s, now
        self._began = self._last = now()
        self._rows_before = 0
        self._warned_in_a_row, self._warning = 0, ""  # the newest pictures with a warning, and the newest one's

    def count(self, row: dict[str, Any]) -> None:
        """Take a row into account."""
        self.counts.add(row)
        self._warning = row["warning"] or ""
        self._warned_in_a_row = self._warned_in_a_row + 1 if self._warning else 0

    def tick(self, behind: Callable[[], str]) -> None:
        """Give a line, if it is time.

        Args:
            behind: says in words how far behind the watch is; empty for not at all.
        """
        now = self._now()
        if self._every_s and now - self._last >= self._every_s:
            rate = (self.counts.rows - self._rows_before) / (now - self._last)
            self._last, self._rows_before = now, self.counts.rows
            self._say(f"{self._counted()}, {rate:.2f} pictures/s; {self._health(behind())}")

    def last_line(self) -> None:
        """Give the line of the end."""
        self._say(f"stopped after {self._now() - self._began:.0f} s: {self._counted()}")

    def _health(self, behind: str) -> str:
        troubles = [behind]
        if number := self._warned_in_a_row:
            pictures = "picture has" if number == 1 else f"{number} pictures have"
            troubles.append(f"NOT WELL: the last {pictures} a warning: {self._warning}")
        return "; ".join(filter(None, troubles)) or "up to date"

    def _counted(self) -> str:
        counts = self.counts
        words = f"{counts.rows} pictures inspected, {counts.anomalous} anomalous, {counts.failed} failed"
        return words + count_of_warnings(counts.warned)
