"""Execution plans by name, and their combinations with engines and precisions. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from winspect.errors import SettingsError


@dataclass(frozen=True)
class Plan:
    """One way from pictures to scores.

    Attributes:
        name: what it is called in results.
        recipe: of :data:`winspect.methods.winclip.recipes.RECIPES`.
        execution: the ``plan`` of :class:`winspect.WinCLIP`.
        maps: always with windows and full maps; otherwise image-level scores, unless maps are asked for.
    """

    name: str
    recipe: str
    execution: str
    maps: bool = False


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan("serial", "tiles", "serial"),
            Plan("tile-batch", "tiles", "tile-batch"),
            Plan("prefetch", "tiles", "prefetch"),
            Plan("paper", "paper", "auto", maps=True),
        )
    }
)
SERIAL = "serial"
OPENVINO = "openvino:"
"""What OpenVINO's own names of devices begin with here, as in ``openvino:GPU``."""


@dataclass(frozen=True)
class Combination:
    """What one worker measures. ``engine`` and ``precision`` are as asked for: ``auto`` is the library's choice."""

    plan: str
    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.plan} {self.engine} {self.precision}"


def combine(plans: Iterable[str], engines: Iterable[str], precisions: Iterable[str]) -> list[Combination]:
    """Every plan with every engine in every precision, each once, in the order given.

    >>> [str(own) for own in combine(["serial"], ["torch"], ["fp32", "bf16"])]
    ['serial torch fp32', 'serial torch bf16']

    Raises:
        SettingsError: an unknown plan, or none of something.
    """
    asked = {"plans": list(plans), "engines": list(engines), "precisions": list(precisions)}
    for what, names in asked.items():
        if not names:
            raise SettingsError(f"{what}: got none, need at least one")
    check_names("plans", asked["plans"], list(PLANS))
    every = [Combination(p, e, q) for p in asked["plans"] for e in asked["engines"] for q in asked["precisions"]]
    return list(dict.fromkeys(every))


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        SettingsError: names the unknown ones and the known ones.
    """
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(f"{what}: got {', '.join(map(repr, unknown))}, need some of {', '.join(known)}")


def rotated(combinations: Sequence[Combination], number: int) -> list[Combination]:
    """The order of a round: each begins with another combination, so that none always follows the same one.

    >>> rotated([1, 2, 3], 4)
    [2, 3, 1]
    """
    start = number % len(combinations) if combinations else 0
    return [*combinations[start:], *combinations[:start]]
