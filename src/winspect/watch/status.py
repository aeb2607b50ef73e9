"""What a watch says of itself, every so often: how much, how fast, how far behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from winspect.outputs.rows import count_of_warnings


class Status:
    """Counts, and says a line every ``every_s`` seconds.

    Args:
        say: takes the line. every_s: 0 for never.
        behind: says in words how far behind the watch is; empty for not at all.
        now: seconds, as :func:`time.monotonic`.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        every_s: float = 60.0,
        behind: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.judged = self.anomalous = self.failed = self.warned = 0
        self._say, self._every_s, self._behind, self._now = say, every_s, behind, now
        self._began = self._last = now()
        self._judged_before = 0
        self._warned_in_a_row, self._warning = 0, ""  # the newest pictures with a warning, and the newest one's

    def count(self, row: dict[str, Any]) -> None:
        """Take a row into account."""
        self.judged += 1
        self.failed += row["error"] is not None
        self.warned += row["warning"] is not None
        self._warning = row["warning"] or ""
        self._warned_in_a_row = self._warned_in_a_row + 1 if self._warning else 0
        self.anomalous += row["verdict"] == "anomalous"

    def tick(self) -> None:
        """Say a line, if it is time."""
        now = self._now()
        if self._every_s and now - self._last >= self._every_s:
            rate = (self.judged - self._judged_before) / (now - self._last)
            self._last, self._judged_before = now, self.judged
            self._say(f"{self._counts()}, {rate:.2f} pictures/s; {self._health()}")

    def last_line(self) -> None:
        """Say the line of the end."""
        self._say(f"stopped after {self._now() - self._began:.0f} s: {self._counts()}")

    def _health(self) -> str:
        troubles = [self._behind()]
        if number := self._warned_in_a_row:
            pictures = "picture has" if number == 1 else f"{number} pictures have"
            troubles.append(f"NOT WELL: the last {pictures} a warning: {self._warning}")
        return "; ".join(filter(None, troubles)) or "up to date"

    def _counts(self) -> str:
        counts = f"{self.judged} pictures judged, {self.anomalous} anomalous, {self.failed} failed"
        return counts + count_of_warnings(self.warned)
