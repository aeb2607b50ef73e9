"""Pictures for the model: cut into square tiles, resized, normalised.

Decoding itself, and what becomes of 16-bit, alpha, palettes and so on, is described in ``winspect.pictures.decoding``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.alignment import Aligned, Alignment, too_little
from winspect.pictures.decoding import MAX_PIXELS, Demanding, Source, decoding
from winspect.pictures.given import source_name
from winspect.pictures.inside import Inside, TileInside, any_of_cells
from winspect.pictures.roi import Roi
from winspect.pictures.rotation import rotated
from winspect.pictures.statistics import picture_statistics
from winspect.pictures.suspicions import blank_frame, joined

Box = tuple[int, int, int, int]

MAX_TILES = 64
"""Most tiles recipe ``tiles`` cuts from one picture."""
_CHANNELS = 3


def tile_boxes(width: int, height: int, *, stride_fraction: float = 0.8) -> list[Box]:
    """The square tiles of recipe ``tiles``: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.

    They lie along the longer edge; their side is the shorter edge, the stride ``int(stride_fraction * side)``, and
    the last is flush with the far edge. A square picture is one tile. No two tiles are the same: how often the last
    one counts is :func:`last_tile_count`.

    >>> tile_boxes(250, 100)
    [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    """
    starts = dict.fromkeys(_tile_starts(width, height, stride_fraction))
    side = min(width, height)
    if width >= height:
        return [(x, 0, x + side, side) for x in starts]
    return [(0, y, side, y + side) for y in starts]


def last_tile_count(width: int, height: int, *, stride_fraction: float = 0.8) -> int:
    """Count the repeats of the last tile in a picture's mean score, where repeats are kept as in the base program.

    Its starts run to the far *edge* and are moved back until their tile lies inside, so that several may become the
    last tile. A square picture is one tile, once.

    >>> tile_boxes(1562, 960), last_tile_count(1562, 960)
    ([(0, 0, 960, 960), (602, 0, 1562, 960)], 2)
    """
    starts = _tile_starts(width, height, stride_fraction)
    return starts.count(starts[-1])


def _tile_starts(width: int, height: int, stride_fraction: float) -> list[int]:
    """Offsets of the tiles along the longer edge, repeats kept."""
    if width < 1 or height < 1:
        raise SettingsError(f"got a picture of {width}x{height}, need at least 1x1")
    if not 0 < stride_fraction <= 1:
        raise SettingsError(f"stride_fraction: got {stride_fraction}, need more than 0, at most 1")
    side, last = min(width, height), abs(width - height)
    return [min(start, last) for start in range(0, last + side, max(1, int(stride_fraction * side)))] if last else [0]


@dataclass(frozen=True)
class Cut:
    """Settings of how pictures are read and cut.

    Args:
        tiling: cut into square tiles along the longer edge (see :func:`tile_boxes`); else the whole picture is squashed
            to a square.
        stride_fraction: step between tiles, in sides of a tile.
        bit_depth: of the camera, as for :func:`winspect.pictures.decoding.decoding`.
        max_pixels: refuse larger pictures before decoding.
        measure: also measure brightness, sharpness, ... of the picture as the camera gave it; changes no score.
        roi: what lies outside is filled with a constant colour, and tiles wholly outside are left out; None for all.
        alignment: pictures are registered to a reference picture before they are cut; None for pictures as they are.
    """

    tiling: bool = False
    stride_fraction: float = 0.8
    bit_depth: int | None = None
    max_pixels: int = MAX_PIXELS
    measure: bool = False
    roi: Roi | None = None
    alignment: Alignment | None = None

    @property
    def picture_wh(self) -> tuple[int, int] | None:
        """Width and height in pixels that pictures must have; None for any."""
        if self.roi is not None:
            return self.roi.size_wh
        return None if self.alignment is None else self.alignment.size_wh

    def aligned(self, name: str, image: Image.Image) -> tuple[Image.Image, np.ndarray | None, Aligned | None]:
        """A picture as the reference lies; see :meth:`winspect.pictures.alignment.Alignment.align`."""
        if self.alignment is None:
            return image, None, None
        moved, there, aligned = self.alignment.align(name, image)
        if there is not None and self.roi is not None and too_little(self.roi.inside, there):
            reason = "too little of the region of interest is in the picture"
            return image, None, Aligned(aligned.quality, False, reason=reason)
        return moved, there, aligned

    def boxes(self, name: str, width: int, height: int) -> list[Box]:
        """The boxes of a picture, without those that lie wholly outside of the region of interest.

        Raises:
            PictureError: it makes more than :data:`MAX_TILES` tiles, or has another size than the region of interest
                was drawn on; carries ``name``.
        """
        boxes = self._all_boxes(name, width, height)
        if self.roi is None:
            return boxes
        self.roi.check(name, (width, height))
        inside = self.roi.inside
        return [box for box in boxes if inside[box[1] : box[3], box[0] : box[2]].any()]

    def _all_boxes(self, name: str, width: int, height: int) -> list[Box]:
        if not self.tiling:
            return [(0, 0, width, height)]
        # The first test spares building millions of boxes: there are never fewer tiles than the sides' ratio.
        if max(width, height) <= MAX_TILES * min(width, height):
            boxes = tile_boxes(width, height, stride_fraction=self.stride_fraction)
            if len(boxes) <= MAX_TILES:
                return boxes
        raise PictureError(name, f'{width}x{height} makes more than {MAX_TILES} tiles: use recipe "paper", or crop it')

    def document(self) -> dict[str, Any]:
        """The JSON form, in bundles and in the keys of caches; without what changes no score."""
        depth = {} if self.bit_depth is None else {"bit_depth": self.bit_depth}
        roi = {} if self.roi is None else {"roi": self.roi.document()}
        alignment = {} if self.alignment is None else {"alignment": self.alignment.document()}
        recipe = "tiles" if self.tiling else "paper"
        return {"recipe": recipe, "stride_fraction": self.stride_fraction, **depth, **roi, **alignment}


WHOLE = Cut()
"""The whole picture."""


LARGEST_SIZE = 16_000
"""Longest side of the square that a model sees, in pixels."""


@dataclass(frozen=True)
class Preprocess:
    """Resizing and normalising as open_clip's own evaluation transform does it (``resize_mode="squash"``).

    Antialiased resampling on 8-bit RGB by Pillow, /255, minus ``mean``, over ``std``, in float32: bit for bit
    what open_clip gives for an RGB or grey file. Other modes (palette, CMYK, alpha) open_clip resizes *before* it
    converts them to RGB, palettes without any smoothing; here all are RGB first.

    Args:
        size: side of the square the model sees, in pixels; with ``aspect`` the shorter side of the picture.
        mean, std: per channel, R, G, B, on the scale 0..1.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        aspect: keep the picture's aspect ratio, and crop at the right and at the bottom to whole patches.
        patch: side of a patch in pixels; with ``aspect`` alone.
    """

    size: int = 240
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    aspect: bool = False
    patch: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or not 1 <= self.size <= LARGEST_SIZE:
            raise SettingsError(f"size: got {self.size!r}, need a whole number of pixels, 1 to {LARGEST_SIZE}")
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != _CHANNELS or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
                raise SettingsError(f"{name}: got {values}, need three numbers (R, G, B){' above 0' * (name == 'std')}")
            object.__setattr__(self, name, values)
        if self.interpolation not in ("bicubic", "bilinear"):
            raise SettingsError(f'interpolation: got {self.interpolation!r}, need "bicubic" or "bilinear"')

    def __call__(self, rgb: np.ndarray | Image.Image, box: Box | None = None) -> np.ndarray:
        """The picture, or its part in ``box`` (x0, y0, x1, y1), as float32 (3, height, width), normalised.

        Args:
            rgb: uint8 (H, W, 3), RGB, as ``read_rgb`` returns it, or an RGB ``PIL.Image``.
            box: in pixels, x1 and y1 exclusive, inside the picture. Pixels outside have no influence.
        """
        return self.normalise(self.resize(rgb, box))

    def resize(self, rgb: np.ndarray | Image.Image, box: Box | None = None) -> np.ndarray:
        """The first half: the picture, or its part in ``box``, as uint8 (height, width, 3), RGB. Arguments as above."""
        image = rgb if isinstance(rgb, Image.Image) else _image_from_rgb(rgb)
        if box is not None and box != (0, 0, *image.size):
            x0, y0, x1, y1 = box
            if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
                raise SettingsError(f"box {box} is not inside the picture of {image.width}x{image.height}")
            image = image.crop(box)
        method = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        return self._cropped(np.asarray(image.resize(self._resized_wh(image.size), method)))

    def inside(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of what :meth:`resize` gives that any pixel inside becomes a part of: bool, of bool (H, W)."""
        width, height = self._resized_wh((pixels.shape[1], pixels.shape[0]))
        return self._cropped(any_of_cells(pixels, (height, width)))

    def _resized_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        if not self.aspect:
            return self.size, self.size
        width, height = (self.size * side // min(size_wh) for side in size_wh)  # truncated as torchvision's Resize does
        return width, height

    def _cropped(self, pixels: np.ndarray) -> np.ndarray:
        if not self.aspect:
            return pixels
        height, width = pixels.shape[:2]
        return pixels[: height - height % self.patch, : width - width % self.patch]

    @property
    def neutral_rgb(self) -> tuple[int, int, int]:
        """The colour that is nothing to the model: its mean, rounded to 8 bits."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """The second half: uint8 (..., height, width, 3), RGB, to float32 (..., 3, height, width).

        Raises:
            SettingsError: another dtype or shape.
        """
        if pixels.dtype != np.uint8 or not self._has_its_size(pixels.shape[-3:]):
            got = f"got dtype {pixels.dtype}, shape {pixels.shape}"
            raise SettingsError(f"{got}, need uint8 (..., {self.size}, {self.size}, 3): resize with these settings")
        batch, (height, width) = pixels.shape[:-3], pixels.shape[-3:-1]
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        tiles = np.empty((*batch, _CHANNELS, height, width), np.float32)
        # Tile by tile, so that one stays in the processor's cache through all steps. A 256-entry table is slower than
        # this arithmetic (measured), which also rounds as torch does.
        for index in np.ndindex(batch):
            tile = tiles[index]
            tile[...] = np.ascontiguousarray(pixels[index].transpose(2, 0, 1))
            tile /= np.float32(255)
            tile -= mean
            tile /= std
        return tiles

    def _has_its_size(self, shape: tuple[int, ...]) -> bool:
        if len(shape) != _CHANNELS or shape[-1] != _CHANNELS:
            return False
        if not self.aspect:
            return shape[:2] == (self.size, self.size)
        whole = self.size - self.size % self.patch
        return min(shape[:2]) == whole and not any(side % self.patch for side in shape[:2])


def _image_from_rgb(rgb: np.ndarray) -> Image.Image:
    if rgb.dtype != np.uint8 or rgb.shape[2:] != (_CHANNELS,):
        got = f"got dtype {rgb.dtype}, shape {rgb.shape}"
        raise PictureError("<array>", f"{got}, need uint8 (H, W, 3): pass it through read_rgb first")
    return Image.fromarray(rgb)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture, ready for the model.

    Args:
        name: its path, or a word such as ``"<array>"``.
        size_wh: (width, height) in pixels, upright.
        boxes: T boxes (x0, y0, x1, y1) in pixels, one per tile.
        tiles: float32 (T, 3, height, width), normalised.
        rgb: uint8 (H, W, 3), or None unless it was asked for.
        warning: what is suspicious about the picture; see :class:`winspect.pictures.decoding.Decoded`.
        statistics: see :func:`winspect.pictures.statistics.picture_statistics`; None unless they were asked for.
        inside: what of each tile lies inside of the region of interest; None where all does.
        roi: the region of interest, if there is one.
        alignment: how it was registered; None where it was not asked for.
    """

    name: str
    size_wh: tuple[int, int]
    boxes: list[Box]
    tiles: np.ndarray
    rgb: np.ndarray | None = None
    warning: str | None = None
    statistics: Mapping[str, float] | None = None
    inside: Inside | None = None
    roi: Roi | None = None
    alignment: Aligned | None = None

    def __post_init__(self) -> None:
        if self.tiles.shape[:2] != (len(self.boxes), _CHANNELS):
            raise SettingsError(f"got tiles of shape {self.tiles.shape}, need ({len(self.boxes)}, 3, S, S)")


def prepare(
    source: Source,
    preprocess: Preprocess,
    cut: Cut = WHOLE,
    *,
    keep_rgb: bool = False,
    demanding: Demanding = "elsewhere",
    angles: Sequence[float] = (),
) -> Prepared:
    """Read one picture, cut it, resize and normalise.

    Args:
        source: anything ``read_rgb`` takes.
        preprocess: the model's own.
        cut: how it is read and cut.
        keep_rgb: keep the decoded picture as well, for drawing on it.
        demanding: as for :func:`winspect.pictures.decoding.decoding`.
        angles: in degrees, counter-clockwise; tiles of the turned picture follow those of the upright one.

    Raises:
        PictureError: the picture cannot be used, or makes more than ``MAX_TILES`` tiles.
    """
    name = source_name(source)
    with decoding(source, max_pixels=cut.max_pixels, bit_depth=cut.bit_depth, demanding=demanding) as decoded:
        image = decoded.image
        statistics = picture_statistics(image) if cut.measure else None
        boxes = cut.boxes(name, image.width, image.height)
        seen, there, aligned = cut.aligned(name, image)
        seen = seen if cut.roi is None else cut.roi.filled(seen, preprocess.neutral_rgb)
        views = [seen, *(rotated(seen, angle) for angle in angles)]
        pixels = np.stack([preprocess.resize(view, box) for view in views for box in boxes])
        inside = _inside_of(cut, preprocess, image.size, tuple(boxes), tuple(angles), there)
        rgb = np.array(image) if keep_rgb else None
    warning = joined(decoded.warning, blank_frame(_looked_at(pixels, inside)))
    tiles = preprocess.normalise(pixels)
    return Prepared(
        name,
        image.size,
        boxes * len(views),
        tiles,
        rgb,
        warning,
        statistics=statistics,
        inside=inside,
        roi=cut.roi,
        alignment=aligned,
    )


def _inside_of(
    cut: Cut,
    preprocess: Preprocess,
    size_wh: tuple[int, int],
    boxes: tuple[Box, ...],
    angles: tuple[float, ...],
    there: np.ndarray | None,
) -> Inside | None:
    """What lies inside of each tile of each view, without what the picture does not show; None where all does."""
    if cut.roi is None and cut.alignment is None:
        return None
    inside = _inside(cut.roi, size_wh, preprocess, boxes, angles)
    if there is None:
        return inside
    gaps = _cut_mask(~there, preprocess, boxes, angles)
    return tuple(TileInside(tile.pixels, gap) for tile, gap in zip(inside, gaps, strict=True))


@lru_cache(maxsize=64)
def _inside(
    roi: Roi | None,
    size_wh: tuple[int, int],
    preprocess: Preprocess,
    boxes: tuple[Box, ...],
    angles: tuple[float, ...],
) -> Inside:
    """What lies inside of each tile of each view; the same for all pictures, so that patches are counted once."""
    mask = np.ones(size_wh[::-1], bool) if roi is None else roi.inside
    return tuple(map(TileInside, _cut_mask(mask, preprocess, boxes, angles)))


def _cut_mask(
    mask: np.ndarray, preprocess: Preprocess, boxes: Sequence[Box], angles: Sequence[float]
) -> Iterator[np.ndarray]:
    """A mask as the picture is cut: each tile of each view."""
    grey = Image.fromarray(np.repeat(mask[:, :, None], _CHANNELS, axis=2).astype(np.uint8) * 255) if angles else None
    views = [mask, *(np.asarray(rotated(grey, angle))[:, :, 0] > 0 for angle in angles if grey is not None)]
    return (preprocess.inside(view[y0:y1, x0:x1]) for view in views for x0, y0, x1, y1 in boxes)


def _looked_at(pixels: np.ndarray, inside: Inside | None) -> np.ndarray:
    """The pixels that lie inside: uint8 (..., 3)."""
    return pixels if inside is None else pixels[np.stack([tile.pixels for tile in inside])][None]
