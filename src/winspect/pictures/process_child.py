"""The process that :mod:`winspect.pictures.process` starts: a file on stdin, a line of JSON and pixels on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

from winspect.errors import PictureError
from winspect.pictures.decoding import decode_picture


def main(options: str) -> None:
    """Decode stdin; ``options``, as JSON, are those of :func:`decode_picture`."""
    answer: dict[str, Any] = {"error": None, "size": None, "warning": None}
    pixels = b""
    try:
        decoded = decode_picture(sys.stdin.buffer.read(), **json.loads(options), demanding="here")
        answer |= {"size": decoded.image.size, "warning": decoded.warning}
        pixels = decoded.image.tobytes()
    except PictureError as error:
        answer["error"] = error.reason
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()
