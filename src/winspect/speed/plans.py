"""Subjects of a benchmark: plans by name, their combinations with engines and precisions, and pictures.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from winspect.errors import MissingExtraError, SettingsError


@dataclass(frozen=True)
class Plan:
    """One way from pictures to scores.

    Attributes:
        name: in results.
        recipe: of :data:`winspect.methods.winclip.recipes.RECIPES`.
        execution: the ``plan`` of :class:`winspect.WinCLIP`.
        maps: always with windows and full maps; otherwise image-level scores, unless maps are asked for.
    """

    name: str
    recipe: str
    execution: str
    maps: bool = False


PLANS: Mapping[str, Plan] = {
    "serial": Plan("serial", "tiles", "serial"),
    "tile-batch": Plan("tile-batch", "tiles", "tile-batch"),
    "prefetch": Plan("prefetch", "tiles", "prefetch"),
    "paper": Plan("paper", "paper", "auto", maps=True),
}
SERIAL = "serial"
OPENVINO = "openvino:"
"""Prefix of the names of OpenVINO's devices here, as in ``openvino:GPU``."""


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

    >>> [str(combination) for combination in combine(["serial"], ["torch"], ["fp32", "bf16"])]
    ['serial torch fp32', 'serial torch bf16']

    Raises:
        SettingsError: an unknown plan, or none of something.
    """
    asked = {"plans": list(plans), "engines": list(engines), "precisions": list(precisions)}
    for kind, names in asked.items():
        if not names:
            raise SettingsError(f"{kind}: got none, need at least one")
    check_names("plans", asked["plans"], list(PLANS))
    return list(dict.fromkeys(Combination(*names) for names in product(*asked.values())))


def check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        SettingsError: names the unknown ones and the known ones.
    """
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(f"{kind}: got {', '.join(map(repr, unknown))}, need some of {', '.join(known)}")


def packaged_pictures() -> list[Path]:
    """Real pictures of fabric that install as a package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    from winspect.datasets.packaged import open_textile

    try:
        return [item.path for item in open_textile().items]
    except MissingExtraError as error:
        raise MissingExtraError(
            f"got no pictures: name files or folders of your own, or use those of a package; {error}"
        ) from error
