"""How long batches take, and which size is worth it."""

from __future__ import annotations

import math

_GOOD_ENOUGH = 0.95  # of the best rate
_MEMORY = 0.95  # what each batch leaves of the weight of those before it: about twenty count
_SAME_SIZES = 0.01  # sizes vary too little when their variance is below this share of their squared mean
_DOUBT = 2.0  # standard errors
_FAR = 8  # engines may run a few pictures one by one, and gain only from more


class BatchTimes:
    """Seconds of a batch as a + b * size: least squares over the last batches, weighted exponentially.

    A straight line, because a table of sizes would need each of them tried again and again. The fixed part, which is
    what large batches save, is believed as far as it stands out of the noise: small ones answer sooner, and while one
    is judged the next can be prepared. When all recent batches had one size the line is not known, and neither is
    whether another would pay: another one is tried then.
    """

    def __init__(self) -> None:
        # Weighted sums of 1, size, seconds, size * size, size * seconds, seconds * seconds.
        self._sums = [0.0] * 6

    def add(self, size: int, seconds: float) -> None:
        """A batch was measured."""
        new = (1.0, size, seconds, size * size, size * seconds, seconds * seconds)
        self._sums = [_MEMORY * old + one for old, one in zip(self._sums, new, strict=True)]

    def line(self) -> tuple[float, float] | None:
        """(a, b), both at least 0; None when they are not known."""
        n, sizes, times, squares, products, time_squares = self._sums
        if not n:
            return None
        mean, seconds = sizes / n, times / n
        variance = squares / n - mean * mean
        if variance < _SAME_SIZES * mean * mean:
            return None
        slope = (products / n - mean * seconds) / variance
        noise = max(0.0, time_squares / n - seconds * seconds - slope * slope * variance)
        slope += _DOUBT * math.sqrt(noise / (n * variance))  # the standard error of a slope
        slope = min(max(slope, 0.0), seconds / mean)  # neither part can be negative
        return seconds - slope * mean, slope

    def seconds(self, size: int) -> float:
        """What a batch of this size may take; 0 before anything was measured."""
        _, sizes, times, *_ = self._sums
        if not sizes:
            return 0.0
        line = self.line()
        return times / sizes * size if line is None else line[0] + line[1] * size

    def best(self, most: int, within_s: float = math.inf, *, there: int = 1) -> int:
        """The smallest size whose rate is nearly the best one's, of 1 to ``most`` that take at most ``within_s``.

        Args:
            there: items that could go at once: while the line is not known, the size is one that can be tried.
        """
        while most > 1 and self.seconds(most) > within_s:
            most //= 2
        line = self.line()
        if line is None:
            return min(most, self._untried(there))
        fixed, each = line
        # size / (fixed + each * size) >= share, which is nearly the best rate, solved for size
        share = _GOOD_ENOUGH * most / (fixed + each * most) if fixed + each else 0.0
        return min(most, max(1, math.ceil(share * fixed / (1 - share * each) - 1e-9)))

    def _untried(self, there: int) -> int:
        """Another size than the recent ones: a much larger one where there is one, else a smaller one."""
        n, sizes, *_ = self._sums
        mean = round(sizes / n) if n else 1
        return _FAR * mean if there > mean else max(1, mean // 2)
