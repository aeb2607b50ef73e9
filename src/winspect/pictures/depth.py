"""Reduce more than 8 bits to 8: by the range of the stored type, or by the bit depth given for the camera."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from winspect.errors import PictureError, SettingsError
from winspect.pictures import tiff

LEAST_SHARE = 8
"""A deep picture that uses less than one part in so many of its range gets a warning: a 12-bit camera in 16-bit files
uses a sixteenth, and is scored as if the light were off."""

_SIXTEEN = 65535


def check_bit_depth(bit_depth: int | None) -> int | None:
    """Check the bit depth of a camera.

    Raises:
        SettingsError: not a whole number from 9 to 16.
    """
    if bit_depth is not None and (type(bit_depth) is not int or not 9 <= bit_depth <= 16):
        raise SettingsError(f"bit_depth: got {bit_depth!r}, need a whole number from 9 to 16: the bits of the camera")
    return bit_depth


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow gives more than 8 bits for it (modes I;16*, I, F)."""
    return image.mode.startswith("I") or image.mode == "F"


def states_its_depth(image: ImageFile.ImageFile) -> bool:
    """Whether the file's own header says up to what its values go, so that Pillow has scaled them to 16 bits."""
    return image.format == "JPEG2000" or any(str(tile[0]).startswith("ppm") for tile in image.tile)


def eight_bit_grey(image: Image.Image, name: str, bit_depth: int | None) -> tuple[np.ndarray, str | None]:
    """Convert deep grey to uint8 (height, width); also a warning where little of the range is used."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        grey, warning = from_unit_range(values, name)
    else:
        bits = tags.get(tiff.BITS, (16,))[0]
        signed = tags.get(tiff.NUMBERS, (1,))[0] == tiff.SIGNED
        top = 2 ** (bits - signed) - 1 if bits in (12, 16) else _SIXTEEN  # 16-bit values in 32 bits are common
        if bit_depth is not None and top >= _SIXTEEN >> 1:  # a file of 12 bits says so itself
            top = 2**bit_depth - 1
        grey, warning = from_integers(values, top, name)
    if tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO:  # Pillow inverts these for 8 bits, but not for more
        grey = 255 - grey
    return grey, warning


def from_integers(values: np.ndarray, top: int, name: str) -> tuple[np.ndarray, str | None]:
    """Scale 0..top to 0..255, rounded to nearest, by a table (no wide copy of the picture).

    Raises:
        PictureError: a value below 0 or above ``top``.
    """
    low, high = values.min(), values.max()
    if low < 0 or high > top:
        spread = f"values from {low} to {high}, need 0 to {top}"
        bits = top.bit_length()
        fix = "save it as 8- or 16-bit grey" if bits >= 15 else f"it has more than {bits} bits: say the right bit depth"
        raise PictureError(name, f"integer {spread}: {fix}")
    table = ((np.arange(top + 1, dtype=np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return table[values], _little_used(int(low), int(high), top)


def from_unit_range(values: np.ndarray, name: str) -> tuple[np.ndarray, str | None]:
    """Scale 0..1 to 0..255, rounded to nearest.

    Raises:
        PictureError: a value outside.
    """
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # so that NaN is refused as well
        spread = f"got floating-point values from {low:g} to {high:g}, need 0 to 1"
        fix = "divide by the largest possible value, or use 8- or 16-bit integers"
        if low < 0:
            fix = "give it as it was before mean and deviation were taken out"
        raise PictureError(name, f"{spread}: {fix}")
    return np.rint(values * 255).astype(np.uint8), _little_used(float(low), float(high), 1)


def warn_of_high_bytes(image: Image.Image) -> str | None:
    """Warn of little used range in 16-bit colour, of which Pillow gives the high byte alone."""
    extrema: Any = image.getextrema()
    lows, highs = zip(*extrema[:3], strict=True)
    return _little_used(min(lows) * 256, max(highs) * 256 + 255, _SIXTEEN)


def _little_used(low: float, high: float, top: int) -> str | None:
    if (high - low) * LEAST_SHARE >= top:
        return None
    is_dark = high * LEAST_SHARE < top
    hint = ": from a 12-bit camera? then say so (bit depth 12)" if is_dark and 255 < high <= 4095 else ""
    values = f"up to {high:g}" if is_dark else f"from {low:g} to {high:g}"
    return f"values {values} of {top}, less than 1/{LEAST_SHARE} of the range{hint}"


def is_sixteen_bit_colour(image: ImageFile.ImageFile) -> bool:
    """Whether the file holds 16 bits a channel, of which Pillow is about to give the high byte."""
    return not is_deep(image) and all(";16" in tiff.raw_mode_of(tile) for tile in image.tile) and bool(image.tile)


def colour_by_bit_depth(
    image: ImageFile.ImageFile, again: Callable[[], ImageFile.ImageFile], name: str, bit_depth: int
) -> tuple[Image.Image, str | None]:
    """Scale 16-bit colour by the bit depth of a camera.

    Pillow gives one byte of each sample; in the other byte order it gives the other one.

    Args:
        again: the same file, with its header parsed anew.

    Raises:
        PictureError: another kind of colour, or a value above the range.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode not in ("RGB", "RGBA") or tags.get(tiff.PLANES) == tiff.SEPARATE:  # libtiff gives high bytes alone
        kind = "in separate planes" if image.mode.startswith("RGB") else image.mode
        raise PictureError(name, f"16-bit {kind}, which cannot be read with a bit depth: save it as grey or RGB")
    image.load()
    other = again()
    other.tile = [tiff.with_raw_mode(tile, _other_order(tiff.raw_mode_of(tile))) for tile in other.tile]
    other.load()
    high, low = (np.asarray(part)[:, :, :3].astype(np.uint16) for part in (image, other))
    small, warning = from_integers(high << 8 | low, 2**bit_depth - 1, name)
    return Image.fromarray(small), warning


def _other_order(raw_mode: str) -> str:
    return re.sub(r";16([BLN])", lambda found: f";16{'L' if found[1] == 'B' else 'B'}", raw_mode)
