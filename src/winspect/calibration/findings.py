"""Results of a calibration beside its scores: pictures left out, held out, and defective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from winspect.calibration.conformal import best_f1, chance_of_alarms, conformal_threshold
from winspect.calibration.judgement import verdict_of
from winspect.errors import SettingsError
from winspect.system.entries import entry

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Finding = TypeVar("Finding", bound="DataclassInstance")
LeftOutBecause = Literal["unreadable", "reference", "copy", "not aligned"]


@dataclass(frozen=True)
class LeftOut:
    """A picture that was given and not used.

    Attributes:
        because: ``unreadable``; ``reference``, which the model has seen; or ``copy`` of a picture that is used, which
            would count one part twice.
        message: the reason in words.
    """

    path: str
    because: LeftOutBecause
    message: str


@dataclass(frozen=True)
class HeldOut:
    """A check on further good pictures.

    Attributes:
        pictures: how many; ``alarms``: how many of them are flagged.
        chance: of as many alarms or more, if these pictures are like those calibrated on; 0 to 1, small is bad.
    """

    pictures: int
    alarms: int
    chance: float

    @classmethod
    def of(cls, scores: Sequence[float], good: Sequence[float], max_false_alarms: float) -> HeldOut:
        """Check a calibration.

        Args:
            scores: of the further good pictures.
            good: scores calibrated on, ascending.
        """
        alarms = _flagged(scores, conformal_threshold(good, max_false_alarms))
        chance = chance_of_alarms(alarms, len(scores), pictures=len(good), max_false_alarms=max_false_alarms)
        return cls(len(scores), alarms, chance)


@dataclass(frozen=True)
class Defective:
    """Results on labelled defective pictures.

    Attributes:
        pictures: how many; ``found``: how many of them the calibrated threshold flags.
        f1: the largest F1 of these and the good pictures, 0 to 1; ``f1_threshold``: where it is reached.
    """

    pictures: int
    found: int
    f1: float
    f1_threshold: float

    @classmethod
    def of(cls, scores: Sequence[float], good: Sequence[float], max_false_alarms: float) -> Defective:
        """Score a calibration on defective pictures; arguments as in :meth:`HeldOut.of`."""
        best = best_f1(good, scores)
        found = _flagged(scores, conformal_threshold(good, max_false_alarms))
        return cls(len(scores), found, best.f1, best.threshold)


def _flagged(scores: Sequence[float], threshold: float) -> int:
    return sum(verdict_of(score, threshold, anomalous_at=False) == "anomalous" for score in scores)


def read_finding(kind: Callable[..., Finding], document: object) -> Finding:
    """A finding as ``asdict`` wrote it.

    Raises:
        SettingsError: it has other entries, or one of another type.
    """
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if not (isinstance(document, dict) and {*document} == {*types}):
        raise SettingsError(f"got {document!r}, need {', '.join(types)}")
    values: dict[str, Any] = {
        name: entry(document, name, {"int": int, "float": float}.get(str(annotation), str))
        for name, annotation in types.items()
    }
    return kind(**values)
