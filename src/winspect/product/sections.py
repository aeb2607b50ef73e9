"""Sections of a product that other rooms read: each a frozen dataclass with ``read`` and ``document``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from winspect.delivery import Deliveries
from winspect.drift.settings import DriftSettings
from winspect.errors import SettingsError
from winspect.feedback.settings import FeedbackSettings


class Section(Protocol):
    """What a product knows of a section."""

    def document(self) -> Any:
        """The section as JSON and TOML have it."""


READERS: Mapping[str, Callable[[Any], Section]] = {
    "deliveries": Deliveries.read,
    "drift": DriftSettings.read,
    "feedback": FeedbackSettings.read,
}
"""By the section's name in the file."""

_LATER = ("roi", "alignment", "verdict", "rules")


def read_sections(document: Mapping[str, Any]) -> dict[str, Section]:
    """The sections of a product's document, in the order of :data:`READERS`.

    Raises:
        SettingsError: as of the section's own reader; or a section that this release has no reader for.
    """
    for name in _LATER:
        if name in document and name not in READERS:
            raise SettingsError(f"[{name}]: this release cannot read this section; leave it out, or upgrade winspect")
    return {name: reader(document[name]) for name, reader in READERS.items() if name in document}


def section_names() -> tuple[str, ...]:
    """Names of all sections, also of those that this release only knows by name."""
    return tuple(dict.fromkeys((*READERS, *_LATER)))
