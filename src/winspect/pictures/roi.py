"""Regions of interest: where in a picture defects are looked for. What lies outside takes no part in anything.

Outside is filled with one constant colour in the picture's own pixels, before anything is resized, so that nothing that
happens there can change a score. Patches that lie wholly outside are dropped before the score, and from good samples.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.inside import TileInside
from winspect.pictures.polygons import Points, fault_of, inside
from winspect.pictures.roi_files import decoded, encoded, read_file

_AREA_KEYS = ("polygon", "exclude", "name", "threshold")
_KEYS = ("file", "size", "areas", "mask")
_FIX = "draw the region of interest on a picture of this size, or resize the picture"
_MOST_PIXELS = 178_956_970
_HASH = 16  # digits of it that tell regions of interest apart


@dataclass(frozen=True)
class Area:
    """A polygon of a region of interest.

    Attributes:
        polygon: at least three points (x, y) in pixels from the upper left corner of the picture, which is (0, 0); the
            last is joined to the first.
        exclude: what it covers is outside; else it is inside.
        name: for people; None for none.
        threshold: map values above it are defects here; None for that of the whole picture. Never of an excluded one.

    Raises:
        SettingsError: a value of another kind, or out of range.
    """

    polygon: Points
    exclude: bool = False
    name: str | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.polygon, list | tuple) or not all(map(_is_point, self.polygon)):
            raise SettingsError(f"polygon: got {_brief(self.polygon)}, need a list of points [x, y] in pixels")
        object.__setattr__(self, "polygon", tuple((float(x), float(y)) for x, y in self.polygon))
        if not isinstance(self.exclude, bool):
            raise SettingsError(f"exclude: got {self.exclude!r}, need true or false")
        if not (self.name is None or (isinstance(self.name, str) and self.name)):
            raise SettingsError(f"name: got {self.name!r}, need a text; leave it out for none")
        if self.threshold is not None and not _is_number(self.threshold):
            raise SettingsError(f"threshold: got {self.threshold!r}, need a value of the map, such as 0.4")
        if self.threshold is not None and self.exclude:
            raise SettingsError("threshold: what is excluded is never compared; leave it out, or include the area")

    def document(self) -> dict[str, Any]:
        """As JSON and TOML have it."""
        known = {"name": self.name, "threshold": self.threshold}
        given = {key: value for key, value in known.items() if value is not None}
        return {"polygon": [list(point) for point in self.polygon], "exclude": self.exclude, **given}

    def pixels(self, size_wh: tuple[int, int]) -> np.ndarray:
        """Pixels whose centres it covers: bool (height, width)."""
        return inside(self.polygon, size_wh)


@dataclass(frozen=True)
class Roi:
    """A region of interest of pictures of one size.

    Inside is what an area includes, everything where none does, less what areas exclude; or what a mask marks. Pictures
    of another size are refused: what was drawn on one camera's picture says nothing of another's.

    Attributes:
        size_wh: width and height in pixels of the pictures that it was drawn for.
        areas: polygons; none beside a mask.
        mask: bits of the pixels that lie inside, row by row, as :func:`numpy.packbits` has them; None for areas.

    Raises:
        SettingsError: an area outside the picture, with edges that cross or covering nothing; a mask of another size;
            or nothing lies inside.
    """

    size_wh: tuple[int, int]
    areas: tuple[Area, ...] = ()
    mask: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        size = self.size_wh
        if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_side, size))):
            raise SettingsError(f"size: got {_brief(size)}, need width and height in pixels, such as [640, 480]")
        if math.prod(size) > _MOST_PIXELS:
            raise SettingsError(f"size: got {_brief(size)}, need at most {_MOST_PIXELS} pixels in all")
        object.__setattr__(self, "size_wh", (int(size[0]), int(size[1])))
        object.__setattr__(self, "areas", tuple(self.areas))
        if bool(self.areas) == (self.mask is not None):
            got = "both areas and a mask" if self.areas else "neither areas nor a mask"
            raise SettingsError(f"got {got}, need one of them; to inspect whole pictures, give no region of interest")
        for number, area in enumerate(self.areas):
            if (fault := fault_of(area.polygon, self.size_wh)) is not None:
                raise SettingsError(f"{_named(number, area)}: {fault}")
        if self.mask is not None and len(self.mask) != -(-math.prod(self.size_wh) // 8):
            raise SettingsError(f"mask: got {len(self.mask)} bytes, which are not a bit for each pixel of {_by(size)}")
        if not self.inside.any():
            raise SettingsError("nothing lies inside: no picture has a pixel left; include more, or exclude less")

    @cached_property
    def inside(self) -> np.ndarray:
        """Pixels that lie inside: bool (height, width), read-only."""
        width, height = self.size_wh
        if self.mask is not None:
            bits = np.unpackbits(np.frombuffer(self.mask, np.uint8), count=width * height)
            found = bits.astype(bool).reshape(height, width)
        else:
            found = np.zeros((height, width), bool)
            found[...] = all(area.exclude for area in self.areas)
            for area in self.areas:
                if not area.exclude:
                    found |= area.pixels(self.size_wh)
            for area in self.areas:
                if area.exclude:
                    found &= ~area.pixels(self.size_wh)
        found.flags.writeable = False
        return found

    @cached_property
    def sha256(self) -> str:
        """Hash of size and inside: regions of interest of one hash give the same scores and maps."""
        return hashlib.sha256(f"{_by(self.size_wh)} ".encode() + np.packbits(self.inside).tobytes()).hexdigest()

    @property
    def words(self) -> str:
        """Share, size and the start of the hash, for identities and messages."""
        return f"{self.inside.mean():.1%} of {_by(self.size_wh)} pixels, sha256 {self.sha256[:_HASH]}"

    def at(self, size_wh: tuple[int, int]) -> np.ndarray:
        """What lies inside of the pictures scaled to another size: bool (height, width), read-only."""
        return self._tile.on(size_wh[::-1])

    @cached_property
    def _tile(self) -> TileInside:
        return TileInside(self.inside)

    def __reduce__(self) -> Any:
        return _made, (self.size_wh, self.areas, self.mask)

    def check(self, name: str, size_wh: tuple[int, int]) -> None:
        """Refuse a picture of another size.

        Raises:
            PictureError: carries ``name``.
        """
        if size_wh != self.size_wh:
            reason = f"it has {_by(size_wh)} pixels, the region of interest was drawn on {_by(self.size_wh)}"
            raise PictureError(name, f"{reason}: {_FIX}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Roi:
        """Read a file; see :func:`winspect.pictures.roi_files.read_file`.

        Raises:
            SettingsError: damaged, or what is wrong with it; names the file.
        """
        try:
            return cls.read(read_file(path))
        except SettingsError as error:
            raise SettingsError(f"{os.fspath(path)}: {error}") from error

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Roi:
        """The region of interest in a section of a product, or of :meth:`document`.

        ``file`` alone names one for :meth:`load`; else ``size`` with ``areas``, or with ``mask``, the base64 of a PNG.

        Raises:
            SettingsError: an unknown key, or what is wrong.
        """
        if not isinstance(document, Mapping):
            raise SettingsError(f"roi: got {_brief(document)}, need a table with {', '.join(_KEYS)}")
        if unknown := sorted(map(str, document.keys() - {*_KEYS})):
            raise SettingsError(f"roi: got the unknown key {unknown[0]!r}, known are {', '.join(_KEYS)}; correct it")
        if "file" in document:
            if len(document) > 1 or not isinstance(document["file"], str):
                raise SettingsError(f"roi: file: got {_brief(document)}, need the name of a file alone, a PNG or JSON")
            return cls.load(document["file"])
        try:
            size, areas = document.get("size"), document.get("areas", [])
            if not isinstance(areas, list | tuple):
                raise SettingsError(f"areas: got {_brief(areas)}, need a list of tables")
            mask = None
            if "mask" in document:
                pixels = decoded(document["mask"])
                size, mask = _size_of(pixels, size), np.packbits(pixels).tobytes()
            return cls(size, tuple(_area(number, entry) for number, entry in enumerate(areas)), mask)  # type: ignore[arg-type]
        except SettingsError as error:
            raise SettingsError(f"roi: {error}") from error

    def document(self) -> dict[str, Any]:
        """As JSON and TOML have it; it needs no other file."""
        size = {"size": list(self.size_wh)}
        if self.mask is None:
            return {**size, "areas": [area.document() for area in self.areas]}
        return {**size, "mask": encoded(self.inside)}

    def filled(self, image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
        """A picture, RGB, of this size, with a constant colour outside."""
        filled = Image.new("RGB", image.size, colour)
        filled.paste(image, mask=self._paste_mask)
        return filled

    @cached_property
    def _paste_mask(self) -> Image.Image:
        return Image.fromarray(self.inside)


def _size_of(mask: np.ndarray, size: Any) -> Any:
    """The size of a mask; another one that stands beside it is refused."""
    found = mask.shape[::-1]
    if size is not None and list(size) != list(found):
        raise SettingsError(f"size: got {_brief(size)} beside a mask of {_by(found)} pixels; use the mask's")
    return found


@lru_cache(maxsize=8)
def _made(size_wh: tuple[int, int], areas: tuple[Area, ...], mask: bytes | None) -> Roi:
    """One value for all copies of another process, so that what lies inside is found once."""
    return Roi(size_wh, areas, mask)


def _area(number: int, entry: Any) -> Area:
    try:
        if not isinstance(entry, Mapping):
            raise SettingsError(f"got {_brief(entry)}, need a table with {', '.join(_AREA_KEYS)}")
        if unknown := sorted(map(str, entry.keys() - {*_AREA_KEYS})):
            raise SettingsError(f"got the unknown key {unknown[0]!r}, known are {', '.join(_AREA_KEYS)}; correct it")
        if "polygon" not in entry:
            raise SettingsError("no polygon: give a list of points [x, y] in pixels")
        return Area(**entry)
    except SettingsError as error:
        raise SettingsError(f"area {number + 1}: {error}") from error


def _named(number: int, area: Area) -> str:
    return f"area {number + 1}" + (f" ({area.name})" if area.name else "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_point(point: object) -> bool:
    return isinstance(point, list | tuple) and len(point) == 2 and all(map(_is_number, point))


def _is_side(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and side > 0


def _by(size_wh: Any) -> str:
    return "x".join(map(str, size_wh))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
