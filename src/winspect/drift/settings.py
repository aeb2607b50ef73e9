"""Settings of the drift alarm: a product's section ``[drift]``, and the option ``--drift RATE``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from winspect.errors import SettingsError
from winspect.pictures.statistics import STATISTICS

SCORE = "score"
WATCHED = (SCORE, *STATISTICS)
"""All that can be watched: the anomaly score of pictures called normal, and statistics of every picture."""
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class DriftSettings:
    """What the drift alarm watches, and how rarely it may be wrong.

    Attributes:
        rate: probability of a false alarm over the whole life of the line, above 0 and below 1: without drift, at most
            this share of lines ever gives an alarm, however long they run.
        statistics: what is watched, of :data:`WATCHED`. Each is given an equal share of the rate.
        seed: of the random numbers that order equal values.

    Raises:
        SettingsError: a value out of range.
    """

    rate: float = 0.01
    statistics: tuple[str, ...] = WATCHED
    seed: int = 0

    def __post_init__(self) -> None:
        is_number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        if not (is_number and 0 < self.rate < 1):
            raise SettingsError(
                f"rate: got {self.rate!r}, need a probability above 0 and below 1; use 0.01 for one false alarm in a "
                "hundred lives of the line"
            )
        names = self.statistics
        is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if not (is_list and names and len(set(names)) == len(names) and set(names) <= set(WATCHED)):
            raise SettingsError(f"statistics: got {names!r}, need different names of {', '.join(WATCHED)}")
        object.__setattr__(self, "statistics", tuple(names))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed <= _LARGEST_SEED:
            raise SettingsError(f"seed: got {self.seed!r}, need a whole number, 0 to {_LARGEST_SEED}")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> DriftSettings:
        """Settings from a document, as :meth:`document` makes it; what is not there keeps its default.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        if not isinstance(document, Mapping):
            raise SettingsError(f"drift: got {document!r}, need a table with the keys {_known()}")
        for name in document:
            if name not in {field.name for field in fields(cls)}:
                raise SettingsError(f"drift: got the key {name!r}, known are {_known()}; correct it, or leave it out")
        try:
            return cls(**document)
        except SettingsError as error:
            raise SettingsError(f"drift: {error}") from error

    @property
    def log_bound(self) -> float:
        """Natural logarithm of the capital at which the martingale of a statistic gives the alarm."""
        return math.log(len(self.statistics) / self.rate)

    def document(self) -> dict[str, Any]:
        """The JSON and TOML form."""
        return {"rate": self.rate, "statistics": list(self.statistics), "seed": self.seed}


def _known() -> str:
    return ", ".join(field.name for field in fields(DriftSettings))
