"""Decoding in a separate process, for pictures that may take long: it can be ended alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from PIL import Image

from winspect.errors import PictureError
from winspect.pictures.budget import DECODE_LIMIT_S

_START = """
import json, sys
sys.path[:], options = map(json.loads, sys.argv[1:])
from winspect.pictures.decoding import answer
answer(options)
"""
CAN_START = bool(sys.executable) and not getattr(sys, "frozen", False)
"""Whether this Python can start another one."""
_MOST_AT_ONCE = threading.BoundedSemaphore(2)


def decode_elsewhere(content: bytes, name: str, options: dict[str, Any]) -> tuple[Image.Image, str | None]:
    """Decode a file in another process, which is ended after :data:`DECODE_LIMIT_S`.

    Args:
        options: of :func:`winspect.pictures.decoding.decode_picture`.

    Returns:
        The picture, RGB and upright, and its warning.

    Raises:
        PictureError: it cannot be used, or takes too long.
    """
    command = [sys.executable, "-c", _START, json.dumps(sys.path), json.dumps(options)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with _MOST_AT_ONCE, subprocess.Popen(command, **pipes) as process:
        try:
            out, _ = process.communicate(content, timeout=DECODE_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            limit = f"not decoded within {DECODE_LIMIT_S:g} s"
            raise PictureError(name, f"{limit}: damaged, or too demanding; save it as PNG or reduce it") from error
        finally:
            process.kill()
    head, _, pixels = out.partition(b"\n")
    try:
        answer = json.loads(head)
    except ValueError as error:
        code = process.returncode
        reason = f"its decoder died (exit code {code}): damaged, or not enough memory; save or copy it again"
        raise PictureError(name, reason) from error
    if answer["error"] is not None:
        raise PictureError(name, answer["error"])
    return Image.frombytes("RGB", tuple(answer["size"]), pixels), answer["warning"]
