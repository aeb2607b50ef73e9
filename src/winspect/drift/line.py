"""The statistics of a line together: a step for each picture, and the alarm.

Each statistic has a martingale, and the alarm is given when one of K reaches K / rate: then the probability of a false
alarm is at most rate, however the statistics depend on each other. (Their mean at 1 / rate would not do. Each is a
martingale of its *own* p-values; what the others have shown can tell more of the past than those, and a mean over
different pasts is no martingale: Choe and Ramdas, Combining Evidence Across Filtrations, arXiv 2402.09698.)

Scores are those of pictures called normal alone, so that a run of defective parts is no drift. That keeps
exchangeability: of exchangeable pictures, those with a score up to a threshold fixed before are exchangeable, too,
whichever places they have. Statistics are those of all pictures: a camera that was pushed so far that nothing is called
normal any more must be heard of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from winspect.drift.martingale import Martingale
from winspect.drift.ranks import OnlineRanks, tie_breaker
from winspect.drift.settings import SCORE, DriftSettings

MOST_VALUES = 250_000
"""Pictures after which ranks begin anew; the martingales go on. Exact, see :mod:`winspect.drift.ranks`."""


def values_of(row: Mapping[str, Any], statistics: Mapping[str, float] | None) -> dict[str, float]:
    """What a picture gives to watch: its statistics, and its score where it is called normal, or nothing is.

    Args:
        row: as ``predictions.jsonl`` has it.
        statistics: as :func:`winspect.pictures.statistics.picture_statistics` has them; None for none.
    """
    if row["error"] is not None:
        return {}
    score = {SCORE: row["anomaly_score"]} if row["verdict"] in (None, "normal") else {}
    return {**(statistics or {}), **score}


@dataclass(frozen=True)
class Crossing:
    """A statistic that has reached the bound.

    Attributes:
        statistic: its name. ``direction``: ``rising`` or ``falling``.
        number: of the picture at which it did. ``since``: of the first picture of the change, estimated.
    """

    statistic: str
    direction: str
    number: int
    since: int


@dataclass(frozen=True)
class LineState:
    """A line after some pictures.

    Attributes:
        life: number of the line's life; the first is 1.
        pictures: of this life.
        martingales: by statistic.
        crossing: the first; None while there is none.
    """

    life: int
    pictures: int
    martingales: Mapping[str, Martingale]
    crossing: Crossing | None = None

    @classmethod
    def new(cls, settings: DriftSettings, life: int = 1) -> LineState:
        """A line without pictures."""
        return cls(life, 0, dict.fromkeys(settings.statistics, Martingale()))


@dataclass
class Line:
    """A line: its state, and the ranks of its values, which are in memory alone.

    Args:
        key: name of the line, and all else that keeps its random numbers apart from those of other lines.
    """

    key: str
    settings: DriftSettings
    state: LineState
    most_values: int = MOST_VALUES
    ranks: dict[str, OnlineRanks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.settings.statistics:
            self.ranks.setdefault(name, OnlineRanks())

    @property
    def first_ranked(self) -> int:
        """Number of the first picture whose values are among the ranks, if it came."""
        return max(self.state.pictures - 1, 0) // self.most_values * self.most_values + 1

    def after(self, values: Mapping[str, float]) -> LineState:
        """The state after one more picture; nothing changes until :meth:`accept`."""
        number = self.state.pictures + 1
        martingales = dict(self.state.martingales)
        crossing = self.state.crossing
        for name in self._watched(values):
            ranks = OnlineRanks() if self.begins_anew(number) else self.ranks[name]
            tie = tie_breaker(self.settings.seed, self.key, self.state.life, name, number)
            martingales[name] = martingales[name].after(ranks.p_value(values[name], tie), number)
            if crossing is None and martingales[name].log_capital >= self.settings.log_bound:
                direction, bet = martingales[name].winner
                crossing = Crossing(name, direction, number, bet.since or number)
        return replace(self.state, pictures=number, martingales=martingales, crossing=crossing)

    def accept(self, state: LineState, values: Mapping[str, float]) -> None:
        """Make the state after a picture, see :meth:`after`, the line's."""
        if self.begins_anew(state.pictures):
            self.ranks = {name: OnlineRanks() for name in self.ranks}
        for name in self._watched(values):
            self.ranks[name].add(values[name])
        self.state = state

    def _watched(self, values: Mapping[str, float]) -> Iterable[str]:
        return (name for name in self.settings.statistics if name in values)

    def begins_anew(self, number: int) -> bool:
        """Whether the ranks are emptied before a picture."""
        return number > 1 and number % self.most_values == 1
