"""Stone, concrete, ceramic and other mineral surfaces."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, View
from .noise import (
    SIZE,
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
    voronoi,
)
from .registry import Draw, family
from .surfaces_metal import tinted

F = np.float32


@family("granite", "mineral")
def granite(rng: Rng) -> Draw:
    tones = np.array([greyish(rng, (0.05, 0.95)) if chance(rng, 0.7) else earth(rng) for _ in range(5)], F)
    count, blend = int(log_uniform(rng, 500, 6000)), rng.uniform(0.3, 1.0)
    weights = rng.dirichlet(np.ones(5) * 1.5)

    def draw(view: View) -> Canvas:
        labels, _ = voronoi(view.rng, count, 1.0)
        pick = view.rng.choice(5, count + 2, p=weights)
        colour = cv2.GaussianBlur(tones[pick[labels % len(pick)]], (0, 0), 0.7)
        mean = (tones * weights[:, None].astype(F)).sum(0)
        return Canvas.filled(tinted(mean + (colour - mean) * F(blend), 0.04 * clouds(view.rng, 2, 1)), None, 0.1)

    return draw


@family("terrazzo floor", "mineral")
def terrazzo(rng: Rng) -> Draw:
    base = rgb(greyish(rng, (0.5, 0.95)))
    tones = np.array([any_colour(rng, (0, 0.5), (0.15, 0.95)) for _ in range(6)], F)
    count, share = int(log_uniform(rng, 60, 700)), rng.uniform(0.4, 0.75)

    def draw(view: View) -> Canvas:
        labels, far = voronoi(view.rng, count, 2.0)
        reach = F(0.42 * SIZE / np.sqrt(count)) * view.rng.uniform(0.3, 1.4, count + 2).astype(F)[labels % (count + 2)]
        chip = soften((far < reach).astype(F), 0.6) * (
            view.rng.random(count + 2).astype(F)[labels % (count + 2)] < share
        )
        colour = base + (tones[view.rng.integers(0, 6, count + 2)[labels % (count + 2)]] - base) * chip[..., None]
        return Canvas.filled(tinted(colour, 0.02 * clouds(view.rng, 3, 2)), None, 0.15)

    return draw


@family("marble slab", "mineral", "gloss")
def marble(rng: Rng) -> Draw:
    base, vein = rgb(greyish(rng, (0.6, 0.97))), rgb(greyish(rng, (0.2, 0.6)))
    scale, sharp = rng.uniform(0.8, 3), rng.uniform(6, 22)

    def draw(view: View) -> Canvas:
        field = lattice(view.rng, view.u * F(scale), view.v * F(scale * 0.6), 4, 0.55)
        line = np.exp(-np.abs(field) * F(sharp)) * ramp(clouds(view.rng, 40, 2), -0.8, 1.0)
        colour = base + (vein - base) * line[..., None]
        return Canvas.filled(tinted(colour, 0.04 * clouds(view.rng, 45, 3)), None, 0.15)

    return draw


@family("concrete", "mineral")
def concrete(rng: Rng) -> Draw:
    base, pores, fine = rgb(greyish(rng, (0.4, 0.85))), rng.uniform(0, 0.7), rng.uniform(0.02, 0.08)

    def draw(view: View) -> Canvas:
        r = view.rng
        pit = ramp(clouds(r, 4, 2), 2.6 - pores, 3.0 - pores)
        tone = 0.06 * clouds(r, 50, 4, 0.6) + F(fine) * clouds(r, 1.6, 2) - 0.35 * pit
        return Canvas.filled(tinted(base, tone), -2 * pit + 0.4 * clouds(r, 3, 2))

    return draw


@family("asphalt", "mineral", grey_share=0.6)
def asphalt(rng: Rng) -> Draw:
    base, count, deep = (rgb(greyish(rng, (0.2, 0.6))), int(log_uniform(rng, 1500, 9000)), rng.uniform(0.15, 0.4))

    def draw(view: View) -> Canvas:
        labels, far = voronoi(view.rng, count, 0.8)
        stone = view.rng.normal(0, deep, count + 2).astype(F)[labels % (count + 2)]
        tone = stone - F(0.05) * far + 0.1 * clouds(view.rng, 2, 2)
        return Canvas.filled(tinted(base, tone), -far * F(0.3))

    return draw


@family("ceramic tile", "mineral", "gloss")
def ceramic_tile(rng: Rng) -> Draw:
    base, grout = rgb(any_colour(rng, (0, 0.6), (0.4, 0.97))), rgb(greyish(rng, (0.2, 0.9)))
    side, joint, bond = rng.choice([0.4, 0.7, 1.2, 5.0]), rng.uniform(0.015, 0.05), rng.choice([0.0, 0.0, 0.5])
    tall, mottle, fleck = side * rng.choice([1.0, 1.0, 0.5]), rng.uniform(0, 0.1), rng.uniform(0, 0.5)
    offset = rng.uniform(0, 1, 2)

    def draw(view: View) -> Canvas:
        r = view.rng
        b = view.v / F(tall) + F(offset[1])
        a = view.u / F(side) + F(offset[0]) + F(bond) * (np.floor(b) % 2)
        x, y = np.abs(a - np.floor(a) - F(0.5)) * F(side), np.abs(b - np.floor(b) - F(0.5)) * F(tall)
        inside = np.minimum(F(side / 2) - x, F(tall / 2) - y)
        line = view.cover(inside - F(joint / 2))
        each = r.normal(0, 0.04, 4096).astype(F)[(np.floor(a).astype(int) * 61 + np.floor(b).astype(int)) % 4096]
        tone = F(mottle) * clouds(r, 15, 4, 0.6) + each - F(fleck) * ramp(clouds(r, 2, 1), 2.0, 2.4)
        canvas = Canvas.filled(tinted(base, tone), 3 * ramp(inside, 0.0, joint * 1.5), 0.35)
        canvas.paint(line, grout, -1.0, 0.0)
        return canvas

    return draw


@family("brick wall", "mineral")
def brick_wall(rng: Rng) -> Draw:
    base, mortar = (
        rgb(hsv(rng.uniform(0, 0.1), rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.75))),
        rgb(greyish(rng, (0.5, 0.9))),
    )
    side = log_uniform(rng, 0.35, 0.9)
    tall, joint = side * rng.uniform(0.3, 0.5), rng.uniform(0.015, 0.04)

    def draw(view: View) -> Canvas:
        r = view.rng
        b = view.v / F(tall)
        a = view.u / F(side) + F(0.5) * (np.floor(b) % 2)
        x, y = np.abs(a - np.floor(a) - F(0.5)) * F(side), np.abs(b - np.floor(b) - F(0.5)) * F(tall)
        inside = np.minimum(F(side / 2) - x, F(tall / 2) - y) + F(0.006) * clouds(r, 5, 2)
        each = r.normal(0, 0.12, 4096).astype(F)[(np.floor(a).astype(int) * 61 + np.floor(b).astype(int)) % 4096]
        rough = clouds(r, 3, 3, 0.6)
        canvas = Canvas.filled(tinted(base, each + 0.08 * rough), 3 + 0.8 * rough)
        canvas.paint(view.cover(inside - F(joint / 2), 2), tinted(mortar, 0.06 * rough), 0.3 * rough)
        return canvas

    return draw


@family("magnetic tile", "mineral", "metal", grey_share=0.9)
def magnetic_tile(rng: Rng) -> Draw:
    """Ground ferrite: dark grey, faint parallel grinding marks, sometimes a bevel in view."""
    base, mark_depth, bevel = rgb(greyish(rng, (0.15, 0.5))), rng.uniform(0.02, 0.1), rng.uniform(0.6, 1.4)

    def draw(view: View) -> Canvas:
        r = view.rng
        tone = (
            F(mark_depth) * lattice(r, view.u * 1.5, view.v * 45, 2, 0.8)
            + 0.05 * clouds(r, 30, 3)
            + 0.04 * clouds(r, 1.6, 1)
        )
        return Canvas.filled(tinted(base, tone - 0.4 * ramp(np.abs(view.v), bevel, bevel + 0.1)), tone)

    return draw
