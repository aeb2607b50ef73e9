"""What a caller may ask of an engine: one value, made once, passed whole. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from winspect.errors import SettingsError

PLANS = ("auto", "serial", "tile-batch", "prefetch")
GATES = ("check", "skip")


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, in which precision, on which device, and how it runs; see :class:`winspect.WinCLIP`.

    Raises:
        SettingsError: an unknown plan or word for the gate, or a batch size below 1.
    """

    engine: str = "auto"
    precision: str | None = None
    device: str = "auto"
    plan: str = "auto"
    graphs: bool = False
    gate: str = "check"
    batch_size: int | None = None
    int8_pictures: Any = None

    def __post_init__(self) -> None:
        for name, value, known in (("plan", self.plan, PLANS), ("gate", self.gate, GATES)):
            if value not in known:
                raise SettingsError(f"got the {name} {value!r}, need one of {', '.join(known)}")
        check_count("batch_size", self.batch_size)

    @property
    def tiles_at_once(self) -> int | None:
        """Tiles per pass at most; None for the engine's default."""
        return 1 if self.plan == "serial" else self.batch_size

    @property
    def may_fall_back(self) -> bool:
        """Whether torch may run in place of an engine that cannot be built: none was named, neither by its device."""
        return self.engine == "auto" and not self.device.startswith("openvino:")


def check_count(name: str, number: int | None) -> None:
    """Refuse what is neither None nor a whole number from 1.

    Raises:
        SettingsError: names the option.
    """
    if number is not None and (not isinstance(number, int) or number < 1):
        raise SettingsError(f"{name}: got {number!r}, need a whole number from 1")
