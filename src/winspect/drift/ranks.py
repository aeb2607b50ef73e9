"""Online conformal p-values: where a value stands among all before it (Vovk, Nouretdinov and Gammerman, Testing
Exchangeability On-Line, ICML 2003).

The p-values of exchangeable values are independent and uniform on 0 to 1, whatever the distribution. Two short cuts
would not do. Against a *fixed* set of values they are not independent given that set: its own deviation from the
distribution is found out in the end, and without any drift. Against the *newest* values they are not independent
either: a value that is dropped has been seen before. So ranks are taken among all values since :class:`OnlineRanks`
was made. What bounds its memory is to begin with an empty one after a number of pictures fixed before: p-values of one
say nothing of those of the next.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

import numpy as np

_RECENT = 1000
_PARTS = 2**32


class OnlineRanks:
    """All values so far, in order.

    Most lie in a sorted array, the newest in a short sorted list that is merged into it when it is full: a value costs
    two binary searches and, in the mean, the copying of a few hundred numbers. Eight bytes a value.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._sorted = np.sort(np.fromiter(values, np.float64))
        self._recent: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def p_value(self, value: float, tie: float) -> float:
        """The share of values, this one included, that are larger; of equal ones the part ``tie`` counts.

        Args:
            value: a number, not added yet.
            tie: random, uniform between 0 and 1, without its ends.

        Returns:
            Between 0 and 1, without its ends; small for a large value.
        """
        below = int(np.searchsorted(self._sorted, value, "left")) + bisect_left(self._recent, value)
        up_to = int(np.searchsorted(self._sorted, value, "right")) + bisect_right(self._recent, value)
        return (len(self) - up_to + tie * (up_to - below + 1)) / (len(self) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        insort(self._recent, value)
        if len(self._recent) >= _RECENT:
            recent = np.array(self._recent)
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent = []


def tie_breaker(*key: object) -> float:
    """A number between 0 and 1, without its ends, that looks random and is the same for the same key.

    It is the middle of one of 2**32 equal parts of the interval: the mean of a convex function over the middles is at
    most its integral, so that a bet on a p-value wins nothing by the rounding.
    """
    text = "/".join(map(str, key)).encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")
    return (number + 0.5) / _PARTS
