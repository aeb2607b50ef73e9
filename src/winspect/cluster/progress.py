"""What people see of a run: a bar on a terminal, a line a minute elsewhere; and what each stage took."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from winspect.system.terminal import say

_EVERY_S = 60.0


class Progress:
    """Pictures per second, done, failed, and the time left, on stderr. Use it in a with-block.

    Args:
        total: inputs; ``done``: those that an earlier run did; ``failed``: how many of these failed.
        shown: False for silence.
    """

    def __init__(self, total: int, *, done: int = 0, failed: int = 0, shown: bool = True) -> None:
        self.total, self.done, self.failed, self.shown = total, done, failed, shown
        self._first, self._began, self._said = done, time.monotonic(), time.monotonic()
        is_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, unit="picture", file=sys.stderr, disable=not is_terminal, smoothing=0.05
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, done: int, failed: int) -> None:
        """So many more pictures, and how many of them failed."""
        self.done += done
        self.failed += failed
        self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update(done)
        if self.shown and self._bar.disable and time.monotonic() - self._said >= _EVERY_S:
            self._said = time.monotonic()
            say(self.line())

    def line(self) -> str:
        """How far it is, in words."""
        seconds = time.monotonic() - self._began
        rate = (self.done - self._first) / seconds if seconds else 0.0
        left = f", {duration((self.total - self.done) / rate)} left" if rate else ""
        return f"{self.done:,} of {self.total:,} pictures, {rate:.1f} pictures/s, {self.failed:,} failed{left}"


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


@dataclass
class Stages:
    """The seconds each stage worked, and where. What a stage did twice, after a failure, counts once."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("decode", "judge", "paint", "write"), 0.0))
    workers: dict[str, set[str]] = field(default_factory=lambda: {"decode": set(), "judge": set(), "paint": set()})
    rows: int = 0

    def add(self, table: pa.Table, write_s: float) -> None:
        """Rows of :data:`winspect.cluster.stages.JUDGED`, and the seconds it took to write them."""
        self.rows += len(table)
        self.seconds["write"] += write_s
        for stage, worker in (("decode", "decoder"), ("judge", "judge"), ("paint", "painter")):
            self.seconds[stage] += pc.sum(table[f"{stage}_s"]).as_py() or 0.0
            self.workers[stage].update(pc.unique(table[worker].drop_null()).to_pylist())

    def summary(self, wall_s: float, decoders: int) -> dict[str, Any]:
        """Each stage's seconds, milliseconds per picture, processes, and how busy these were; and the busiest stage.

        Args:
            wall_s: of the whole pipeline.
            decoders: at most so many processes decode, or paint, at once.
        """
        told: dict[str, Any] = {}
        for stage, seconds in self.seconds.items():
            if not seconds:
                continue
            processes = len(self.workers.get(stage, ())) or 1
            if stage in ("decode", "paint"):
                processes = min(processes, decoders)
            told[stage] = {
                "seconds": round(seconds, 2),
                "ms_per_picture": round(1000 * seconds / max(1, self.rows), 3),
                "processes": processes,
                "busy": round(min(1.0, seconds / (processes * wall_s)), 3) if wall_s else None,
            }
        slowest = max(told, key=lambda stage: told[stage]["busy"] or 0, default=None)
        return {"stages": told, "slowest_stage": slowest}
