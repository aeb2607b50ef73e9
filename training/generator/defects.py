"""Defects along lines, and what all defects share: each changes a canvas's colour, height, gloss or alpha in place."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .canvas import Canvas
from .noise import (
    PIXEL_X,
    PIXEL_Y,
    SIZE,
    Colour,
    Field,
    Rng,
    any_colour,
    chance,
    clouds,
    greyish,
    log_uniform,
    ramp,
    rgb,
    soften,
)
from .shapes import crack_lines, patch, path, stroke

Mark = Callable[[Canvas, Rng], None]
MARKS: dict[str, Mark] = {}


def mark(function: Mark) -> Mark:
    MARKS[function.__name__] = function
    return function


def spot(canvas: Canvas, rng: Rng) -> tuple[float, float]:
    """A random place on the item."""
    for _ in range(60):
        x, y = rng.integers(10, SIZE - 10, 2)
        if canvas.alpha[y, x] > 0.9:
            return float(x), float(y)
    best = int(np.argmax(canvas.alpha))
    return float(best % SIZE), float(best // SIZE)


def rim(canvas: Canvas, rng: Rng) -> tuple[float, float]:
    """A random place on the item's outline; anywhere if it has none in the picture."""
    ys, xs = np.nonzero((canvas.alpha > 0.3) & (canvas.alpha < 0.8))
    if len(xs) == 0:
        return spot(canvas, rng)
    i = rng.integers(0, len(xs))
    return float(xs[i]), float(ys[i])


def radius(rng: Rng, low: float = 3.0, high: float = 32.0) -> float:
    return log_uniform(rng, low, high)


def tone(canvas: Canvas, cover: Field, rng: Rng, dark: float = 0.6) -> Colour:
    """A darker (with this probability) or a brighter shade of what lies under ``cover``."""
    weight = cover * canvas.alpha
    mean = (canvas.colour * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-3)
    to_dark = chance(rng, dark) if 0.15 < mean.mean() < 0.85 else mean.mean() >= 0.85
    strength = log_uniform(rng, 0.18, 0.95)
    red, green, blue = mean * (1 - strength) if to_dark else mean + (1 - mean) * strength
    return float(red), float(green), float(blue)


def on(canvas: Canvas, cover: Field) -> Field:
    return cover * canvas.alpha


@mark
def scratch(canvas: Canvas, rng: Rng) -> None:
    count = int(rng.choice([1, 1, 1, 2, 3, 6]))
    heading, at = rng.uniform(0, 2 * np.pi), spot(canvas, rng)
    cover = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(count):
        here = (at[0] + rng.normal(0, 8) * (count > 1), at[1] + rng.normal(0, 8) * (count > 1))
        line = path(
            rng, here, log_uniform(rng, 14, 170), rng.choice([0.005, 0.02, 0.08]), 0, heading + rng.normal(0, 0.15)
        )
        cover = np.maximum(cover, stroke(line, log_uniform(rng, 0.6, 3.0), chance(rng, 0.5)))
    if chance(rng, 0.3):
        cover *= ramp(clouds(rng, 5, 2), -1.2, 0.4)
    cover = on(canvas, cover)
    canvas.paint(cover, tone(canvas, cover, rng, 0.4))
    canvas.height -= cover * np.float32(rng.uniform(0, 2.0))


@mark
def crack(canvas: Canvas, rng: Rng) -> None:
    width = log_uniform(rng, 0.6, 2.6)
    lines = crack_lines(rng, spot(canvas, rng), log_uniform(rng, 18, 180))
    cover = stroke(lines[0], width, True)
    for line in lines[1:]:
        cover = np.maximum(cover, stroke(line, width * rng.uniform(0.4, 0.9), True))
    cover = on(canvas, cover)
    canvas.paint(cover, tone(canvas, cover, rng, 0.93))
    canvas.height -= cover * np.float32(rng.uniform(0.3, 2.5))


@mark
def cut(canvas: Canvas, rng: Rng) -> None:
    at, heading = spot(canvas, rng), rng.uniform(0, 2 * np.pi)
    line = path(rng, at, log_uniform(rng, 14, 90), 0.01, 0, heading)
    width = log_uniform(rng, 1.2, 6.0)
    lips, gap = on(canvas, soften(stroke(line, width + 3, True), 0.8)), on(canvas, stroke(line, width, True))
    canvas.height += lips * np.float32(rng.uniform(0, 3))
    canvas.paint(gap, tone(canvas, gap, rng, 0.9), 0.0, 0.0)


@mark
def fibre(canvas: Canvas, rng: Rng) -> None:
    line = path(rng, spot(canvas, rng), log_uniform(rng, 15, 110), rng.uniform(0.1, 0.35))
    cover = stroke(line, log_uniform(rng, 0.6, 2.0))
    colour = any_colour(rng) if chance(rng, 0.4) else greyish(rng, (0.03, 0.97))
    shadow(canvas, cover, rng)
    canvas.paint(cover * (canvas.alpha if chance(rng, 0.7) else 1), colour)


@mark
def loose_thread(canvas: Canvas, rng: Rng) -> None:
    at = rim(canvas, rng) if chance(rng, 0.3) else spot(canvas, rng)
    width = log_uniform(rng, 1.5, 5.0)
    cover = stroke(path(rng, at, log_uniform(rng, 20, 130), rng.uniform(0.05, 0.3)), width)
    inner = np.clip(soften(cover, width / 3), 0, 1)
    own = rgb(tone(canvas, cover + 0.02, rng, 0.4) if chance(rng, 0.7) else any_colour(rng))
    twist = 0.85 + 0.15 * np.sin((PIXEL_X + PIXEL_Y) * np.float32(rng.uniform(0.6, 1.6)))
    shadow(canvas, cover, rng)
    canvas.paint(cover, own * (twist * (0.6 + 0.4 * inner))[..., None], inner * np.float32(width))


def shadow(canvas: Canvas, cover: Field, rng: Rng) -> None:
    move = np.array([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]], np.float32)
    cast = soften(cv2.warpAffine(cover, move, (SIZE, SIZE)), 1.2) * np.float32(rng.uniform(0, 0.5))
    canvas.multiply(1 - on(canvas, cast))


def _band(canvas: Canvas, rng: Rng, width: float, full: float = 0.5) -> Field:
    """A straight strip along one of the product's axes, across the picture or over a stretch of it."""
    heading = canvas.angle + (np.pi / 2 if chance(rng, 0.5) else 0)
    length = 700.0 if chance(rng, full) else log_uniform(rng, 25, 160)
    return on(canvas, patch(rng, spot(canvas, rng), (length / 2, width / 2), heading))


@mark
def missing_line(canvas: Canvas, rng: Rng) -> None:
    """A broken or missing thread, row or pass: a thin strip whose texture is gone."""
    cover = soften(_band(canvas, rng, log_uniform(rng, 1.3, 5.0)), 0.5)
    worn = cv2.blur(canvas.colour, (9, 9))
    strength = np.float32(rng.uniform(-0.35, 0.3))
    canvas.paint(cover, worn * (1 + strength), cv2.blur(canvas.height, (9, 9)) - np.float32(rng.uniform(0, 1.5)))


@mark
def band(canvas: Canvas, rng: Rng) -> None:
    """A wider strip that is lighter, darker or of another hue: a roll mark, a bad row."""
    cover = _band(canvas, rng, log_uniform(rng, 5, 30))
    cover = soften(cover, rng.choice([0.5, 2.0, 5.0]))
    canvas.multiply(1 + cover[..., None] * np.asarray(colour_shift(rng, 0.12, 0.5), np.float32))


def colour_shift(rng: Rng, low: float, high: float) -> Colour:
    """A relative colour change, mostly brightness."""
    size = log_uniform(rng, low, high) * (1 if chance(rng, 0.35) else -1)
    red, green, blue = size * (1 + rng.normal(0, rng.choice([0.05, 0.4]), 3))
    return max(-0.95, red), max(-0.95, green), max(-0.95, blue)


@mark
def broken_fingers(canvas: Canvas, rng: Rng) -> None:
    """Several parallel thin dark stretches side by side, as of interrupted contact lines."""
    (x, y), heading = spot(canvas, rng), canvas.angle + (np.pi / 2 if chance(rng, 0.3) else 0)
    length, step, cover = log_uniform(rng, 15, 80), rng.uniform(2.5, 7), np.zeros((SIZE, SIZE), np.float32)
    for i in range(rng.integers(1, 9)):
        at = (x - np.sin(heading) * i * step, y + np.cos(heading) * i * step)
        cover = np.maximum(
            cover, patch(rng, at, (length / 2 * rng.uniform(0.7, 1.1), step * rng.uniform(0.25, 0.5)), heading)
        )
    canvas.multiply(1 - on(canvas, soften(cover, 0.8)) * np.float32(rng.uniform(0.2, 0.8)))
