"""What a product draws on: a picture in layers, seen from a pose, with parts that can be edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .noise import FRAME_X, FRAME_Y, SIZE, Colour, Field, Rng, rng_of

Window = tuple[slice, slice]
WHOLE: Window = (slice(0, SIZE), slice(0, SIZE))


@dataclass
class Canvas:
    """Layers before light: colour (S, S, 3) in 0 ... 1, height in pixels, alpha and gloss in 0 ... 1."""

    colour: np.ndarray
    height: Field
    alpha: Field
    gloss: Field
    angle: float = 0.0  # of the product's axes in the picture, radians

    @classmethod
    def filled(cls, colour: Colour | np.ndarray, height: Field | None = None, gloss: float = 0.0) -> Canvas:
        """A surface that covers the whole picture."""
        base = np.empty((SIZE, SIZE, 3), np.float32)
        base[:] = np.asarray(colour, np.float32)
        relief = np.zeros((SIZE, SIZE), np.float32) if height is None else height.astype(np.float32)
        return cls(base, relief, np.ones((SIZE, SIZE), np.float32), np.full((SIZE, SIZE), gloss, np.float32))

    @classmethod
    def empty(cls) -> Canvas:
        canvas = cls.filled((0.0, 0.0, 0.0))
        canvas.alpha[:] = 0
        return canvas

    def copy(self) -> Canvas:
        return Canvas(self.colour.copy(), self.height.copy(), self.alpha.copy(), self.gloss.copy(), self.angle)

    def paint(
        self,
        cover: Field,
        colour: Colour | np.ndarray | None = None,
        height: float | Field | None = None,
        gloss: float | None = None,
        window: Window = WHOLE,
    ) -> None:
        """Lay an opaque thing of coverage ``cover`` (0 ... 1, the window's shape) over what is there."""
        c3 = cover[..., None]
        if colour is not None:
            area = self.colour[window]
            area += (np.asarray(colour, np.float32) - area) * c3
        if height is not None:
            self.height[window] += (np.asarray(height, np.float32) - self.height[window]) * cover
        if gloss is not None:
            self.gloss[window] += (np.float32(gloss) - self.gloss[window]) * cover
        self.alpha[window] = np.maximum(self.alpha[window], cover)

    def multiply(self, factor: Field | np.ndarray, window: Window = WHOLE) -> None:
        self.colour[window] *= factor[..., None] if factor.ndim == 2 else factor


@dataclass(frozen=True)
class Edit:
    """A structural fault: what happens to part ``index`` (modulo the number of parts)."""

    kind: str  # missing | shifted | turned | resized | recoloured | doubled
    index: int
    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    scale: float = 1.0
    tint: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    x: float
    y: float
    angle: float
    index: int
    scale: float
    tint: np.ndarray
    seed: int

    def rng(self) -> Rng:
        return rng_of(self.seed, self.index, "part")


@dataclass
class View:
    """One instance of a product in front of the camera.

    ``u``, ``v``: the product's own coordinates of every pixel; the picture spans -1 ... 1 at zoom 1.
    """

    seed: int
    angle: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    edit: Edit | None = None
    u: Field = field(init=False)
    v: Field = field(init=False)
    px: float = field(init=False)
    used_parts: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        cos, sin = np.float32(np.cos(self.angle) / self.zoom), np.float32(np.sin(self.angle) / self.zoom)
        x, y = FRAME_X - np.float32(self.shift[0]), FRAME_Y - np.float32(self.shift[1])
        self.u, self.v = cos * x + sin * y, cos * y - sin * x
        self.px = 2 / SIZE / self.zoom
        self.rng = rng_of(self.seed, "instance")

    def cover(self, distance: Field, soft: float = 1.0) -> Field:
        """Coverage of a shape from its signed distance (negative inside), antialiased over ``soft`` pixels."""
        return np.clip(np.float32(0.5) - distance * np.float32(1 / (self.px * soft)), 0, 1)

    def parts(self, places: Sequence[tuple[float, float, float]]) -> list[Part]:
        """The product's parts at (x, y, angle), with this view's edit done to one of them."""
        one = np.ones(3, np.float32)
        made = [Part(x, y, a, i, 1.0, one, self.seed) for i, (x, y, a) in enumerate(places)]
        offset, self.used_parts = self.used_parts, self.used_parts + len(made)
        edit = self.edit
        if edit is None or not made or (offset > 0 and edit.index % 2 == 0):
            return made
        i = edit.index % len(made)
        if edit.kind == "missing":
            return made[:i] + made[i + 1 :]
        old = made[i]
        tint = np.asarray(edit.tint, np.float32)
        new = Part(old.x + edit.dx, old.y + edit.dy, old.angle + edit.angle, old.index, edit.scale, tint, self.seed)
        return [*made, new] if edit.kind == "doubled" else [*made[:i], new, *made[i + 1 :]]

    def local(self, part: Part, radius: float) -> tuple[Window, Field, Field]:
        """Window around a part of this radius and the part's own coordinates in it (may be empty)."""
        cos, sin = np.cos(self.angle) * self.zoom, np.sin(self.angle) * self.zoom
        cx = (self.shift[0] + cos * part.x - sin * part.y + 1) * SIZE / 2
        cy = (self.shift[1] + sin * part.x + cos * part.y + 1) * SIZE / 2
        reach = radius * part.scale * self.zoom * SIZE / 2 + 2
        rows = slice(max(0, int(cy - reach)), max(0, min(SIZE, int(cy + reach) + 1)))
        cols = slice(max(0, int(cx - reach)), max(0, min(SIZE, int(cx + reach) + 1)))
        du, dv = self.u[rows, cols] - np.float32(part.x), self.v[rows, cols] - np.float32(part.y)
        c, s = np.float32(np.cos(part.angle) / part.scale), np.float32(np.sin(part.angle) / part.scale)
        return (rows, cols), c * du + s * dv, c * dv - s * du


def shade(colour: np.ndarray, factor: Field) -> np.ndarray:
    """A colour (3,) or (S, S, 3) made lighter or darker point by point, within 0 ... 1."""
    return np.clip(colour * factor[..., None], 0, 1)


def disc(u: Field, v: Field, radius: float) -> Field:
    return np.hypot(u, v) - np.float32(radius)


def box(u: Field, v: Field, a: float, b: float, corner: float = 0.0) -> Field:
    """Signed distance to a rectangle of half sides a, b, with rounded corners."""
    x, y = np.abs(u) - np.float32(a - corner), np.abs(v) - np.float32(b - corner)
    return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - np.float32(corner)


def polygon(u: Field, v: Field, radius: float, sides: int, corner: float = 0.0) -> Field:
    """Signed distance (exact near the sides) to a regular polygon, ``radius`` to the middle of a side."""
    angle = np.arctan2(v, u)
    step = np.float32(2 * np.pi / sides)
    folded = angle - step * np.round(angle / step)
    flat = np.hypot(u, v) * np.cos(folded) - np.float32(radius)
    return np.maximum(flat, np.hypot(u, v) - np.float32(radius * (1 / np.cos(np.pi / sides) - corner)))


def pill(u: Field, v: Field, half: float, radius: float) -> Field:
    """Signed distance to a capsule along u, straight part 2 * half."""
    return np.hypot(np.maximum(np.abs(u) - np.float32(half), 0), v) - np.float32(radius)


def dome(distance: Field, width: float, height: float) -> Field:
    """A rounded height that rises from 0 at the outline to ``height`` at ``width`` inside."""
    t = np.clip(-distance / np.float32(width), 0, 1)
    return np.float32(height) * np.sqrt(t * (2 - t))
