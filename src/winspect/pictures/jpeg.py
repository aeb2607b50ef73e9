"""JPEG: scans counted before decoding, and libjpeg's warnings, which Pillow does not pass on."""

from __future__ import annotations

import importlib.util
import io
import re
from typing import BinaryIO

from PIL import Image, ImageFile, JpegImagePlugin

from winspect.errors import PictureError

MAX_SCANS = 500
"""Most scans of a picture: encoders write about ten; each makes the decoder go through the whole picture again."""
MAX_BYTES = 1 << 29
"""Largest file read into memory: more than the largest picture has with hardly any compression."""
_SOS, _EOI = 0xDA, 0xD9
# Neither a stuffed 0xFF of entropy-coded data, nor a restart, nor one of the markers that stand alone.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")

has_strict_decoder = importlib.util.find_spec("simplejpeg") is not None
"""Whether damage can be seen: simplejpeg is a part of ``winspect[full]``, not of an edge installation."""


def count_scans(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> int:
    """Count the scans a decoder will go through, up to :data:`MAX_SCANS` + 1; ``file`` keeps its position. Formats
    other than JPEG have one.

    Raises:
        PictureError: the file is far larger than any picture.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 1
    start = file.tell()
    try:
        if not image.info.get("progressive") and _holds_all_channels(file, image.layers):
            return 1  # the decoder stops behind it
        content, scans, place = content_of(file, name), 0, 2
    finally:
        file.seek(start)
    while scans <= MAX_SCANS and (marker := _MARKER.search(content, place)):
        code, place = content[marker.end() - 1], marker.end()
        if code == _EOI:
            break
        scans += code == _SOS
        place += max(2, int.from_bytes(content[place : place + 2], "big"))
    return max(scans, 1)


def _holds_all_channels(file: BinaryIO, channels: int) -> bool:
    """Whether the first scan does; False where the header is not as usual."""
    file.seek(2)
    while len(head := file.read(5)) == 5 and head[0] == 0xFF:
        if head[1] == _SOS:
            return head[4] == channels
        file.seek(int.from_bytes(head[2:4], "big") - 3, io.SEEK_CUR)
    return False


def decode_strictly(file: BinaryIO, name: str, mode: str) -> tuple[Image.Image | None, str | None]:
    """Decode by libjpeg-turbo with its warnings: bit for bit what Pillow's libjpeg-turbo gives, and quicker.

    Args:
        file: keeps its position. mode: as Pillow has it from the header.

    Returns:
        The picture, RGB; None where it is damaged, not grey or RGB, or there is no strict decoder: then Pillow
        decodes. And the damage, as a warning.
    """
    if not has_strict_decoder:
        return None, None
    import simplejpeg

    start = file.tell()
    content = content_of(file, name)
    file.seek(start)
    is_colour = mode in ("RGB", "L")
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGBX" if is_colour else "CMYK", strict=True)
    except (ValueError, MemoryError) as error:
        return None, _damage(str(error))
    if not is_colour:
        return None, None
    height, width = pixels.shape[:2]
    mapped = Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
    return mapped.convert("RGB"), None


def _damage(words: str) -> str | None:
    if not words.startswith(_DAMAGE):
        return None
    reason = words.removeprefix("Corrupt JPEG data: ")
    return f"damaged JPEG data ({reason}): a part of the picture may be wrong; save or copy it again"


def content_of(file: BinaryIO, name: str) -> bytes:
    """Read all of a file that has been opened.

    Raises:
        PictureError: it is far larger than any picture.
    """
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.seek(0)
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PictureError(name, f"a file of more than {MAX_BYTES >> 20} MB: save it again, or leave it out")
    return content
