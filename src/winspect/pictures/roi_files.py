"""Regions of interest in files: a mask picture (PNG), polygons of LabelMe or of COCO (JSON)."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.decoding import read_rgb
from winspect.pictures.formats import format_of
from winspect.system.opening import read_bytes

EXCLUDED = ("exclude", "ignore")
"""Labels, alone or followed by a colon and a name, of polygons whose insides are excluded. Others are included."""
_NAMELESS = ("include", "roi")
_THRESHOLD = re.compile(r"threshold\s*=\s*([-+.\deE]+)")
_LABEL = re.compile(r"\s*(\w+)\s*(?::\s*(.*?))?\s*", re.DOTALL)


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file as :meth:`winspect.pictures.roi.Roi.document` has it: ``size`` with ``areas``, or with ``mask``.

    * PNG: what is not black is inside, at the size of the pictures.
    * LabelMe JSON: polygons and rectangles. A label ``exclude`` or ``ignore``, or ``exclude: NAME``, excludes; any
      other includes, and is the area's name, but for ``include``, ``roi`` and ``include: NAME``. ``threshold=0.4`` in
      the description is the area's own threshold.
    * COCO JSON of one picture: ``segmentation`` as polygons; categories as LabelMe's labels, ``threshold`` among an
      annotation's ``attributes``.

    Raises:
        SettingsError: none of them, or damaged. What they hold is not checked.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise SettingsError(f"cannot be read ({error.strerror or error}); check the path") from error
    return _of_picture(content) if format_of(content) is not None else _of_json(content)


def encoded(mask: np.ndarray) -> str:
    """A mask, bool (height, width), as the base64 of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(text: Any) -> np.ndarray:
    """A mask, bool (height, width), from what :func:`encoded` gives.

    Raises:
        SettingsError: it is none.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            return np.asarray(image.convert("1"))
    except (TypeError, ValueError, OSError, SyntaxError, zlib.error) as error:
        raise SettingsError(f"mask: got {str(text)[:60]!r}, need the base64 of a PNG; or name a file") from error


def _of_picture(content: bytes) -> dict[str, Any]:
    if (kind := format_of(content)) != "PNG":
        raise SettingsError(f"a mask has to be a PNG, got {kind}, which may blur its edge; save it as PNG")
    try:
        pixels = read_rgb(content)
    except PictureError as error:
        raise SettingsError(f"the mask cannot be used: {error.reason}") from error
    return {"size": [pixels.shape[1], pixels.shape[0]], "mask": encoded(np.asarray(pixels.any(axis=2)))}


def _of_json(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"neither a PNG nor JSON ({error}); save a mask, or polygons of LabelMe or COCO") from error
    try:
        if isinstance(document, dict) and "shapes" in document:
            size = [document["imageWidth"], document["imageHeight"]]
            return {"size": size, "areas": list(_labelme_areas(document["shapes"]))}
        if isinstance(document, dict) and "annotations" in document:
            image = _only_image(document)
            return {"size": [image["width"], image["height"]], "areas": list(_coco_areas(document, image))}
    except KeyError as error:
        raise SettingsError(f"no entry {error}; save it again with the tool that made it") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise SettingsError(f"damaged ({error}); save it again with the tool that made it") from error
    raise SettingsError("neither of LabelMe (shapes) nor of COCO (annotations); save it with one of these")


def _labelme_areas(shapes: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if not shapes:
        raise SettingsError("it has no shapes; draw at least one polygon")
    for number, shape in enumerate(shapes):
        kind, points = shape.get("shape_type", "polygon"), shape["points"]
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points[0], points[-1] if len(points) == 2 else points[2]
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        elif kind != "polygon":
            raise SettingsError(f"shape {number + 1} is a {kind}, need a polygon or rectangle; draw it as one")
        found = _THRESHOLD.search(shape.get("description") or "")
        yield _area(shape["label"], points, None if found is None else float(found[1]))


def _only_image(document: Mapping[str, Any]) -> Mapping[str, Any]:
    images = document["images"]
    if len(images) != 1:
        raise SettingsError(f"got {len(images)} images, need one, on which the region of interest was drawn")
    image: Mapping[str, Any] = images[0]
    return image


def _coco_areas(document: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    labels = {category["id"]: category["name"] for category in document.get("categories", ())}
    annotations = [
        entry for entry in document["annotations"] if entry.get("image_id", image.get("id")) == image.get("id")
    ]
    if not annotations:
        raise SettingsError("it has no annotations of its image; draw at least one polygon")
    for number, entry in enumerate(annotations):
        polygons = entry["segmentation"]
        if not isinstance(polygons, list) or not polygons:
            raise SettingsError(
                f"annotation {number + 1} has no polygons (a run-length mask?); save polygons, or a PNG"
            )
        threshold = (entry.get("attributes") or {}).get("threshold")
        for flat in polygons:
            points = [list(point) for point in zip(flat[::2], flat[1::2], strict=True)]
            yield _area(labels.get(entry.get("category_id"), "include"), points, threshold)


def _area(label: str, points: list[Any], threshold: Any) -> dict[str, Any]:
    found = _LABEL.fullmatch(label)
    word, name = ("", label) if found is None else (found[1].lower(), found[2])
    if word not in (*EXCLUDED, *_NAMELESS):
        name = label.strip()
    known = {"name": name or None, "threshold": threshold}
    given = {key: value for key, value in known.items() if value is not None}
    return {"polygon": points, "exclude": word in EXCLUDED, **given}
