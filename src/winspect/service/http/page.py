"""The web page at ``/``, and generated pictures to try it with. Nothing of it comes from elsewhere."""

from __future__ import annotations

import io
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from starlette.responses import Response  # here, because FastAPI looks annotations up in the module

from winspect.service.http import models, openapi
from winspect.service.http.refusals import Refused

if TYPE_CHECKING:
    from fastapi import FastAPI

# Scripts, styles and requests from and to the service alone; blob: is for pictures that the user has chosen.
PAGE_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


Kind = Literal["good", "defective"]
# The sheet that the precision gate looks at has a column per kind of part, and below each good part the same with a
# defect. Class, column, and row of the good one:
_PARTS = (("capsule", 7, 2), ("leather", 2, 2), ("metal nut", 5, 4), ("button", 8, 0))
_COLUMNS = 10
_KINDS: tuple[Kind, ...] = ("good", "defective")
SAMPLES = MappingProxyType(
    {
        f"{category_name.replace(' ', '-')}-{kind}.jpg": (category_name, kind, column, row + offset)
        for category_name, column, row in _PARTS
        for offset, kind in enumerate(_KINDS)
    }
)
"""Pictures to try: file name -> class, kind, column and row."""


@lru_cache(maxsize=1)
def page_files() -> dict[str, bytes]:
    """The files of the page by name."""
    folder = files("winspect.service") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if PurePosixPath(file.name).suffix in _TYPES}


@lru_cache(maxsize=1)
def sample_files() -> dict[str, bytes]:
    """The samples as JPEG, 240 x 240, by name."""
    from PIL import Image

    found = {}
    # The file alone: its package is about models, which an HTTP process does without.
    with (files("winspect.engines.gate") / "pictures.jpg").open("rb") as file, Image.open(file) as sheet:
        side = sheet.width // _COLUMNS
        for name, (_, _, column, row) in SAMPLES.items():
            picture = io.BytesIO()
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            sheet.crop(box).save(picture, format="JPEG", quality=95)
            found[name] = picture.getvalue()
    return found


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, its files below ``/page``, and the samples below ``/v1/samples``."""

    def page_file(name: str) -> Response:
        content = page_files().get(name)
        if content is None:
            raise Refused(404, f"the page has no file {name[:200]!r}")
        return Response(content, media_type=_TYPES[PurePosixPath(name).suffix], headers=dict(PAGE_HEADERS))

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file_of_page(name: str) -> Response:
        return page_file(name)

    @app.get(
        "/v1/samples",
        tags=["samples"],
        summary="Generated pictures to try the service with: two of each class, one good, one defective",
        responses=openapi.errors(),
    )
    async def samples() -> models.SamplesAnswer:
        listed = [models.Sample(name=name, class_name=part, kind=kind) for name, (part, kind, *_) in SAMPLES.items()]
        return models.SamplesAnswer(samples=listed)

    @app.get(
        "/v1/samples/{name}",
        tags=["samples"],
        summary="One of them",
        response_class=Response,
        responses={200: {"description": "The picture.", "content": {"image/jpeg": {}}}, **openapi.errors(404)},
    )
    def sample(name: str) -> Response:
        if name not in SAMPLES:
            raise Refused(404, f"there is no sample {name[:200]!r}; GET /v1/samples lists them")
        return Response(sample_files()[name], media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})
