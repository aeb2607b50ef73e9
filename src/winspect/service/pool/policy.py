"""How many pictures go into a batch: as many as pay, by the time that batches have taken."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, linear_regression

_LAST = 40  # batches that count
_GOOD_ENOUGH = 0.95  # of the best rate: smaller batches answer sooner, and the next one is prepared meanwhile
_SAME_SIZES = 0.1  # sizes vary too little when their deviation is below this share of their mean
_DOUBT = 2.0  # standard errors
_FAR = 8  # engines may run a few pictures one by one, and gain only from more


class BatchTimes:
    """Seconds of a batch as ``fixed + each * size``: least squares over the last batches.

    A straight line, because a table of sizes would need each of them tried again and again. The fixed part, which is
    what large batches save, is believed as far as it stands out of the noise. When all recent batches had one size
    the line is not known, and another size is tried.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=_LAST)
        self._mean_size = self._mean_s = 0.0
        self._line: tuple[float, float] | None = None

    def add(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.append((size, seconds))
        sizes, times = zip(*self._batches, strict=True)
        self._mean_size, self._mean_s, self._line = fmean(sizes), fmean(times), None
        spread = math.sqrt(fmean((size - self._mean_size) ** 2 for size in sizes))
        if spread < _SAME_SIZES * self._mean_size:
            return
        each, fixed = linear_regression(sizes, times)
        noise = math.sqrt(fmean((time - fixed - each * size) ** 2 for size, time in self._batches))
        each += _DOUBT * noise / (spread * math.sqrt(len(sizes)))  # the standard error of a slope
        each = min(max(each, 0.0), self._mean_s / self._mean_size)  # neither part can be negative
        self._line = self._mean_s - each * self._mean_size, each

    def seconds(self, size: int) -> float:
        """What a batch of this size may take; 0 before anything was measured."""
        if self._line is None:
            return self._mean_s / self._mean_size * size if self._batches else 0.0
        return self._line[0] + self._line[1] * size

    def best(self, most: int, within_s: float = math.inf, *, there: int = 1) -> int:
        """The smallest size whose rate is nearly the best one's, of 1 to ``most`` that take at most ``within_s``.

        Args:
            there: items that could go at once: while the line is not known, the size is one that can be tried.
        """
        while most > 1 and self.seconds(most) > within_s:
            most //= 2
        if self._line is None:
            mean = max(1, round(self._mean_size))
            return min(most, _FAR * mean if there > mean else max(1, mean // 2))
        limit_s = self.seconds(most) / most / _GOOD_ENOUGH * (1 + 1e-9)
        return next(size for size in range(1, most + 1) if self.seconds(size) <= limit_s * size or size == most)
