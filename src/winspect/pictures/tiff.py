"""TIFF: the sample format in a file's tags is checked against the one that Pillow is about to read.

Pillow looks up a *raw mode* (how a pixel's bytes become channels) for the whole file. Two things go wrong after that:

* For uncompressed files with a plane for each channel it takes one letter of the raw mode's name for each plane:
  ``"RGB;16L"`` becomes ``"R"``, ``"G"``, ``"B"``, which are 8 bits, in one bit order, never inverted. libtiff, which it
  uses for compressed files, reads planes by the tags themselves; so does it for subsampled colour. Such files are given
  to libtiff here, whatever their compression.
* libtiff gives samples in this machine's byte order, but some raw modes keep the file's.

What then still differs from the tags, in bits or in the type of number, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from PIL import ImageFile, TiffImagePlugin

from winspect.errors import PictureError

BITS, PHOTOMETRIC, PLANES, NUMBERS = 258, 262, 284, 339
"""Tags: bits of each sample, kind of colour, whether planes are separate, type of number of each sample."""
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2
"""Values of ``PHOTOMETRIC``, ``PLANES`` and ``NUMBERS``."""
_SUBSAMPLING, _YCBCR, _UNSIGNED, _FLOAT = 530, 6, 1, 3
_NUMBER_WORDS = {_UNSIGNED: "unsigned", SIGNED: "signed", _FLOAT: "floating-point"}
_TILE: Callable[..., Any] = getattr(ImageFile, "_Tile", lambda *entries: entries)  # a plain tuple before Pillow 11
_RAW_MODE = re.compile(r"(?P<bands>[A-Za-z]+|1)(?:;(?P<bits>\d+)?(?P<order>[A-Z]*))?")


class TiffReader(TiffImagePlugin.TiffImageFile):
    """Pillow's reader, with separate planes and subsampled colour left to libtiff."""

    _named_compression = ""

    @property
    def _compression(self) -> str:
        is_subsampled = self._is_colour_difference and tuple(self.tag_v2.get(_SUBSAMPLING, (2, 2))) != (1, 1)
        is_for_libtiff = self.tag_v2.get(PLANES) == SEPARATE or is_subsampled
        return "none" if is_for_libtiff and self._named_compression == "raw" else self._named_compression

    @_compression.setter
    def _compression(self, name: str) -> None:
        self._named_compression = name

    @property
    def _is_colour_difference(self) -> bool:
        return self.tag_v2.get(PHOTOMETRIC) == _YCBCR

    def _setup(self) -> None:
        super()._setup()
        if self.use_load_libtiff:
            self.tile = [with_raw_mode(tile, _native(raw_mode_of(tile))) for tile in self.tile]

    def check(self, name: str) -> None:
        """Check the raw modes against the tags.

        Raises:
            PictureError: they disagree: the pixels would be wrong.
        """
        bits, numbers = set(self.tag_v2.get(BITS, (1,))), set(self.tag_v2.get(NUMBERS, (_UNSIGNED,)))
        if self._is_colour_difference and self.use_load_libtiff:
            return  # libtiff turns these to 8-bit RGB by itself
        for raw_mode in set(map(raw_mode_of, self.tile)):
            if _described(raw_mode) != (bits, numbers):
                kinds = " and ".join(_NUMBER_WORDS.get(number, f"of type {number}") for number in sorted(numbers))
                words = f"samples of {' and '.join(map(str, sorted(bits)))} bits, {kinds}"
                raise PictureError(name, f"a TIFF with {words}, which is not read here: save it as PNG, unsigned")


def raw_mode_of(tile: Any) -> str:
    """The raw mode by which a tile of an image is decoded."""
    arguments = tile[3]
    return str(arguments if isinstance(arguments, str) else arguments[0] if arguments else "")


def with_raw_mode(tile: Any, raw_mode: str) -> Any:
    """The tile, to be decoded by another raw mode."""
    codec, box, offset, arguments = tile
    return _TILE(codec, box, offset, raw_mode if isinstance(arguments, str) else (raw_mode, *arguments[1:]))


def _described(raw_mode: str) -> tuple[set[int], set[int]]:
    """Bits of a sample, and type of number, of a raw mode."""
    found = _RAW_MODE.fullmatch(raw_mode)
    if found is None:
        return set(), set()
    bits, order = found["bits"], found["order"] or ""
    numbers = _FLOAT if order.endswith("F") else SIGNED if order.endswith("S") else _UNSIGNED
    return {int(bits) if bits else 1 if found["bands"] == "1" else 8}, {numbers}


def _native(raw_mode: str) -> str:
    """A raw mode of more than 8 bits in this machine's byte order."""
    found = _RAW_MODE.fullmatch(raw_mode)
    if found is None or int(found["bits"] or 8) <= 12:
        return raw_mode
    order = re.sub("[BLN]", "", found["order"])
    return f"{found['bands']};{found['bits']}N{order}"
