"""Limits of decoding: bytes for all pictures that a process decodes at once, and seconds for each.

Both are estimated from a picture's header, by its format, before anything is decoded. The figures per pixel are
measured (benchmarks/decoding.py) and rounded up. What may take long is decoded in another process, which can be ended
alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from winspect.errors import PictureError

DECODE_MB_VARIABLE = "WINSPECT_DECODE_MB"
"""Environment variable: megabytes (2**20 bytes) that pictures may take while they are decoded."""
DECODE_MB = 1024
DEMANDING_S = 1.0
"""A picture whose decoding is estimated to take longer is decoded in a separate process, which can be ended."""
DECODE_LIMIT_S = 30.0
"""Time limit of such a process, in seconds; after it the picture is an error."""

_RESERVED = 4
"""One part in so many of the budget is kept for small pictures, which large ones cannot block."""
_SMALL = 16
"""A picture is small when it needs less than one part in so many of the budget."""

# Format -> bytes and nanoseconds per pixel, with the RGB picture it ends in.
_COSTS = {
    "JPEG": (9, 15),
    "MPO": (9, 15),
    "PNG": (10, 50),
    "BMP": (5, 5),
    "TIFF": (12, 20),
    "WEBP": (19, 40),
    "GIF": (10, 25),
    "PPM": (12, 20),
    "JPEG2000": (24, 400),
}
_OTHERS = (24, 100)
_DEEP_BYTES = 24
_SLOW_PPM = (32, 1500)  # Python reads these pixel by pixel
_SCANS_BYTES, _SCAN_NS = 15, 0.12


@dataclass(frozen=True)
class Cost:
    """Estimated cost of decoding a picture: ``size`` in bytes at its peak, ``seconds`` of a core."""

    size: int
    seconds: float

    @property
    def is_demanding(self) -> bool:
        """Whether it is decoded in a separate process."""
        return self.seconds > DEMANDING_S


def cost_of(image: Image.Image, scans: int = 1) -> Cost:
    """Estimate the cost of a picture whose header has been parsed; ``scans`` are those of a JPEG."""
    per_pixel: int
    ns: float
    per_pixel, ns = _COSTS.get(image.format or "", _OTHERS)
    if image.mode[0] in "IF":
        per_pixel = max(per_pixel, _DEEP_BYTES)
    if image.format == "PPM" and any(str(tile[0]).startswith("ppm") for tile in getattr(image, "tile", ())):
        per_pixel, ns = _SLOW_PPM
    if scans > 1:
        per_pixel, ns = _SCANS_BYTES, 2 * ns + scans * _SCAN_NS
    pixels = image.width * image.height
    return Cost(pixels * per_pixel, pixels * ns / 1e9)


class Budget:
    """Bytes shared by all threads of a process; each holds what its picture needs while it is decoded.

    Small pictures are admitted while there is room. Larger ones are admitted in order of arrival and leave a part of
    the room to small ones; one that needs more than all waits until it is the only large one.
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self._changed = threading.Condition()
        self._large: deque[object] = deque()  # those that wait, the first first

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and have them inside the block."""
        is_small = size * _SMALL <= self.size
        room = self.size if is_small else self.size - self.size // _RESERVED
        size, me = min(size, room), object()
        with self._changed:
            if not is_small:
                self._large.append(me)
            try:
                self._changed.wait_for(lambda: self.used + size <= room and (is_small or self._large[0] is me))
                self.used += size
            finally:
                if not is_small:
                    self._large.remove(me)
                    self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.used -= size
                self._changed.notify_all()


def _budget_bytes() -> int:
    given = os.environ.get(DECODE_MB_VARIABLE, "")
    return max(1, int(given) if given.isdigit() else DECODE_MB) * 2**20


BUDGET = Budget(_budget_bytes())
"""Decoding budget of this process."""


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
