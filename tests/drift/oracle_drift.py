"""Slow twins of the drift alarm, from the definitions: every p-value counted, every start of every bet by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

POWERS = (0.2, 0.5, 0.8)


def p_values(values: Sequence[float], ties: Sequence[float]) -> list[float]:
    """Smoothed online conformal p-values: (#{larger} + tie * #{equal}) / n, among the first n."""
    found = []
    for n in range(1, len(values) + 1):
        newest = values[n - 1]
        larger = sum(value > newest for value in values[:n])
        equal = sum(value == newest for value in values[:n])
        found.append((larger + ties[n - 1] * equal) / n)
    return found


def fixed_reference_p_values(values: Sequence[float], ties: Sequence[float], size: int) -> list[float]:
    """What must not be used: ranks among the first ``size`` values only, for ever."""
    first = values[:size]
    return [
        (sum(other > value for other in first) + tie * (1 + sum(other == value for other in first))) / (size + 1)
        for value, tie in zip(values[size:], ties[size:], strict=True)
    ]


def kept(n: int) -> float:
    """Capital that is on no bet before step n."""
    return 1 / (1 + math.log(n))


def capital(p: Sequence[float]) -> float:
    """Capital after all steps: what is kept, and what was put on each of six bets at each step."""
    total = [kept(len(p) + 1)]
    for start in range(1, len(p) + 1):
        share = (kept(start) - kept(start + 1)) / 6
        for power in POWERS:
            for turned in (False, True):
                factors = [power * (1 - each if turned else each) ** (power - 1) for each in p[start - 1 :]]
                total.append(share * math.prod(factors))
    return math.fsum(total)


def since(p: Sequence[float], power: float, turned: bool) -> int:
    """The step after which the sum of a bet's logarithms was last at its minimum, from 1."""
    sums = [0.0]
    for each in p:
        sums.append(sums[-1] + math.log(power * (1 - each if turned else each) ** (power - 1)))
    lowest = min(sums)
    return max(step for step, total in enumerate(sums) if total == lowest) + 1
