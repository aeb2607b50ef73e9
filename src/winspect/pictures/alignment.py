"""Alignment: a picture is registered to a reference picture before it is cut, and its maps are brought back.

A transform is a matrix (2, 3) from the reference's coordinates to the picture's, in pixels, the centre of the upper
left pixel at (0.5, 0.5). A picture that is not registered well enough is inspected as it is, and says so.

How well pictures of a part can be registered differs from part to part, and the good samples say it: unless it is set,
the bound is 85 % of the lowest quality among them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.registration import LEAST_OVERLAP, Target, grey_of, register, warped

KINDS = ("translation", "euclidean", "affine")
Kind = Literal["translation", "euclidean", "affine"]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
TO = ", to sha256 "
"""What stands in :attr:`Alignment.words` before the reference, where there is one."""
_KEYS = ("kind", "min_quality", "size", "target", "usual")
_STILL = 0.1  # pixels: below it nothing is moved
_SHARE, _LEAST, _UNKNOWN = 0.85, 0.3, 0.5  # of the lowest quality among the good samples; the least bound; without any
_NEARLY, _ENOUGH = 0.95, 0.8  # of that quality; where it is not known: better registrations are not looked for


@dataclass(frozen=True)
class Aligned:
    """How a picture was registered.

    Attributes:
        quality: correlation over what picture and reference share, -1 to 1, 1 is best.
        aligned: whether the quality reaches the bound; else the picture was inspected as it is.
        matrix: the transform; the identity where nothing was moved.
        reason: why it is not aligned; None where it is.
    """

    quality: float
    aligned: bool
    matrix: Matrix = IDENTITY
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """As rows have it."""
        return {
            "quality": round(self.quality, 4),
            "aligned": self.aligned,
            "matrix": [list(row) for row in self.matrix],
        }

    def scaled(self, x: float, y: float) -> Aligned:
        """The same for reference and picture scaled by factors."""
        (a, b, c), (d, e, f) = self.matrix
        return replace(self, matrix=((a, b * x / y, c * x), (d * y / x, e, f * y)))

    def back(self, values: np.ndarray, *, outside: float) -> np.ndarray:
        """Values on the reference's pixels, float32 or bool (height, width), on the picture's.

        Args:
            outside: value of pixels that are not on the reference.
        """
        if self.matrix == IDENTITY:
            return values
        inverse = np.linalg.inv(np.vstack([self.matrix, (0, 0, 1)]))[:2]
        is_mask = values.dtype == bool
        image = Image.fromarray(values.astype(np.uint8) if is_mask else values.astype(np.float32))
        how = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
        found = image.transform(image.size, Image.Transform.AFFINE, inverse.ravel().tolist(), how, fillcolor=outside)
        return np.asarray(found).astype(values.dtype)


@dataclass(frozen=True)
class Alignment:
    """How pictures are registered to the first reference picture of a class.

    Attributes:
        kind: the transform: ``translation``, ``euclidean`` (and a turn), or ``affine``.
        min_quality: correlation over what both show, 0 to 1; a picture below it is not aligned, and never normal. None
            for 85 % of :attr:`usual`, at least 0.3; or 0.5 where that is not known.
        size_wh: width and height of the reference picture; None where it is not known yet.
        target: the reference picture, small and grey, as a PNG; None where it is not known yet.
        usual: the lowest quality among the other good samples; None without any.

    Raises:
        SettingsError: a value out of range.
    """

    kind: Kind = "euclidean"
    min_quality: float | None = None
    size_wh: tuple[int, int] | None = None
    target: bytes | None = field(default=None, repr=False)
    usual: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"alignment: kind: got {self.kind!r}, need one of {', '.join(KINDS)}")
        quality = self.min_quality
        if quality is not None and not (
            isinstance(quality, int | float) and not isinstance(quality, bool) and 0 <= quality <= 1
        ):
            raise SettingsError(f"alignment: min_quality: got {quality!r}, need a number from 0 to 1, such as 0.5")

    def to(self, reference: Image.Image) -> Alignment:
        """The same, to a reference picture, RGB.

        Raises:
            MissingExtraError: OpenCV is not installed.
        """
        buffer = io.BytesIO()
        Image.fromarray(grey_of(np.asarray(reference))).save(buffer, format="PNG")
        return replace(self, size_wh=reference.size, target=buffer.getvalue())

    def after(self, samples: Sequence[Aligned]) -> Alignment:
        """The same, once the other good samples were registered."""
        return replace(self, usual=min((sample.quality for sample in samples), default=None))

    @property
    def bound(self) -> float:
        """The quality from which on a picture is aligned."""
        if self.min_quality is not None:
            return self.min_quality
        return _UNKNOWN if self.usual is None else max(_LEAST, _SHARE * self.usual)

    @property
    def words(self) -> str:
        """Kind, bound and the start of the reference's hash, for identities and messages."""
        words = self.kind if self.min_quality is None else f"{self.kind} of quality {self.min_quality:g}"
        if self.target is None:
            return words
        return f"{words}{TO}{hashlib.sha256(self.target).hexdigest()[:16]}, quality from {self.bound:.3g}"

    def align(self, name: str, image: Image.Image) -> tuple[Image.Image, np.ndarray | None, Aligned]:
        """Register a picture, RGB.

        Returns:
            The picture as the reference lies; which of its pixels are there, bool (height, width), None for all: others
            are mirrored; and how it was registered.

        Raises:
            PictureError: it has another size than the reference; carries ``name``.
            SettingsError: there is no reference yet.
            MissingExtraError: OpenCV is not installed.
        """
        if self.target is None or self.size_wh is None:
            raise SettingsError("alignment registers pictures to the first good sample: show some (--reference)")
        if image.size != self.size_wh:
            sizes = ["x".join(map(str, size)) for size in (image.size, self.size_wh)]
            reason = f"it has {sizes[0]} pixels, the reference that it is aligned to {sizes[1]}: resize one of them"
            raise PictureError(name, reason)
        rgb, target = np.asarray(image), _target(self.target)
        enough = _ENOUGH if self.usual is None else max(self.bound, _NEARLY * self.usual)
        small, quality = register(grey_of(rgb), target, self.kind, enough=enough)
        if quality < self.bound:
            return image, None, Aligned(quality, False, reason=f"quality {quality:.2f} < {self.bound:.2f}")
        scales = [small_side / side for small_side, side in zip(target.grey.shape[::-1], image.size, strict=True)]
        aligned = Aligned(quality, True, _matrix(small)).scaled(1 / scales[0], 1 / scales[1])
        if _farthest(aligned.matrix, image.size) < _STILL:
            return image, None, replace(aligned, matrix=IDENTITY)
        moved, there = warped(rgb, np.array(aligned.matrix))
        return Image.fromarray(moved), None if there.all() else there, aligned

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Alignment:
        """The alignment in a section of a product, or of :meth:`document`; what it does not name has its default.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        if not isinstance(document, Mapping):
            raise SettingsError(f"alignment: got {document!r}, need a table with {', '.join(_KEYS)}")
        if unknown := sorted(map(str, document.keys() - {*_KEYS})):
            raise SettingsError(f"alignment: got the unknown key {unknown[0]!r}, known are {', '.join(_KEYS)}")
        given = {name: document[name] for name in ("kind", "min_quality") if name in document}
        if "target" not in document:
            return cls(**given)
        try:
            width, height = document["size"]
            usual = None if document.get("usual") is None else float(document["usual"])
            target = base64.b64decode(document["target"], validate=True)
            return cls(**given, size_wh=(int(width), int(height)), target=target, usual=usual)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"alignment: target: damaged ({error}); show the good samples again") from error

    def document(self) -> dict[str, Any]:
        """As JSON and TOML have it."""
        bound = {} if self.min_quality is None else {"min_quality": self.min_quality}
        settings = {"kind": self.kind, **bound}
        if self.target is None or self.size_wh is None:
            return settings
        target = base64.b64encode(self.target).decode()
        usual = {} if self.usual is None else {"usual": self.usual}
        return {**settings, "size": list(self.size_wh), "target": target, **usual}


def too_little(roi: np.ndarray, there: np.ndarray) -> bool:
    """Whether less than :data:`~winspect.pictures.registration.LEAST_OVERLAP` of a region of interest is there."""
    return bool((roi & there).sum() < LEAST_OVERLAP * roi.sum())


@lru_cache(maxsize=8)
def _target(png: bytes) -> Target:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return Target(np.asarray(image.convert("L")))


def _matrix(values: np.ndarray) -> Matrix:
    (a, b, c), (d, e, f) = values.tolist()
    return (a, b, c), (d, e, f)


def _farthest(matrix: Matrix, size_wh: tuple[int, int]) -> float:
    """How far a transform moves a corner of the picture, in pixels."""
    width, height = size_wh
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    (a, b, c), (d, e, f) = matrix
    return max(math.hypot(a * x + b * y + c - x, d * x + e * y + f - y) for x, y in corners)
