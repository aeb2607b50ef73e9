"""The HTML report: one file with everything in it, no scripts, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from winspect._version import __version__
from winspect.decoding import decode
from winspect.reports.files import replacing

_THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        overlays: a heat map file per column. ``scores``: a score per column; 1 is most anomalous.
    """

    name: str
    label: str
    file: Path
    overlays: tuple[Path, ...]
    scores: tuple[float | None, ...]


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
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_report(path: Path, *, title: str, settings: Mapping[str, Any], galleries: Sequence[Gallery]) -> Path:
    """Write the report and return its path.

    Raises:
        OutputError: the file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("winspect", "reports"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["thumbnail"] = thumbnail
    text = environment.get_template("report.html").render(
        title=title,
        settings=settings,
        galleries=galleries,
        version=__version__,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
