"""Wood, leather, paper, foam, plastic, paint and glass."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View
from .noise import (
    SIZE,
    Rng,
    any_colour,
    borders,
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


@family("wood", "grain")
def wood(rng: Rng) -> Draw:
    light = rgb(earth(rng, (0.45, 0.9)))
    dark, rings, wave = light * F(rng.uniform(0.5, 0.85)), log_uniform(rng, 3, 16), rng.uniform(0.2, 0.8)
    pores = rng.uniform(0.02, 0.12)

    def draw(view: View) -> Canvas:
        r = view.rng
        field = view.v * F(rings) + F(wave) * F(2) * lattice(r, view.u * F(0.7), view.v * F(1.5), 2)
        ring = ramp(field - np.floor(field), 0.1, 0.95)
        fine = lattice(r, view.u * 4, view.v * 80, 2, 0.7)
        return Canvas.filled(tinted(light + (dark - light) * ring[..., None], F(pores) * fine), fine * F(0.3))

    return draw


@family("leather", "leather")
def leather(rng: Rng) -> Draw:
    base, count, deep = (
        rgb(any_colour(rng, (0.1, 0.7), (0.15, 0.8)) if chance(rng, 0.4) else earth(rng, (0.15, 0.7))),
        int(log_uniform(rng, 700, 7000)),
        rng.uniform(0.4, 1.6),
    )

    def draw(view: View) -> Canvas:
        labels, far = voronoi(view.rng, count, 1.5)
        relief = 1 - np.minimum(far / F(0.6 * SIZE / np.sqrt(count)), 1) ** 2 - 0.5 * borders(labels)
        return Canvas.filled(
            tinted(base, 0.12 * (relief - 0.6) + 0.05 * clouds(view.rng, 25, 3)), soften(relief, 0.7) * F(deep * 2), 0.1
        )

    return draw


@family("paper", "sheet")
def paper(rng: Rng) -> Draw:
    base, fibre, cloud = (
        rgb(earth(rng, (0.6, 0.95)) if chance(rng, 0.4) else greyish(rng, (0.75, 0.98))),
        rng.uniform(0.01, 0.06),
        rng.uniform(0, 0.04),
    )

    def draw(view: View) -> Canvas:
        r = view.rng
        tone = F(fibre) * (lattice(r, view.u * 8, view.v * 60, 2) + lattice(r, view.u * 60, view.v * 9, 2)) + F(
            cloud
        ) * clouds(r, 20, 2)
        return Canvas.filled(tinted(base, tone), tone * 8)

    return draw


@family("cardboard", "sheet")
def cardboard(rng: Rng) -> Draw:
    base, flute, fine = (
        rgb(hsv(rng.uniform(0.07, 0.11), rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.8))),
        log_uniform(rng, 0.05, 0.14),
        rng.uniform(0.02, 0.06),
    )

    def draw(view: View) -> Canvas:
        r = view.rng
        tone = (
            0.02 * np.sin(F(6.28 / flute) * view.u)
            + F(fine) * lattice(r, view.u * 60, view.v * 10, 2)
            - 0.15 * ramp(clouds(r, 1.5, 1), 2.3, 3)
        )
        return Canvas.filled(tinted(base, tone), np.sin(F(6.28 / flute) * view.u))

    return draw


@family("foam", "soft")
def foam(rng: Rng) -> Draw:
    base, count, deep = (
        rgb(any_colour(rng, (0, 0.6), (0.2, 0.95))),
        int(log_uniform(rng, 500, 6000)),
        rng.uniform(0.2, 0.6),
    )

    def draw(view: View) -> Canvas:
        _, far = voronoi(view.rng, count, 1.5)
        size = view.rng.uniform(0.25, 0.6)
        cell = ramp(far, size * SIZE / np.sqrt(count), 0) * ramp(clouds(view.rng, 5, 2), -1.0, 0.5)
        return Canvas.filled(tinted(base, -F(deep) * cell + 0.03 * clouds(view.rng, 25, 2)), -cell * 3)

    return draw


@family("rubber mat", "soft", "plastic")
def rubber(rng: Rng) -> Draw:
    base, kind, size = (
        rgb(any_colour(rng, (0, 0.4), (0.06, 0.4))),
        rng.choice(["studs", "ribs", "diamond", "plain"]),
        log_uniform(rng, 0.08, 0.35),
    )

    def draw(view: View) -> Canvas:
        a, b = F(np.pi / size) * view.u, F(np.pi / size) * view.v
        shape = {
            "studs": lambda: ramp(np.cos(a * 2) + np.cos(b * 2), 0.2, 0.9),
            "ribs": lambda: ramp(np.cos(2 * b), -0.2, 0.5),
            "diamond": lambda: ramp(np.minimum(np.cos(a + b), np.cos(a - b)), 0.0, 0.6),
            "plain": lambda: 0 * a,
        }[str(kind)]()
        return Canvas.filled(
            tinted(base, 0.15 * shape + 0.08 * clouds(view.rng, 1.8, 2)), shape * 4 + 0.3 * clouds(view.rng, 2, 2), 0.15
        )

    return draw


@family("painted panel", "gloss")
def painted_panel(rng: Rng) -> Draw:
    base, peel, cell = rgb(any_colour(rng, (0, 0.9), (0.08, 0.97))), rng.uniform(0, 0.5), rng.uniform(5, 14)
    flake, gloss = rng.uniform(0, 0.08), rng.uniform(0.05, 0.5)

    def draw(view: View) -> Canvas:
        relief = clouds(view.rng, cell, 1) * F(peel)
        return Canvas.filled(tinted(base, F(flake) * clouds(view.rng, 1.4, 1) + 0.01 * relief), relief, gloss)

    return draw


@family("moulded plastic", "plastic", "gloss")
def moulded_plastic(rng: Rng) -> Draw:
    base, cell, deep = (rgb(any_colour(rng, (0, 0.8), (0.05, 0.95))), log_uniform(rng, 1.5, 5), rng.uniform(0.2, 1.2))
    rib = rng.uniform(0.25, 0.9) if chance(rng, 0.4) else 0.0

    def draw(view: View) -> Canvas:
        relief = clouds(view.rng, cell, 2) * F(deep)
        if rib:
            relief = relief + 5 * ramp(np.abs(np.mod(view.v, F(rib)) - F(rib / 2)), 0.03, 0.0)
        return Canvas.filled(tinted(base, 0.02 * clouds(view.rng, 30, 2)), relief, 0.15)

    return draw


@family("glass pane", "gloss")
def glass_pane(rng: Rng) -> Draw:
    """Smooth, with soft mirrored shapes of the room."""
    base, mirror, turn = (
        rgb(hsv(rng.uniform(0.35, 0.65), rng.uniform(0, 0.3), rng.uniform(0.15, 0.9))),
        rng.uniform(0.0, 0.2),
        rng.uniform(0, np.pi),
    )

    def draw(view: View) -> Canvas:
        across = F(np.cos(turn)) * view.u + F(np.sin(turn)) * view.v
        stripe = ramp(np.sin(across * 4 + lattice(view.rng, view.u, view.v, 1) * 0.3), 0.4, 0.7)
        return Canvas.filled(tinted(base, F(mirror) * stripe + 0.01 * clouds(view.rng, 30, 2)), None, 0.4)

    return draw


@family("honeycomb panel", "soft", "metal", "mineral")
def honeycomb(rng: Rng) -> Draw:
    base, floor = rgb(earth(rng) if chance(rng, 0.5) else greyish(rng, (0.4, 0.9))), rng.uniform(0.1, 0.6)
    size, wall = log_uniform(rng, 0.12, 0.35), rng.uniform(0.06, 0.16)

    def draw(view: View) -> Canvas:
        u, v = view.u / F(size), view.v / F(size)
        tall = F(np.sqrt(3))
        first = np.hypot(u - np.round(u), v - tall * np.round(v / tall))
        x1, y1 = u - np.round(u), v - tall * np.round(v / tall)
        x2, y2 = u - F(0.5) - np.round(u - F(0.5)), v - tall / 2 - tall * np.round((v - tall / 2) / tall)
        nearer = first < np.hypot(x2, y2)
        x, y = np.abs(np.where(nearer, x1, x2)), np.abs(np.where(nearer, y1, y2))
        inside = F(0.5) - np.maximum(x, x * F(0.5) + y * F(np.sqrt(3) / 2))
        edge = view.cover((inside - F(wall / 2)) * F(size))
        tone = 0.05 * clouds(view.rng, 4, 3)
        canvas = Canvas.filled(tinted(base * F(floor), tone), None)
        canvas.paint(edge, tinted(base, tone), 3.0)
        return canvas

    return draw
