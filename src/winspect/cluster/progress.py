"""What people see of a run: a bar on a terminal, a line a minute elsewhere; and what each stage took."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from winspect.system.terminal import say

_EVERY_S = 60.0


class Progress:
    """Pictures per second, done, failed, and the time left, on stderr. Use it in a with-block.

    Args:
        total: inputs; ``done``: those that an earlier run did; ``failed``: how many of these failed.
        visible: False for silence.
    """

    def __init__(self, total: int, *, done: int = 0, failed: int = 0, visible: bool = True) -> None:
        self.total, self.done, self.failed = total, done, failed
        self._first, self._under_way = done, 0
        self._began = self._printed_at = time.monotonic()
        is_terminal = visible and sys.stderr.isatty()
        self._has_lines = visible and not is_terminal
        self._bar = tqdm(
            total=total, initial=done, unit="picture", file=sys.stderr, disable=not is_terminal, smoothing=0.05
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, done: int, failed: int) -> None:
        """Count finished pictures, and how many of them failed."""
        self.done += done
        self.failed += failed
        self.show(0)

    def show(self, under_way: int) -> None:
        """Show how far it is, with the pictures that are scored but not in a finished shard yet."""
        self._under_way = under_way
        self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update(self.done + under_way - self._bar.n)
        if self._has_lines and time.monotonic() - self._printed_at >= _EVERY_S:
            self._printed_at = time.monotonic()
            say(self.line())

    def line(self) -> str:
        """How far it is, in words."""
        seconds, done = time.monotonic() - self._began, self.done + self._under_way
        rate = (done - self._first) / seconds if seconds else 0.0
        left = f", {duration((self.total - done) / rate)} left" if rate else ""
        return f"{done:,} of {self.total:,} pictures, {rate:.1f} pictures/s, {self.failed:,} failed{left}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the first two that matter.

    >>> duration(7), duration(75.4), duration(3 * 3600 + 25 * 60)
    ('7 s', '1 min 15 s', '3 h 25 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stages_of(spent_s: Mapping[str, float], *, rows: int, workers: int, wall_s: float) -> dict[str, Any]:
    """Each stage's seconds, milliseconds per picture, processes, and how busy these were; and the busiest stage.

    Args:
        spent_s: of ``judge`` and ``paint``, in all workers together, and of ``write``, in the driver. Decoding is part
            of judging: its threads work beside.
        rows: that were scored; ``wall_s``: of the whole run.
    """
    stages: dict[str, Any] = {}
    for stage, seconds in spent_s.items():
        processes = 1 if stage == "write" else workers
        if seconds:
            stages[stage] = {
                "seconds": round(seconds, 2),
                "ms_per_picture": round(1000 * seconds / max(1, rows), 3),
                "processes": processes,
                "busy": round(min(1.0, seconds / (processes * wall_s)), 3) if wall_s else None,
            }
    slowest = max(stages, key=lambda stage: stages[stage]["busy"] or 0, default=None)
    return {"stages": stages, "slowest_stage": slowest}
