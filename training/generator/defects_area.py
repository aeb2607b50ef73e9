"""Defects that cover an area: holes, dents, stains, dirt, wear."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .defects import colour_shift, mark, on, radius, shadow, spot, tone
from .noise import (
    PIXEL_X,
    PIXEL_Y,
    Rng,
    any_colour,
    chance,
    clouds,
    earth,
    greyish,
    hsv,
    lattice,
    log_uniform,
    ramp,
    rgb,
    soften,
)
from .shapes import blob, cloudy, patch, path, specks, stroke


@mark
def hole(canvas: Canvas, rng: Rng) -> None:
    at, size = spot(canvas, rng), radius(rng, 2.5, 22)
    cover = on(canvas, blob(rng, at, size, rng.uniform(0.02, 0.3), rng.uniform(1, 1.6)))
    lip = np.clip(soften(cover, 1.5) * 2.2, 0, 1) * canvas.alpha
    canvas.height += lip * np.float32(rng.uniform(-1.5, 2.5))
    if chance(rng, 0.5):
        canvas.alpha *= 1 - cover
    else:
        depth = np.float32(rng.uniform(0.05, 0.5)) * (1 + 0.15 * clouds(rng, 6, 2))
        canvas.paint(cover, canvas.colour * depth[..., None], -2.0, 0.0)


@mark
def dent(canvas: Canvas, rng: Rng) -> None:
    size = radius(rng, 5, 36)
    bump = soften(blob(rng, spot(canvas, rng), size, 0.12, rng.uniform(1, 2.5)), size * rng.uniform(0.2, 0.45))
    canvas.height += on(canvas, bump) * np.float32(size * rng.uniform(0.25, 0.9) * rng.choice([-1, -1, 1]))
    canvas.gloss += on(canvas, bump) * np.float32(rng.uniform(0, 0.25))
    canvas.multiply(1 - on(canvas, bump) * np.float32(rng.uniform(-0.1, 0.25)))


@mark
def bubble(canvas: Canvas, rng: Rng) -> None:
    x, y = spot(canvas, rng)
    for _ in range(int(rng.choice([1, 1, 2, 5, 9]))):
        size = radius(rng, 2.5, 14)
        cover = blob(rng, (x, y), size, 0.04, rng.uniform(1, 1.3))
        ring = np.clip(cover - soften(cover, size * 0.3), 0, 1) * 2
        canvas.height += on(canvas, soften(cover, size * 0.25)) * np.float32(size * rng.uniform(0.4, 1.0))
        canvas.multiply(1 - on(canvas, ring) * np.float32(rng.uniform(-0.4, 0.6)))
        canvas.gloss += on(canvas, cover) * np.float32(rng.uniform(0, 0.4))
        x, y = x + rng.normal(0, 18), y + rng.normal(0, 18)


@mark
def stain(canvas: Canvas, rng: Rng) -> None:
    size = radius(rng, 6, 45)
    cover = blob(rng, spot(canvas, rng), size, 0.3, rng.uniform(1, 2))
    area = soften(cover, size * rng.uniform(0.03, 0.35))
    if chance(rng, 0.4):
        area = np.clip(area * 0.6 + np.clip(cover - soften(cover, 3), 0, 1) * 1.2, 0, 1)
    if chance(rng, 0.5):
        area *= np.clip(0.8 + 0.3 * clouds(rng, size * 0.5, 3), 0, 1)
    tint = rgb(earth(rng, (0.2, 0.8)) if chance(rng, 0.5) else any_colour(rng, (0, 0.8)))
    strength = np.float32(log_uniform(rng, 0.2, 0.9))
    canvas.multiply(1 - on(canvas, area)[..., None] * strength * (1 - tint))


@mark
def liquid(canvas: Canvas, rng: Rng) -> None:
    cover = blob(rng, spot(canvas, rng), radius(rng, 5, 32), 0.35, rng.uniform(1, 2.5))
    if chance(rng, 0.4):
        cover = np.maximum(cover, specks(rng, spot(canvas, rng), 14, int(rng.integers(2, 9)), (1.5, 6)))
    cover = on(canvas, cover)
    canvas.multiply(1 - cover * np.float32(rng.uniform(0.1, 0.5)))
    canvas.gloss += cover * np.float32(rng.uniform(0.2, 0.7))
    canvas.height += soften(cover, 1.6) * np.float32(rng.uniform(1, 4))


@mark
def discolouration(canvas: Canvas, rng: Rng) -> None:
    size = radius(rng, 12, 60)
    area = on(canvas, soften(blob(rng, spot(canvas, rng), size, 0.3, rng.uniform(1, 2)), size * rng.uniform(0.1, 0.4)))
    if chance(rng, 0.4):
        area = cloudy(rng, area, rng.uniform(4, 20), rng.uniform(0.4, 0.8))
    canvas.multiply(1 + area[..., None] * np.asarray(colour_shift(rng, 0.18, 0.6), np.float32))


@mark
def recolour(canvas: Canvas, rng: Rng) -> None:
    """An area takes on another hue while its texture stays."""
    size = radius(rng, 8, 50)
    area = on(canvas, soften(blob(rng, spot(canvas, rng), size, 0.25, rng.uniform(1, 2.5)), rng.uniform(0.6, 6)))
    luma = canvas.colour.mean(2, keepdims=True)
    hue = rgb(hsv(rng.random(), rng.uniform(0.3, 0.9), 1.0))
    hue = hue / max(float(hue.mean()), 0.3) * np.float32(rng.uniform(0.75, 1.1))
    canvas.paint(area * np.float32(rng.uniform(0.35, 1.0)), np.clip(luma * hue, 0, 1))


@mark
def burn(canvas: Canvas, rng: Rng) -> None:
    size, at = radius(rng, 5, 32), spot(canvas, rng)
    cover = blob(rng, at, size, 0.2, rng.uniform(1, 1.8))
    halo, core = on(canvas, soften(cover, size * 0.45)), on(canvas, soften(cover, size * 0.12))
    brown = rgb(hsv(0.07, 0.65, 0.35))
    canvas.multiply(1 - halo[..., None] * (1 - brown) * np.float32(rng.uniform(0.3, 0.8)))
    canvas.multiply(1 - cloudy(rng, core, size * 0.4, 0.75) * np.float32(rng.uniform(0.3, 0.9)))


@mark
def glue(canvas: Canvas, rng: Rng) -> None:
    size = radius(rng, 4, 28)
    cover = blob(rng, spot(canvas, rng), size, 0.25, rng.uniform(1, 3))
    clear = rng.uniform(0.2, 0.9)
    tint = any_colour(rng, (0, 0.5), (0.5, 1.0))
    cover = cover * np.maximum(canvas.alpha, np.float32(chance(rng, 0.5)))
    rise = soften(cover, max(1.0, size * 0.25)) * np.float32(size * rng.uniform(0.3, 0.9))
    canvas.height += rise * cover
    canvas.gloss += cover * np.float32(rng.uniform(0.1, 0.6))
    canvas.paint(cover * np.float32(1 - 0.8 * clear), tint)
    canvas.multiply(1 - np.clip(cover - soften(cover, 2), 0, 1) * np.float32(rng.uniform(0.1, 0.7)))


@mark
def particles(canvas: Canvas, rng: Rng) -> None:
    count = int(rng.choice([1, 2, 4, 9, 25]))
    cover = specks(rng, spot(canvas, rng), log_uniform(rng, 4, 45), count, (0.9, log_uniform(rng, 1.6, 5.0)))
    colour = any_colour(rng) if chance(rng, 0.3) else greyish(rng, (0.02, 0.98))
    shadow(canvas, cover, rng)
    canvas.paint(cover * np.maximum(canvas.alpha, np.float32(chance(rng, 0.3))), colour, soften(cover, 0.8) * 2)


@mark
def foreign_object(canvas: Canvas, rng: Rng) -> None:
    """A chip, crumb, clip or scrap that does not belong here."""
    size, at = radius(rng, 4, 24), spot(canvas, rng)
    kind = rng.integers(0, 3)
    if kind == 0:
        cover = blob(rng, at, size, rng.uniform(0.05, 0.35), rng.uniform(1, 3))
    elif kind == 1:
        cover = patch(rng, at, (size, size * rng.uniform(0.15, 0.9)), rng.uniform(0, np.pi))
    else:
        cover = stroke(path(rng, at, size * 3, 0.15), max(2.0, size * 0.25))
    colour = rgb(any_colour(rng, (0, 0.9), (0.1, 1.0)))
    grain = 1 + np.float32(rng.uniform(0, 0.2)) * clouds(rng, rng.uniform(2, 8), 2)
    shadow(canvas, cover, rng)
    canvas.paint(
        cover,
        np.clip(colour * grain[..., None], 0, 1),
        soften(cover, size * 0.2) * np.float32(size * 0.4),
        rng.uniform(0, 0.4),
    )


@mark
def scuff(canvas: Canvas, rng: Rng) -> None:
    """Abrasion: many fine parallel marks within an area."""
    size, heading = radius(rng, 8, 42), rng.uniform(0, np.pi)
    area = soften(blob(rng, spot(canvas, rng), size, 0.25, rng.uniform(1, 3)), size * 0.15)
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    along, across = PIXEL_X * cos + PIXEL_Y * sin, PIXEL_Y * cos - PIXEL_X * sin
    streak = ramp(
        lattice(rng, along / np.float32(rng.uniform(10, 40)), across / np.float32(rng.uniform(1, 2.5)), 2), -0.6, 1.2
    )
    cover = on(canvas, area * streak)
    canvas.paint(cover * np.float32(rng.uniform(0.3, 1)), tone(canvas, cover, rng, 0.35))
    canvas.height += cover * np.float32(rng.uniform(-0.8, 0.4))


@mark
def pitting(canvas: Canvas, rng: Rng) -> None:
    """Rust, corrosion or pores: noise-shaped specks gathered in an area."""
    size = radius(rng, 8, 55)
    area = soften(blob(rng, spot(canvas, rng), size, 0.3, rng.uniform(1, 2)), size * 0.2)
    cover = on(canvas, cloudy(rng, area, log_uniform(rng, 2, 9), rng.uniform(0.2, 0.6)))
    rust = chance(rng, 0.5)
    colour = earth(rng, (0.2, 0.55)) if rust else tone(canvas, cover, rng, 0.85)
    canvas.paint(cover * np.float32(rng.uniform(0.5, 1)), colour, canvas.height - np.float32(rng.uniform(0, 1.5)), 0.0)


@mark
def ink(canvas: Canvas, rng: Rng) -> None:
    """A blot, smear or wrong mark of print."""
    at, size = spot(canvas, rng), radius(rng, 3, 22)
    kind = rng.integers(0, 3)
    if kind == 0:
        cover = np.maximum(blob(rng, at, size, 0.3), specks(rng, at, size * 1.3, int(rng.integers(0, 9)), (0.8, 2.5)))
    elif kind == 1:
        cover = stroke(path(rng, at, size * 4, 0.12), rng.uniform(1.2, 4))
    else:
        cover = soften(patch(rng, at, (size * 1.5, size * 0.4), rng.uniform(0, np.pi)), 1.5)
    colour = greyish(rng, (0.02, 0.2)) if chance(rng, 0.5) else any_colour(rng, (0.5, 1.0))
    canvas.paint(on(canvas, cover) * np.float32(rng.uniform(0.5, 1)), colour)


@mark
def dead_region(canvas: Canvas, rng: Rng) -> None:
    """A part that went dark: straight borders along the product's axes, or a jagged one."""
    at = spot(canvas, rng)
    if chance(rng, 0.6):
        area = patch(
            rng, at, (log_uniform(rng, 10, 120), log_uniform(rng, 8, 60)), canvas.angle + rng.choice([0, np.pi / 2])
        )
    else:
        area = blob(rng, at, radius(rng, 10, 55), 0.5, rng.uniform(1, 3))
    area = on(canvas, soften(area, rng.choice([0.6, 1.5, 6.0])))
    canvas.multiply(1 - area * np.float32(log_uniform(rng, 0.2, 0.9)))
