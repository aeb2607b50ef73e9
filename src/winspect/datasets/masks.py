"""Ground truth masks: files -> where the defect is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from winspect.datasets.items import Item
from winspect.errors import PictureError
from winspect.pictures.formats import START_BYTES, format_of
from winspect.pictures.tiff import TiffReader
from winspect.system.opening import read_bytes

# JPEG is not among them: lossy compression puts values above 0 around every defect.
_FORMATS = ("PNG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM")
_TIFF_COMPRESSION, _LOSSY_TIFF = 259, {6: "JPEG", 7: "JPEG", 34892: "JPEG", 50001: "WebP"}
MOST = 0.5
"""Largest share of a picture that the mask of a defect is believed to cover."""


def load_mask(item: Item, size_wh: tuple[int, int]) -> np.ndarray:
    """Where an item's picture is defective.

    Args:
        item: a normal item has no defect anywhere, and needs no mask.
        size_wh: the picture's (width, height) in pixels; the mask must have the same.

    Returns:
        bool (H, W), True where defective: wherever the file's value is above 0.

    Raises:
        PictureError: an anomalous item has no mask, or the mask is missing, unreadable or of another size.
    """
    width, height = size_wh
    if not item.is_anomalous:
        return np.zeros((height, width), dtype=bool)
    if item.mask is None:
        raise PictureError(item.path, "anomalous, but the data set has no mask for it: add one, or skip pixel metrics")
    return read_mask(item.mask, size_wh=size_wh)


def read_mask(path: Path, *, size_wh: tuple[int, int] | None = None) -> np.ndarray:
    """A mask file as bool (H, W), True where its value is above 0.

    In colour any channel counts, alpha does not. In a palette the indices count, unless index 0 has a colour: then
    the colours do.

    Args:
        path: PNG, BMP, TIFF, GIF, lossless WebP or PNM.
        size_wh: refuse another (width, height), before anything is decoded.

    Raises:
        PictureError: it is missing, unreadable, lossy or of another size.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise PictureError(path, "the mask is not there: get the data set's masks, or skip pixel metrics") from error
    except OSError as error:
        raise PictureError(path, f"the mask cannot be read ({error.strerror}): check the file") from error
    return decode_mask(data, path, size_wh=size_wh)


def decode_mask(data: bytes, name: str | Path, *, size_wh: tuple[int, int] | None = None) -> np.ndarray:
    """As :func:`read_mask`, from a file's bytes; ``name`` is for errors."""
    if data.startswith(b"\xff\xd8\xff"):
        raise PictureError(name, _lossy("a JPEG"))
    if data.startswith(b"RIFF") and _is_lossy_webp(data):
        raise PictureError(name, _lossy("a lossy WebP"))
    if (kind := format_of(data[:START_BYTES])) == "JPEG 2000":
        raise PictureError(name, "a JPEG 2000 as mask: it may be lossy, which blurs the defect's edge: save it as PNG")
    file = io.BytesIO(data)
    try:
        # TIFF by the reader that pictures have, which knows every order of samples.
        with TiffReader(file, "") if kind == "TIFF" else Image.open(file, formats=_FORMATS) as image:
            codec = getattr(image, "tag_v2", {}).get(_TIFF_COMPRESSION)
            if codec in _LOSSY_TIFF:
                raise PictureError(name, _lossy(f"a TIFF compressed as {_LOSSY_TIFF[codec]}"))
            if size_wh is not None and image.size != size_wh:
                got, need = "x".join(map(str, image.size)), "x".join(map(str, size_wh))
                raise PictureError(name, f"the mask has {got} pixels, its picture {need}: get the matching mask")
            if isinstance(image, TiffReader):
                image.check(str(name))
            return _above_zero(image)
    except PictureError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes can raise anything
        problem = f"the mask is damaged or not a picture ({type(error).__name__}: {error})"
        raise PictureError(name, f"{problem}: get or copy it again") from error


def _lossy(what: str) -> str:
    return f"{what} as mask: its compression blurs the defect's edge: save it as PNG"


def _is_lossy_webp(data: bytes) -> bool:
    """Whether any of a WebP's pictures is lossy: its chunks, and those in the frames of an animation."""
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"VP8 ":
            return True
        at += 24 if kind == b"ANMF" else 8 + size + size % 2  # a frame's own chunks follow 16 bytes of its header
    return False


def fault_of(mask: np.ndarray) -> str | None:
    """What is wrong with the mask, bool (H, W), of a defective picture: that it marks nothing, or too much."""
    share = float(mask.mean())
    if share == 0:
        return "the mask is empty, its picture labelled defective: draw the defect, or label the picture good"
    if share > MOST:
        return (
            f"the mask covers {share:.0%} of its picture: mend it if it is inverted (defects above 0, the rest 0), "
            "or, if it is right, --pixel-grid published takes it"
        )
    return None


def _above_zero(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode == "P" and any((image.getpalette("RGB") or [0])[:3]):
        image = image.convert("RGBA").convert("RGB")  # going straight, Pillow warns about transparency
    values = np.asarray(image)
    if values.ndim == 3:
        colours = values[:, :, :-1] if image.mode in ("LA", "RGBA", "PA") else values
        return np.asarray(colours.any(axis=2))
    return values > 0


def encode_mask(mask: np.ndarray) -> bytes:
    """A mask bool (H, W) as the bytes of an 8-bit PNG: 255 where True, else 0."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return buffer.getvalue()
