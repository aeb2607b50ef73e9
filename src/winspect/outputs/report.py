"""The HTML report of the demonstration: one file with everything in it, no scripts, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winspect.outputs.pages import THUMBNAIL_SIDE, data_uri, write_page
from winspect.pictures.decoding import decode


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        overlays: a heat map file per column. ``scores``: a score per column; 1 is most anomalous.
        warning: what is to be known of the picture beside its scores.
    """

    name: str
    label: str
    file: Path
    overlays: tuple[Path, ...]
    scores: tuple[float | None, ...]
    warning: str = ""


@dataclass(frozen=True)
class Gallery:
    """One product, judged in one or several ways (columns).

    Attributes:
        figures: per column, name to value; None is shown as undefined.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    figures: tuple[Mapping[str, float | None], ...]
    pictures: tuple[Picture, ...]


def thumbnail(path: Path) -> str:
    """A picture as a data URI, at most 240 pixels a side."""
    image = decode(path)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return data_uri(image)


def write_report(path: Path, *, title: str, settings: Mapping[str, Any], galleries: Sequence[Gallery]) -> Path:
    """Write the report and return its path.

    Raises:
        OutputError: the file cannot be written.
    """
    filters = {"thumbnail": thumbnail}
    return write_page(path, "report.html", filters=filters, title=title, settings=settings, galleries=galleries)
