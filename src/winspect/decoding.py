"""Decoding: a file, bytes, an image or an array -> upright 8-bit RGB. NumPy and Pillow only.

What a file's pixels become, and why:

* Grey is repeated to three channels. Alpha, palettes, CMYK, YCbCr and 1-bit go through Pillow's
  ``convert("RGB")``, which drops alpha without blending: open_clip's own preprocessing does that to them.
* 16-bit grey is scaled by the range of its **type** (65535 -> 255, rounded), never by the picture's own
  minimum and maximum: stretching each picture by itself would hide that a part is too dark and would amplify
  noise, both of which an inspection looks for. (Pillow's own conversion clips at 255: nearly all white.)
  16-bit *colour* arrives from Pillow as its high byte: at most one of 256 levels away from rounding.
* Floating point must lie in 0..1, in files as in arrays: 0..255 cannot be told from a dark 0..1 picture.
* Embedded colour profiles are not applied, as open_clip does not.
* The EXIF orientation is applied. An EXIF block too damaged to read counts as none, as in any viewer.
* Of animations and files with several pages the first is used.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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

from winspect.errors import PictureError
from winspect.pictures.formats import FORMAT_NAMES, START_BYTES, format_of
from winspect.pictures.tiff import TiffReader

Source = str | os.PathLike[str] | bytes | io.BytesIO | Image.Image | np.ndarray

MAX_PIXELS = 178_956_970
"""Largest picture decoded, in pixels: where Pillow's own guard refuses, 512 MiB of 24-bit colour."""
MIN_SIDE = 8
"""Shortest side judged, in pixels: half of one of the model's 16-pixel patches before resizing."""

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
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_TIFF_SIGNED = 2  # a value of the last


def source_name(source: Source) -> str:
    """What a picture is called in results and messages: its path, or a word in angle brackets."""
    if isinstance(source, np.ndarray):
        return "<array>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    if isinstance(source, (bytes, bytearray, memoryview, io.BytesIO)):
        return "<bytes>"
    return str(source)


def read_rgb(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> np.ndarray:
    """Read one picture as uint8 (H, W, 3), RGB, 0..255, upright. The array is the caller's own.

    Args:
        source: a path, a file's bytes, a ``PIL.Image``, or an array: uint8, uint16 or floating point in 0..1,
            shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels RGB(A) (OpenCV's are BGR: turn them first).
        max_pixels: refuse larger pictures, by the header, before anything is decoded.
        min_side: refuse pictures whose shorter side is below this.

    Raises:
        PictureError: it cannot be used; the message names it, the reason and the fix.
    """
    return np.array(decode(source, max_pixels=max_pixels, min_side=min_side))


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: RGB, upright.
        warning: what is suspicious about it, for people; several are joined by ``"; "``. None for nothing.
    """

    image: Image.Image
    warning: str | None = None


def decode(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Image.Image:
    """``read_rgb`` as an RGB ``PIL.Image``, which resizing needs: a detour through NumPy costs about a decoding."""
    return decode_picture(source, max_pixels=max_pixels, min_side=min_side).image


def decode_picture(source: Source, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Decoded:
    """:func:`decode`, with what is suspicious about the picture."""
    name = source_name(source)

    def check(width: int, height: int) -> None:
        _check_size(name, width, height, max_pixels, min_side)

    if isinstance(source, np.ndarray):
        return Decoded(Image.fromarray(_rgb_from_array(source, check)))
    try:
        if isinstance(source, Image.Image):
            check(*source.size)
            return Decoded(_rgb_from_image(source, name))
        with _opened(source) as file:
            image = _parsed_header(file, name)
            check(*image.size)
            if isinstance(image, TiffReader):
                image.check(name)
            return Decoded(_rgb_from_image(image, name))
    except PictureError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes can raise anything
        raise PictureError(name, _decode_reason(error)) from error


def _opened(source: Any) -> BinaryIO:
    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())  # own position: the same buffer may be read in several threads
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        raise PictureError(
            source_name(source),
            f"got {type(source).__name__}, need a path, bytes, a PIL.Image or a NumPy array",
        )
    path = Path(source)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PictureError(path, _folder_reason(path))
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(path, "a pipe or a device, need a file")
        return path.open("rb")
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(path, _open_reason(path, error)) from error


def _folder_reason(path: Path) -> str:
    if not os.access(path, os.R_OK | os.X_OK):
        return "a folder that may not be read: give yourself the right (chmod u+rx), or leave it out"
    return "a folder, need a picture file: name the pictures in it"


def _open_reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"a broken link to {os.readlink(path)}: mend it or delete it"
        return "no such file: check the path"
    if isinstance(error, PermissionError):
        return "not readable (permission denied): give yourself the right to read it (chmod u+r)"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that leads back to itself: mend it or delete it"
    return f"cannot be opened ({getattr(error, 'strerror', None) or error}): check the path"


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


def _rgb_from_image(image: Image.Image, name: str) -> Image.Image:
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        upright = Image.fromarray(_eight_bit_grey(image, name)).convert("RGB")
    elif image.mode == "P":
        # The detour gives the same pixels; going straight, Pillow warns about palettes with transparency.
        upright = image.convert("RGBA").convert("RGB")
    else:
        upright = image if image.mode == "RGB" else image.convert("RGB")
    # Asked only now: Pillow turns TIFFs itself while decoding, and PNG may keep its EXIF behind the pixels.
    turn = _TURNS.get(_orientation(image))
    return upright if turn is None else upright.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged block raises SyntaxError, struct.error, TypeError, ... by turns
        return 1


def _eight_bit_grey(image: Image.Image, name: str) -> np.ndarray:
    """Deep grey (modes I;16*, I, F) to uint8 (H, W), by the range of the stored type."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        grey = _from_unit_range(values, name)
    else:
        bits = tags.get(_TIFF_BITS, (16,))[0]
        signed = tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == _TIFF_SIGNED
        top = 2 ** (bits - signed) - 1 if bits in (12, 16) else 65535  # 16-bit values in 32 bits are common
        if values.min() < 0 or values.max() > top:
            spread = f"values from {values.min()} to {values.max()}, need 0 to {top}"
            raise PictureError(name, f"integer {spread}: save it as 8- or 16-bit grey")
        grey = _from_integers(values, top)
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0  # Pillow inverts these for 8 bits, but not for more
    return 255 - grey if white_is_zero else grey


def _from_integers(values: np.ndarray, top: int) -> np.ndarray:
    """0..top to 0..255, rounded to nearest, by a table (no wide copy of the picture)."""
    table = (np.arange(top + 1, dtype=np.uint32) * 255 + top // 2) // top
    return table.astype(np.uint8)[values]


def _from_unit_range(values: np.ndarray, name: str) -> np.ndarray:
    """0..1 to 0..255, rounded to nearest."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # so that NaN is refused as well
        spread = f"got floating-point values from {low:g} to {high:g}, need 0 to 1"
        raise PictureError(name, f"{spread}: divide by the largest possible value, or use 8- or 16-bit integers")
    return np.rint(values * 255).astype(np.uint8)


def _rgb_from_array(array: np.ndarray, check: Callable[[int, int], None]) -> np.ndarray:
    need = "need uint8, uint16 or floating point in 0..1, shape (H, W) or (H, W, 1), (H, W, 3), (H, W, 4)"
    kind = array.dtype.str[1:]  # without the byte order
    depth = array.shape[2] if array.ndim > len("HW") else 1
    if kind not in ("u1", "u2", "f2", "f4", "f8") or array.ndim not in (2, 3) or depth not in (1, 3, 4):
        raise PictureError("<array>", f"got dtype {array.dtype}, shape {array.shape}, {need}")
    check(array.shape[1], array.shape[0])
    pixels = array.reshape(*array.shape[:2], depth)[:, :, :3]
    if kind.startswith("f"):
        pixels = _from_unit_range(pixels, "<array>")
    elif kind == "u2":
        pixels = _from_integers(pixels, 65535)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
