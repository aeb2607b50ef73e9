"""Metal surfaces."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View
from .noise import Field, Rng, any_colour, chance, clouds, greyish, lattice, log_uniform, ramp, rgb, soften, white
from .registry import Draw, family

F = np.float32


def tinted(base: np.ndarray, tone: Field) -> np.ndarray:
    return np.clip(base * (1 + tone)[..., None], 0.005, 1).astype(F)


@family("brushed metal", "metal")
def brushed_metal(rng: Rng) -> Draw:
    base, depth, fine = rgb(greyish(rng, (0.4, 0.9))), rng.uniform(0.03, 0.14), rng.uniform(60, 120)
    run, gloss = rng.uniform(0.6, 4), rng.uniform(0, 0.3)

    def draw(view: View) -> Canvas:
        streak = lattice(view.rng, view.u * F(run), view.v * F(fine), 2, 0.8)
        return Canvas.filled(tinted(base, F(depth) * streak + F(0.02) * white(view.rng)), streak * F(0.3), gloss)

    return draw


@family("steel strip", "metal", grey_share=0.8)
def rolled_steel(rng: Rng) -> Draw:
    base, roll, patchy, fine = (
        rgb(greyish(rng, (0.3, 0.75))),
        rng.uniform(0.0, 0.08),
        rng.uniform(0.0, 0.12),
        rng.uniform(0.02, 0.07),
    )

    def draw(view: View) -> Canvas:
        r = view.rng
        tone = (
            F(roll) * lattice(r, view.u * F(0.5), view.v * 25, 3, 0.7)
            + F(patchy) * clouds(r, 40, 3)
            + F(fine) * clouds(r, 1.6, 1)
        )
        return Canvas.filled(tinted(base, tone), tone * 3, 0.1)

    return draw


@family("cast metal", "metal", "mineral")
def cast_metal(rng: Rng) -> Draw:
    base, cell, deep = rgb(greyish(rng, (0.25, 0.7))), log_uniform(rng, 1.5, 6), rng.uniform(0.4, 2.0)

    def draw(view: View) -> Canvas:
        rough = clouds(view.rng, cell, 3, 0.6)
        return Canvas.filled(tinted(base, 0.06 * rough + 0.05 * clouds(view.rng, 35, 2)), rough * F(deep), 0.15)

    return draw


@family("milled metal", "metal")
def milled_metal(rng: Rng) -> Draw:
    """Circular tool marks of a face mill or a lathe."""
    base, pitch, depth = rgb(greyish(rng, (0.4, 0.85))), log_uniform(rng, 0.02, 0.09), rng.uniform(0.05, 0.2)
    lathe, big = chance(rng, 0.4), rng.uniform(0.8, 3)

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v) if lathe else view.u - np.sqrt(np.maximum(F(big**2) - view.v**2, 0))
        wobble = lattice(view.rng, r * F(1.2 / pitch), view.v * 2, 2)
        tone = (
            F(depth) * np.sin(F(2 * np.pi / pitch) * r + wobble * F(0.6)) * (0.7 + 0.3 * clouds(view.rng, 30, 2))
            + F(depth * 0.3) * wobble
        )
        if lathe:
            tone = tone * (0.5 + 0.5 * np.abs(np.cos(np.arctan2(view.v, view.u) - 0.7)))
        return Canvas.filled(tinted(base, tone), tone * 2, 0.2)

    return draw


@family("rail surface", "metal", grey_share=0.8)
def rail(rng: Rng) -> Draw:
    """A worn bright running band between dark rough shoulders."""
    half, at = rng.uniform(0.25, 0.8), rng.uniform(-0.15, 0.15)
    bright, dark, edge = rng.uniform(0.45, 0.85), rng.uniform(0.08, 0.3), rng.uniform(0.02, 0.12)

    def draw(view: View) -> Canvas:
        r = view.rng
        across = np.abs(view.v - F(at) + F(0.02) * lattice(r, view.u * 3, view.u * 0, 2))
        shiny = ramp(across, half + edge, half - edge)
        streak = lattice(r, view.u * 1.5, view.v * 60, 2, 0.7)
        level = (
            F(dark) * (1 + 0.25 * clouds(r, 4, 3)) * (1 - shiny)
            + F(bright) * (1 + 0.06 * streak + 0.03 * clouds(r, 2, 1)) * shiny
        )
        return Canvas.filled(np.repeat(np.clip(level, 0, 1)[..., None], 3, 2), streak * F(0.2) + 3 * shiny, 0.1)

    return draw


@family("perforated sheet", "metal", "parts")
def perforated(rng: Rng) -> Draw:
    step, share, stagger = log_uniform(rng, 0.16, 0.45), rng.uniform(0.22, 0.4), chance(rng, 0.6)
    base, back = rgb(greyish(rng, (0.45, 0.9))), rgb(greyish(rng, (0.0, 0.15)))
    slot = rng.choice([1.0, 1.0, 1.0, 1.8])

    def draw(view: View) -> Canvas:
        a, b = view.u / F(step), view.v / F(step)
        a = a + F(0.5) * (np.floor(b) % 2) if stagger else a
        x, y = (a - np.floor(a) - F(0.5)) * F(step), (b - np.floor(b) - F(0.5)) * F(step)
        hole = view.cover(np.hypot(x / F(slot), y) - F(share * step))
        streak = lattice(view.rng, view.u * 2, view.v * 70, 2)
        canvas = Canvas.filled(tinted(base, 0.05 * streak), (1 - soften(hole, 0.8)) * 3, 0.2)
        canvas.paint(hole, back, 0.0, 0.0)
        places = [(float(p), float(q), 0.0) for p, q in view.rng.uniform(-0.8, 0.8, (1, 2))]
        for part in view.parts(places):  # an identification punch: the part that can be missing or moved
            window, x, y = view.local(part, step * 0.3)
            canvas.paint(view.cover(np.hypot(x, y) - F(step * 0.22)), back * part.tint, 0.0, 0.0, window)
        return canvas

    return draw


@family("corrugated sheet", "metal")
def corrugated(rng: Rng) -> Draw:
    base, period, sharp = (
        rgb(any_colour(rng, (0, 0.6), (0.4, 0.9))),
        log_uniform(rng, 0.1, 0.5),
        rng.uniform(0.5, 2.0),
    )

    def draw(view: View) -> Canvas:
        wave = np.sin(F(2 * np.pi / period) * view.v)
        wave = np.sign(wave) * np.abs(wave) ** F(sharp)
        return Canvas.filled(
            tinted(base, 0.12 * wave + 0.03 * clouds(view.rng, 20, 3)), wave * F(period / view.px * 0.1), 0.2
        )

    return draw
