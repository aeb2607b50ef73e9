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
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
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
from winspect.pictures.budget import BUDGET, cost_of
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
from winspect.pictures.process import CAN_START, decode_elsewhere
from winspect.pictures.suspicions import joined
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
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_rgb(
    source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE, bit_depth: int | None = None
) -> np.ndarray:
    """Read one picture as uint8 (H, W, 3), RGB, 0..255, upright, as a new array.

    Args:
        source: a path, a file's bytes, a ``PIL.Image``, or an array: uint8, uint16 or floating point in 0..1,
            shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels RGB(A) (OpenCV's are BGR: turn them first).
        max_pixels: refuse larger pictures, by the header, before anything is decoded.
        min_side: refuse pictures whose shorter side is below this.
        bit_depth: of the camera, 9 to 16, where its values are stored unscaled in 16 bits; larger values are refused.

    Raises:
        PictureError: it cannot be used; the message names it, the reason and the fix.
    """
    return np.array(decode(source, max_pixels=max_pixels, min_side=min_side, bit_depth=bit_depth))


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
    min_side: int = MIN_SIDE,
    bit_depth: int | None = None,
    demanding: Demanding = "elsewhere",
) -> Iterator[Decoded]:
    """:func:`decode_picture` for a block in which the picture counts towards :data:`winspect.pictures.budget.BUDGET`.

    Args:
        max_pixels, min_side, bit_depth: as for :func:`read_rgb`.
        demanding: a picture that takes long by its header is decoded ``elsewhere`` (in a process that is ended after
            :data:`winspect.pictures.budget.DECODE_LIMIT_S`), ``here``, or not at all: ``refuse``.

    Raises:
        DemandingPictureError: with ``refuse``.
        PictureError: as for :func:`read_rgb`.
    """
    with ExitStack() as held:
        yield _decode(source, held, max_pixels, min_side, bit_depth, demanding)


def _decode(
    source: Source, held: ExitStack, max_pixels: int, min_side: int, bit_depth: int | None, demanding: Demanding
) -> Decoded:
    name = source_name(source)
    if isinstance(source, Given):
        try:
            return _decode(source.source(), held, max_pixels, min_side, bit_depth, demanding)
        except PictureError as error:
            raise type(error)(name, error.reason) from error

    def check(width: int, height: int) -> None:
        _check_size(name, width, height, max_pixels, min_side)

    if isinstance(source, np.ndarray):
        rgb, warning = _rgb_from_array(source, check, bit_depth)
        return Decoded(Image.fromarray(rgb), warning)
    try:
        if isinstance(source, Image.Image) and not is_unread(source):
            check(*source.size)
            held.enter_context(BUDGET.hold(cost_of(source).size))
            return Decoded(*_rgb_from_image(source, name, bit_depth))
        with borrowed(source.fp) if isinstance(source, ImageFile.ImageFile) else opened(source, name) as file:
            image = _parsed_header(file, name)
            check(*image.size)
            cost = cost_of(image, _scans(image, file, name))
            if cost.is_demanding and demanding == "refuse":
                reason = f"decoding it takes about {cost.seconds:.1f} s, too long here: save it as JPEG or reduce it"
                raise DemandingPictureError(name, reason)
            held.enter_context(BUDGET.hold(cost.size))
            if cost.is_demanding and demanding == "elsewhere" and CAN_START:
                options = {"max_pixels": max_pixels, "min_side": min_side, "bit_depth": bit_depth}
                return Decoded(*decode_elsewhere(content_of(file, name), name, options))
            return Decoded(*_rgb_from_file(image, file, name, bit_depth))
    except PictureError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes can raise anything
        raise PictureError(name, _decode_reason(error)) from error


def _scans(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> int:
    """Count the scans of a JPEG; 1 for all other formats."""
    scans = count_scans(image, file, name) if isinstance(image, JpegImagePlugin.JpegImageFile) else 1
    if scans > MAX_SCANS:
        raise PictureError(name, f"a JPEG of more than {MAX_SCANS} scans, made to keep decoders busy: leave it out")
    return scans


def _parsed_header(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Recognise the format and parse the header; no pixel is decoded yet."""
    start = file.read(START_BYTES)
    if not start:
        raise PictureError(name, "an empty file (0 bytes): save or copy it again")
    file.seek(0)
    format_name = format_of(start)
    if format_name is None:
        raise PictureError(name, f"not a picture in a format read here ({FORMAT_NAMES}): convert it, or leave it out")
    try:
        return _READERS[format_name](file, "")  # no file name: else Pillow maps the file, and a shrinking one kills us
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        problem = f"starts like {format_name}, but its header is cut off, damaged or of a rare kind"
        raise PictureError(name, f"{problem}: save it again, as PNG perhaps") from error


def _decode_reason(error: Exception) -> str:
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "truncated, the file ends before the picture does: save or copy it again"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it: reduce it"
    return f"damaged, cannot be decoded ({type(error).__name__}: {error}): save or copy it again"


def _check_size(name: str, width: int, height: int, max_pixels: int, min_side: int) -> None:
    if min(width, height) < max(1, min_side):
        reason = f"{width}x{height} pixels, need at least {max(1, min_side)} on each side: use a larger picture"
        raise PictureError(name, reason)
    if width * height > max_pixels:
        millions = f"{width * height / 1e6:.1f} million pixels, the limit is {max_pixels / 1e6:.1f}"
        raise PictureError(name, f"{width}x{height} is {millions}: reduce it, or raise max_pixels")


def _rgb_from_file(
    image: ImageFile.ImageFile, file: BinaryIO, name: str, bit_depth: int | None
) -> tuple[Image.Image, str | None]:
    if isinstance(image, TiffReader):
        image.check(name)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        strict, damage = decode_strictly(file, name, image.mode)
        if strict is not None:
            return _upright(strict, image), None
        rgb, warning = _rgb_from_image(image, name, bit_depth)
        return rgb, joined(damage, warning)
    if states_its_depth(image):
        bit_depth = None
    if not is_sixteen_bit_colour(image):
        return _rgb_from_image(image, name, bit_depth)
    if bit_depth is None:
        rgb, _ = _rgb_from_image(image, name, None)
        return rgb, warn_of_high_bytes(rgb)

    def again() -> ImageFile.ImageFile:
        file.seek(0)
        return _parsed_header(file, name)

    rgb, warning = colour_by_bit_depth(image, again, name, bit_depth)
    return _upright(rgb, image), warning


def _rgb_from_image(image: Image.Image, name: str, bit_depth: int | None) -> tuple[Image.Image, str | None]:
    image.load()
    warning = None
    if is_deep(image):
        grey, warning = eight_bit_grey(image, name, bit_depth)
        rgb = Image.fromarray(grey).convert("RGB")
    elif image.mode == "P":
        # The detour gives the same pixels; going straight, Pillow warns about palettes with transparency.
        rgb = image.convert("RGBA").convert("RGB")
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _upright(rgb, image), warning


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    # Asked only now: Pillow turns TIFFs itself while decoding, and PNG may keep its EXIF behind the pixels.
    turn = _TURNS.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged block raises SyntaxError, struct.error, TypeError, ... by turns
        return 1


def _rgb_from_array(
    array: np.ndarray, check: Callable[[int, int], None], bit_depth: int | None
) -> tuple[np.ndarray, str | None]:
    need = "need uint8, uint16 or floating point in 0..1, shape (H, W) or (H, W, 1), (H, W, 3), (H, W, 4)"
    kind = array.dtype.str[1:]  # without the byte order
    depth = array.shape[2] if array.ndim > len("HW") else 1
    if array.ndim == len("CHW") and array.shape[0] in (1, 3, 4) and depth not in (1, 3, 4):
        need += ": NumPy has channels last; use transpose(1, 2, 0)"
    if kind not in ("u1", "u2", "f2", "f4", "f8") or array.ndim not in (2, 3) or depth not in (1, 3, 4):
        raise PictureError("<array>", f"got dtype {array.dtype}, shape {array.shape}, {need}")
    check(array.shape[1], array.shape[0])
    pixels = array.reshape(*array.shape[:2], depth)[:, :, :3]
    warning = None
    if kind.startswith("f"):
        pixels, warning = from_unit_range(pixels, "<array>")
    elif kind == "u2":
        pixels, warning = from_integers(pixels, 2 ** (bit_depth or 16) - 1, "<array>")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), warning
