"""Bets against the uniformity of p-values. What they win is evidence of a change, and Ville's inequality bounds it.

A bet multiplies its capital by ``k * p**(k - 1)`` (the power martingale of Vovk, Nouretdinov and Gammerman, ICML 2003),
or by the same of ``1 - p``: its mean over a uniform p is 1. The capital that begins as 1 is divided: over the bets, and
over the moments at which a bet may begin, for a line that has run for months must still hear of a change at once. At
step n the share ``c(n) - c(n + 1)``, ``c(n) = 1 / (1 + log n)``, is put on the bets; what is not put on them yet is
kept, and counts. (That is a mixture over change points, as in Shiryaev's and Roberts' procedures; the division by a
slowly falling function costs log n + 2 log log n of the logarithm of the capital after n steps, where a capital that
bets all the time loses in proportion to n.) A mixture of martingales of the same p-values is one, so that
(J. Ville, Étude critique de la notion de collectif, 1939)

    P(the capital ever reaches 1 / rate) <= rate.

*Since when*: a bet's logarithm is summed up; where the sum was last at its minimum, the bet began to win (E. S. Page,
Continuous Inspection Schemes, Biometrika 41, 1954).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

POWERS = (0.2, 0.5, 0.8)
"""k of the bets: 0.2 wins most where a value beats all before it, 0.8 where the middle has moved a little."""
RISING, FALLING = "rising", "falling"


class Bet(NamedTuple):
    """A bet.

    Attributes:
        log_capital: natural logarithm of the capital that it has.
        gain: sum of the logarithms of its factors since it was last at its minimum; 0 there.
        since: number of the first picture after that minimum; None at the minimum.
    """

    log_capital: float = -math.inf
    gain: float = 0.0
    since: int | None = None

    def after(self, share: float, log_factor: float, number: int) -> Bet:
        """The bet after a step, for which it gets a further share of the capital."""
        more, less = max(self.log_capital, share), min(self.log_capital, share)
        capital = more + math.log1p(math.exp(less - more)) + log_factor
        gain = self.gain + log_factor
        if gain <= 0:
            return Bet(capital)
        return Bet(capital, gain, number if self.since is None else self.since)


KINDS = tuple((direction, power) for direction in (RISING, FALLING) for power in POWERS)
"""Of the bets, in order."""


@dataclass(frozen=True)
class Martingale:
    """The capital after some steps; a step makes a new one.

    Attributes:
        steps: p-values so far.
        bets: one for each of :data:`KINDS`.
    """

    steps: int = 0
    bets: tuple[Bet, ...] = (Bet(),) * len(KINDS)

    def after(self, p_value: float, number: int) -> Martingale:
        """The martingale after one more p-value.

        Args:
            p_value: between 0 and 1, without its ends; small for a value larger than those before.
            number: of the picture.
        """
        step = self.steps + 1
        share = _log_put(step) - math.log(len(KINDS))
        logs = {RISING: math.log(p_value), FALLING: math.log1p(-p_value)}
        bets = (
            bet.after(share, math.log(power) + (power - 1) * logs[direction], number)
            for bet, (direction, power) in zip(self.bets, KINDS, strict=True)
        )
        return Martingale(step, tuple(bets))

    @property
    def log_capital(self) -> float:
        """Natural logarithm of the whole capital; 0 at the beginning."""
        kept = -math.log1p(math.log(self.steps + 1))
        return _log_sum(kept, *(bet.log_capital for bet in self.bets))

    @property
    def winner(self) -> tuple[str, Bet]:
        """The bet that has most, with its direction: :data:`RISING` or :data:`FALLING`."""
        place = max(range(len(KINDS)), key=lambda place: self.bets[place].log_capital)
        return KINDS[place][0], self.bets[place]

    def document(self) -> dict[str, Any]:
        """The JSON form, from which it can be read back exactly."""
        return {"steps": self.steps, "bets": [list(bet) for bet in self.bets]}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Martingale:
        """The martingale of a :meth:`document`."""
        return cls(document["steps"], tuple(Bet(*bet) for bet in document["bets"]))


def _log_put(step: int) -> float:
    """Logarithm of c(n) - c(n + 1), without the cancellation."""
    now, later = 1 + math.log(step), 1 + math.log(step + 1)
    return math.log(math.log1p(1 / step) / (now * later))


def _log_sum(*logs: float) -> float:
    """Logarithm of a sum of numbers, by their logarithms; one of them is finite."""
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(log - highest) for log in logs))
