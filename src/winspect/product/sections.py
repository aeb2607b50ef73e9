"""Sections of a product that other rooms read: each a frozen dataclass with ``read`` and ``document``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from winspect.calibration import Rules, Verdicts
from winspect.delivery import Deliveries
from winspect.drift.settings import DriftSettings
from winspect.feedback.settings import FeedbackSettings
from winspect.pictures.alignment import Alignment
from winspect.pictures.roi import Roi


class Section(Protocol):
    """What a product knows of a section."""

    def document(self) -> Any:
        """The section as JSON and TOML have it."""


@dataclass(frozen=True)
class RoiSection:
    """The table ``[roi]``.

    Attributes:
        roi: the region of interest.
        file: that it was read from, relative to the product's folder; None where the table holds it.
    """

    roi: Roi
    file: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any], folder: Path) -> RoiSection:
        """The table; a file in it lies below the product's folder. Errors as of :meth:`Roi.read`."""
        file = document.get("file") if isinstance(document, Mapping) else None
        if not isinstance(file, str):
            return cls(Roi.read(document))
        return cls(Roi.read({**document, "file": str(folder / file)}), file)

    def document(self) -> dict[str, Any]:
        """The table, as it was read."""
        return self.roi.document() if self.file is None else {"file": self.file}


READERS: Mapping[str, Callable[[Any, Path], Section]] = {
    "roi": RoiSection.read,
    "alignment": lambda table, _: Alignment.read(table),
    "verdict": lambda table, _: Verdicts.read(table),
    "rules": lambda tables, _: Rules.read(tables),
    "deliveries": lambda tables, _: Deliveries.read(tables),
    "drift": lambda table, _: DriftSettings.read(table),
    "feedback": lambda table, _: FeedbackSettings.read(table),
}
"""By the section's name in the file; the second argument is the product's folder."""


def read_sections(document: Mapping[str, Any], folder: Path) -> dict[str, Section]:
    """The sections of a product's document, in the order of :data:`READERS`.

    Raises:
        SettingsError: as of the section's own reader.
    """
    return {name: reader(document[name], folder) for name, reader in READERS.items() if name in document}


def portable(section: Section) -> Any:
    """A section's document that needs no other file."""
    return section.roi.document() if isinstance(section, RoiSection) else section.document()
