"""Defects of shape and structure: edges broken off, material moved, texture changed, parts missing."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, Edit
from .defects import colour_shift, mark, on, radius, rim, spot, tone
from .noise import (
    FRAME_X,
    FRAME_Y,
    PIXEL_X,
    PIXEL_Y,
    SIZE,
    Field,
    Rng,
    any_colour,
    chance,
    clouds,
    log_uniform,
    ramp,
    soften,
)
from .shapes import blob, cloudy, local_warp, patch, path, stroke, turn_and_scale

EDITS = ("missing_part", "displaced_part", "turned_part", "wrong_size_part", "wrong_colour_part", "extra_part")


def draw_edit(name: str, rng: Rng) -> Edit:
    """The change of one part that the fault ``name`` stands for."""
    index, heading = int(rng.integers(0, 997)), rng.uniform(0, 2 * np.pi)
    far = log_uniform(rng, 0.05, 0.3)
    dx, dy = far * np.cos(heading), far * np.sin(heading)
    sign = 1 if chance(rng, 0.5) else -1
    if name == "missing_part":
        return Edit("missing", index)
    if name == "displaced_part":
        return Edit("shifted", index, dx, dy, rng.normal(0, 0.3) if chance(rng, 0.4) else 0.0)
    if name == "turned_part":
        return Edit("turned", index, angle=sign * log_uniform(rng, 0.15, 1.6))
    if name == "wrong_size_part":
        return Edit("resized", index, scale=log_uniform(rng, 0.5, 0.85) if sign < 0 else rng.uniform(1.15, 1.5))
    if name == "wrong_colour_part":
        return Edit("recoloured", index, tint=any_colour(rng, (0.0, 0.9), (0.2, 1.0)))
    return Edit("doubled", index, dx, dy, rng.uniform(-1, 1))


# edges ------------------------------------------------------------------------------------------
@mark
def chip(canvas: Canvas, rng: Rng) -> None:
    """Material broken away at the edge, or a flake out of the surface where no edge is in view."""
    at, size = rim(canvas, rng), radius(rng, 4, 28)
    cover = on(canvas, blob(rng, at, size, 0.35, rng.uniform(1, 1.8)))
    facets = clouds(rng, max(3.0, size * 0.4), 2) * np.float32(size * 0.12)
    if canvas.alpha.min() < 0.5:
        inside = soften(cover, 1.5)
        canvas.paint(
            np.clip(inside * 1.5, 0, 1) * canvas.alpha * np.float32(0.7), tone(canvas, cover, rng, 0.5), facets
        )
        canvas.alpha *= 1 - cover
    else:
        canvas.paint(
            cover, np.clip(np.asarray(tone(canvas, cover, rng, 0.5)) + 0.05 * facets[..., None], 0, 1), facets - 2
        )


@mark
def broken(canvas: Canvas, rng: Rng) -> None:
    """A large piece is gone, along a jagged line."""
    ys, xs = np.nonzero(canvas.alpha[::4, ::4] > 0.5)
    if len(xs) == 0:
        return
    heading = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    along = PIXEL_X * cos + PIXEL_Y * sin
    edge = float(np.quantile(4 * (xs * cos + ys * sin), 1 - log_uniform(rng, 0.01, 0.2)))
    gone = ramp(along + np.float32(rng.uniform(1, 5)) * clouds(rng, rng.uniform(5, 25), 3), edge - 0.7, edge + 0.7)
    near = np.clip(soften(gone, 2) * 2, 0, 1) * canvas.alpha
    if canvas.alpha.min() < 0.5:
        canvas.paint(near * np.float32(0.6), tone(canvas, near, rng, 0.4))
        canvas.alpha *= 1 - gone
    else:
        canvas.paint(gone, tone(canvas, gone, rng, 0.8), -2.0, 0.0)


# material moved ---------------------------------------------------------------------------------
def move(canvas: Canvas, from_x: Field, from_y: Field, area: Field | None = None) -> None:
    """Take every pixel from (from_x, from_y); with ``area``, blend the moved picture in there only."""
    stack = np.dstack([canvas.colour, canvas.height])
    where = (from_x.astype(np.float32), from_y.astype(np.float32))
    moved = cv2.remap(stack, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    alpha = cv2.remap(canvas.alpha, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gloss = cv2.remap(canvas.gloss, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if area is None:
        area = np.ones((SIZE, SIZE), np.float32)
    canvas.colour += (moved[..., :3] - canvas.colour) * area[..., None]
    canvas.height += (moved[..., 3] - canvas.height) * area
    canvas.alpha += (alpha - canvas.alpha) * area
    canvas.gloss += (gloss - canvas.gloss) * area


@mark
def deform(canvas: Canvas, rng: Rng) -> None:
    at = rim(canvas, rng) if chance(rng, 0.5) else spot(canvas, rng)
    move(canvas, *local_warp(rng, at, radius(rng, 14, 60), log_uniform(rng, 0.2, 0.5)))


@mark
def bend(canvas: Canvas, rng: Rng) -> None:
    """Everything beyond a line leans over."""
    heading, (x, y) = rng.uniform(0, 2 * np.pi), spot(canvas, rng)
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    beyond = np.maximum((PIXEL_X - np.float32(x)) * cos + (PIXEL_Y - np.float32(y)) * sin, 0)
    lean = np.float32(log_uniform(rng, 0.08, 0.35) * rng.choice([-1, 1]))
    move(canvas, PIXEL_X - lean * beyond * sin, PIXEL_Y + lean * beyond * cos)


@mark
def pulled_thread(canvas: Canvas, rng: Rng) -> None:
    """The texture is drawn together along a line, with a loop or gap in its middle."""
    heading, (x, y) = canvas.angle + rng.choice([0, np.pi / 2]), spot(canvas, rng)
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    along = (PIXEL_X - np.float32(x)) * cos + (PIXEL_Y - np.float32(y)) * sin
    across = (PIXEL_Y - np.float32(y)) * cos - (PIXEL_X - np.float32(x)) * sin
    width, length = np.float32(rng.uniform(3, 10)), np.float32(log_uniform(rng, 15, 90))
    pull = np.float32(rng.uniform(0.8, 2.2)) * across * np.exp(-((across / width) ** 2) - (along / length) ** 2)
    move(canvas, PIXEL_X - sin * pull, PIXEL_Y + cos * pull)
    line = on(canvas, np.exp(-((across / np.float32(rng.uniform(0.8, 2.0))) ** 2) - (along / length) ** 2))
    canvas.paint(line * np.float32(rng.uniform(0.1, 0.6)), tone(canvas, line, rng, 0.6))


@mark
def fold(canvas: Canvas, rng: Rng) -> None:
    """One or more soft ridges: a fold, crease or wrinkle."""
    heading, at = rng.uniform(0, np.pi), spot(canvas, rng)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        here = (at[0] + rng.normal(0, 18), at[1] + rng.normal(0, 18))
        line = path(rng, here, log_uniform(rng, 40, 260), 0.02, 0, heading + rng.normal(0, 0.3))
        width = log_uniform(rng, 1.5, 7)
        ridge = on(canvas, soften(stroke(line, width, True), width * 0.6))
        canvas.height += ridge * np.float32(width * rng.uniform(0.6, 1.8) * rng.choice([-1, 1]))
        canvas.multiply(1 + ridge * np.float32(rng.uniform(-0.35, 0.2)))


# texture changed --------------------------------------------------------------------------------
def _area(canvas: Canvas, rng: Rng, whole: float) -> tuple[Field, tuple[float, float]]:
    """A soft-edged region on the item, or with probability ``whole`` all of it."""
    at = spot(canvas, rng)
    if chance(rng, whole):
        return canvas.alpha.copy(), (SIZE / 2, SIZE / 2)
    size = radius(rng, 10, 55)
    if chance(rng, 0.4):
        area = patch(rng, at, (size, size * rng.uniform(0.4, 1)), canvas.angle + rng.choice([0.0, rng.uniform(0, 3)]))
    else:
        area = blob(rng, at, size, 0.2, rng.uniform(1, 2))
    return on(canvas, soften(area, rng.choice([0.6, 2, 6]))), at


@mark
def density_change(canvas: Canvas, rng: Rng) -> None:
    area, at = _area(canvas, rng, 0.15)
    factor = log_uniform(rng, 0.5, 0.85) if chance(rng, 0.5) else rng.uniform(1.2, 2.0)
    scale = (factor, factor) if chance(rng, 0.4) else (factor, 1.0)
    move(canvas, *turn_and_scale(at, 0.0, scale, canvas.angle + rng.choice([0, np.pi / 2])), area)


@mark
def turned_texture(canvas: Canvas, rng: Rng) -> None:
    area, at = _area(canvas, rng, 0.12)
    move(canvas, *turn_and_scale(at, rng.choice([-1, 1]) * rng.uniform(0.2, 1.5), (1, 1), 0.0), area)


@mark
def swapped_patch(canvas: Canvas, rng: Rng) -> None:
    """A piece from elsewhere on the same item."""
    area, _ = _area(canvas, rng, 0.0)
    heading, far = rng.uniform(0, 2 * np.pi), rng.uniform(20, 90)
    move(canvas, PIXEL_X + np.float32(far * np.cos(heading)), PIXEL_Y + np.float32(far * np.sin(heading)), area)


@mark
def worn(canvas: Canvas, rng: Rng) -> None:
    """Texture rubbed away: colour and relief flattened."""
    area, _ = _area(canvas, rng, 0.15)
    size = int(rng.choice([7, 11, 19]))
    flat = cv2.blur(canvas.colour, (size, size)) * (1 + np.asarray(colour_shift(rng, 0.03, 0.2), np.float32))
    canvas.paint(area * np.float32(rng.uniform(0.6, 1)), flat, cv2.blur(canvas.height, (size, size)))


@mark
def smear(canvas: Canvas, rng: Rng) -> None:
    area, _ = _area(canvas, rng, 0.1)
    length, heading = int(rng.integers(7, 28)), rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    half = (length - 1) / 2
    step = np.array([np.cos(heading), np.sin(heading)]) * half
    start, end = np.round(half - step).astype(int), np.round(half + step).astype(int)
    cv2.line(kernel, [int(t) for t in start], [int(t) for t in end], 1.0, 1)
    canvas.paint(area, cv2.filter2D(canvas.colour, -1, kernel / kernel.sum()))


@mark
def uneven(canvas: Canvas, rng: Rng) -> None:
    """The whole surface is blotchy, streaked or clouded as it should not be."""
    if chance(rng, 0.5):
        noise = clouds(rng, log_uniform(rng, 6, 24), 2)
    else:
        cos, sin = np.float32(np.cos(canvas.angle)), np.float32(np.sin(canvas.angle))
        across = FRAME_Y * cos - FRAME_X * sin
        cell = np.float32(log_uniform(rng, 8, 60))
        noise = clouds(rng, 200, 1) * 0.2 + np.float32(1.2) * np.interp(
            across * cell, np.arange(-90, 91), rng.standard_normal(181)
        ).astype(np.float32)
    shift = np.asarray(colour_shift(rng, 0.1, 0.25), np.float32)
    canvas.multiply(np.clip(1 + on(canvas, noise)[..., None] * shift, 0.1, 2))


@mark
def coarse(canvas: Canvas, rng: Rng) -> None:
    """Strong grain or pimples over an area or everywhere, as of orange peel or a wrong finish."""
    area, _ = _area(canvas, rng, 0.4)
    noise = clouds(rng, log_uniform(rng, 2, 8), 2)
    canvas.height += area * noise * np.float32(rng.uniform(0.5, 2.0))
    canvas.multiply(np.clip(1 + area * noise * np.float32(rng.uniform(0.03, 0.15)), 0.2, 2))


@mark
def ghost_print(canvas: Canvas, rng: Rng) -> None:
    """The pattern appears twice, a little apart, in an area or everywhere."""
    area, _ = _area(canvas, rng, 0.25)
    heading, far = rng.uniform(0, 2 * np.pi), rng.uniform(2, 9)
    shift = np.array([[1, 0, far * np.cos(heading)], [0, 1, far * np.sin(heading)]], np.float32)
    second = cv2.warpAffine(canvas.colour, shift, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    canvas.paint(area * np.float32(rng.uniform(0.3, 0.6)), np.minimum(second, canvas.colour))


@mark
def flake(canvas: Canvas, rng: Rng) -> None:
    """A coat has come off in patches; what is under it shows."""
    size = radius(rng, 6, 36)
    area = cloudy(rng, blob(rng, spot(canvas, rng), size, 0.4, rng.uniform(1, 2.5)), size * 0.7, 0.7)
    cover = on(canvas, ramp(area, 0.4, 0.6))
    under = tone(canvas, cover, rng, 0.5) if chance(rng, 0.6) else any_colour(rng, (0, 0.5))
    canvas.paint(cover, under, canvas.height - np.float32(rng.uniform(0.5, 2)))
