"""HTML pages that stand alone: pictures inside, no scripts, no network."""

from __future__ import annotations

import base64
import functools
import io
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from winspect._version import __version__
from winspect.system.files import write_file

THUMBNAIL_SIDE = 240
"""Pixels of a thumbnail's longer side, at most."""


def data_uri(image: Image.Image, *, quality: int = 85, fine_colour: bool = False) -> str:
    """An RGB picture inside a page: a JPEG as a data URI. ``fine_colour`` keeps coloured lines a pixel wide sharp."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=0 if fine_colour else 2)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def environment() -> Any:
    """Templates of this folder (a ``jinja2.Environment``). Every value is escaped unless it is ``Markup``."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("winspect", "outputs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of this folder, and return ``path``.

    Raises:
        OutputError: the file cannot be written.
    """
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    text = environment().get_template(template).render(version=__version__, date=date, **values)
    write_file(path, text)
    return path
