"""Decoding: a file, bytes, an image or an array -> upright 8-bit RGB. NumPy and Pillow only.

What a file's pixels become, and why:

* Grey is repeated to three channels. Alpha, palettes, CMYK, YCbCr and 1-bit go through Pillow's
  ``convert("RGB")``, which drops alpha without blending: open_clip's own preprocessing does that to them.
* 16-bit grey is scaled by the range of its **type** (65535 -> 255, rounded), never by the picture's own
  minimum and maximum: stretching each picture by itself would hide that a part is too dark and would amplify
  noise, both of which an inspection looks for. (Pillow's own conversion clips at 255: nearly all white.)
  16-bit *colour* arrives from Pillow as its high byte: at most one of 256 levels away from rounding.
  Where a camera's fewer bits are stored unscaled in 16 (``bit_depth``), grey and colour are scaled by its range.
* Floating point must lie in 0..1, in files as in arrays: 0..255 cannot be told from a dark 0..1 picture.
* Embedded colour profiles are not applied, as open_clip does not.
* The EXIF orientation is applied. An EXIF block too damaged to read counts as none, as in any viewer.
* Of animations and files with several pages the first is used.

What is suspicious and yet decoded (damaged JPEG data, hardly any of the range used) becomes a warning. Limits of
decoding (:mod:`winspect.pictures.budget`) are checked by the header, before anything is decoded.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from winspect.errors import DemandingPictureError, PictureError
from winspect.pictures.budget import BUDGET, CAN_START, cost_of, decode_elsewhere
from winspect.pictures.depth import (
    colour_by_bit_depth,
    eight_bit_grey,
    from_integers,
    from_unit_range,
    is_deep,
    is_sixteen_bit_colour,
    states_its_depth,
    warn_of_high_bytes,
)
from winspect.pictures.formats import FORMAT_NAMES, START_BYTES, format_of
from winspect.pictures.given import Given, borrowed, is_unread, opened, source_name
from winspect.pictures.jpeg import MAX_SCANS, content_of, count_scans, decode_strictly
from winspect.pictures.tiff import TiffReader

Demanding = Literal["elsewhere", "here", "refuse"]
Source = str | os.PathLike[str] | bytes | io.BytesIO | Image.Image | np.ndarray | Given

MAX_PIXELS = 178_956_970
"""Largest picture decoded, in pixels: where Pillow's own guard refuses, 512 MiB of 24-bit colour."""
MIN_SIDE = 8
"""Shortest side accepted, in pixels: half of one of the model's 16-pixel patches before resizing."""

# Readers are called directly because `Image.open` warns of large pictures through the process-wide warnings filter,
# which threads cannot silence safely; and a short list keeps formats that run other programs (EPS starts Ghostscript)
# away from files nobody has vouched for. The formats and what they start with are in `winspect.pictures.formats`.
_READERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffReader,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_rgb(source: Source, *, max_pixels: int = MAX_PIXELS, bit_depth: int | None = None) -> np.ndarray:
    """Read one picture as uint8 (H, W, 3), RGB, 0..255, upright, as a new array.

    Args:
        source: a path, a file's bytes, a ``PIL.Image``, or an array: uint8, uint16 or floating point in 0..1,
            shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels RGB(A) (OpenCV's are BGR: turn them first).
        max_pixels: refuse larger pictures, by the header, before anything is decoded.
        bit_depth: of the camera, 9 to 16, where its values are stored unscaled in 16 bits; larger values are refused.

    Raises:
        PictureError: it cannot be used; the message names it, the reason and the fix.
    """
    return np.array(decode(source, max_pixels=max_pixels, bit_depth=bit_depth))


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: RGB, upright.
        warning: what is suspicious about it, for people; several are joined by ``"; "``. None for nothing.
    """

    image: Image.Image
    warning: str | None = None


def decode(source: Source, **options: Any) -> Image.Image:
    """Decode to an RGB ``PIL.Image``, which resizing needs: a detour through NumPy costs about a decoding."""
    return decode_picture(source, **options).image


def decode_picture(source: Source, **options: Any) -> Decoded:
    """:func:`decode`, with what is suspicious about the picture."""
    with decoding(source, **options) as decoded:
        return decoded


@contextmanager
def decoding(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    bit_depth: int | None = None,
    demanding: Demanding = "elsewhere",
) -> Iterator[Decoded]:
    """:func:`decode_picture` for a block in which the picture counts towards :data:`winspect.pictures.budget.BUDGET`.

    Args:
        max_pixels, bit_depth: as for :func:`read_rgb`.
        demanding: a picture that takes long by its header is decoded ``elsewhere`` (in a process that is ended after
            :data:`winspect.pictures.budget.DECODE_LIMIT_S`), ``here``, or not at all: ``refuse``.

    Raises:
        DemandingPictureError: with ``refuse``.
        PictureError: as for :func:`read_rgb`.
    """
    decoder = _Decoder(source_name(source), max_pixels, bit_depth, demanding)
    with decoder.held:
        yield decoder.decode(source.source() if isinstance(source, Given) else source)


def answer(options: dict[str, Any]) -> None:
    """Work as the process of :func:`winspect.pictures.budget.decode_elsewhere`: decode the file on stdin with these
    options of :func:`decode_picture`; write a line of JSON, and pixels, on stdout.
    """
    reply: dict[str, Any] = {"error": None, "size": None, "warning": None}
    pixels = b""
    try:
        decoded = decode_picture(sys.stdin.buffer.read(), **options, demanding="here")
        reply |= {"size": decoded.image.size, "warning": decoded.warning}
        pixels = decoded.image.tobytes()
    except PictureError as error:
        reply["error"] = error.reason
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n" + pixels)
    sys.stdout.buffer.flush()


@dataclass
class _Decoder:
    """Decodes one picture, which has a name in messages; what it takes of the budget is ``held``."""

    name: str
    max_pixels: int
    bit_depth: int | None
    demanding: Demanding
    held: ExitStack = field(default_factory=ExitStack)

    def decode(self, source: Any) -> Decoded:
        if isinstance(source, np.ndarray):
            return self._from_array(source)
        try:
            if isinstance(source, Image.Image) and not is_unread(source):
                self._check_size(*source.size)
                self.held.enter_context(BUDGET.hold(cost_of(source).size))
                return self._from_image(source, self.bit_depth)
            image_file = isinstance(source, ImageFile.ImageFile)
            with borrowed(source.fp) if image_file else opened(source, self.name) as file:
                return self._from_file(file)
        except PictureError:
            raise
        except Exception as error:  # a decoder fed with damaged bytes can raise anything
            raise PictureError(self.name, _decode_reason(error)) from error

    def _from_array(self, array: np.ndarray) -> Decoded:
        need = "need uint8, uint16 or floating point in 0..1, shape (H, W) or (H, W, 1), (H, W, 3), (H, W, 4)"
        kind = array.dtype.str[1:]  # without the byte order
        depth = array.shape[2] if array.ndim > len("HW") else 1
        if array.ndim == len("CHW") and array.shape[0] in (1, 3, 4) and depth not in (1, 3, 4):
            need += ": NumPy has channels last; use transpose(1, 2, 0)"
        if kind not in ("u1", "u2", "f2", "f4", "f8") or array.ndim not in (2, 3) or depth not in (1, 3, 4):
            raise PictureError(self.name, f"got dtype {array.dtype}, shape {array.shape}, {need}")
        self._check_size(array.shape[1], array.shape[0])
        pixels = array.reshape(*array.shape[:2], depth)[:, :, :3]
        warning = None
        if kind.startswith("f"):
            pixels, warning = from_unit_range(pixels, self.name)
        elif kind == "u2":
            pixels, warning = from_integers(pixels, 2 ** (self.bit_depth or 16) - 1, self.name)
        rgb = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        return Decoded(Image.fromarray(rgb), warning)

    def _from_file(self, file: BinaryIO) -> Decoded:
        image = self._parsed_header(file)
        self._check_size(*image.size)
        scans = count_scans(image, file, self.name)
        if scans > MAX_SCANS:
            reason = f"a JPEG of more than {MAX_SCANS} scans, made to keep decoders busy: leave it out"
            raise PictureError(self.name, reason)
        cost = cost_of(image, scans)
        if cost.is_demanding and self.demanding == "refuse":
            reason = f"decoding it takes about {cost.seconds:.1f} s, too long here: save it as JPEG or reduce it"
            raise DemandingPictureError(self.name, reason)
        self.held.enter_context(BUDGET.hold(cost.size))
        if cost.is_demanding and self.demanding == "elsewhere" and CAN_START:
            options = {"max_pixels": self.max_pixels, "bit_depth": self.bit_depth}
            return Decoded(*decode_elsewhere(content_of(file, self.name), self.name, options))
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            strict, damage = decode_strictly(file, self.name, image.mode)
            if strict is not None:
                return Decoded(_upright(strict, image))
            return replace(self._from_image(image, None), warning=damage)
        if isinstance(image, TiffReader):
            image.check(self.name)
        bit_depth = None if states_its_depth(image) else self.bit_depth
        if not is_sixteen_bit_colour(image):
            return self._from_image(image, bit_depth)
        if bit_depth is None:
            decoded = self._from_image(image, None)
            return replace(decoded, warning=warn_of_high_bytes(decoded.image))
        rgb, warning = colour_by_bit_depth(image, lambda: self._parsed_header(file), self.name, bit_depth)
        return Decoded(_upright(rgb, image), warning)

    def _from_image(self, image: Image.Image, bit_depth: int | None) -> Decoded:
        image.load()
        warning = None
        if is_deep(image):
            grey, warning = eight_bit_grey(image, self.name, bit_depth)
            rgb = Image.fromarray(grey).convert("RGB")
        elif image.mode == "P":
            # The detour gives the same pixels; going straight, Pillow warns about palettes with transparency.
            rgb = image.convert("RGBA").convert("RGB")
        else:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
        return Decoded(_upright(rgb, image), warning)

    def _parsed_header(self, file: BinaryIO) -> ImageFile.ImageFile:
        """Recognise the format and parse the header; no pixel is decoded yet."""
        file.seek(0)
        start = file.read(START_BYTES)
        if not start:
            raise PictureError(self.name, "an empty file (0 bytes): save or copy it again")
        file.seek(0)
        format_name = format_of(start)
        if format_name is None:
            reason = f"not a picture in a format read here ({FORMAT_NAMES}): convert it, or leave it out"
            raise PictureError(self.name, reason)
        try:
            # No file name: else Pillow maps the file, and a shrinking one kills us.
            return _READERS[format_name](file, "")
        except (MemoryError, Image.DecompressionBombError):
            raise
        except Exception as error:
            problem = f"starts like {format_name}, but its header is cut off, damaged or of a rare kind"
            raise PictureError(self.name, f"{problem}: save it again, as PNG perhaps") from error

    def _check_size(self, width: int, height: int) -> None:
        size = f"{width}x{height}"
        if min(width, height) < MIN_SIDE:
            reason = f"{size} pixels, need at least {MIN_SIDE} on each side: use a larger picture"
            raise PictureError(self.name, reason)
        if width * height > self.max_pixels:
            millions = f"{width * height / 1e6:.1f} million pixels, the limit is {self.max_pixels / 1e6:.1f}"
            raise PictureError(self.name, f"{size} is {millions}: reduce it, or raise max_pixels")


def _decode_reason(error: Exception) -> str:
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "truncated, the file ends before the picture does: save or copy it again"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it: reduce it"
    return f"damaged, cannot be decoded ({type(error).__name__}: {error}): save or copy it again"


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    # Asked only now: Pillow turns TIFFs itself while decoding, and PNG may keep its EXIF behind the pixels.
    try:
        turn = _TURNS.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
    except Exception:  # a damaged block raises SyntaxError, struct.error, TypeError, ... by turns
        turn = None
    return rgb if turn is None else rgb.transpose(turn)
