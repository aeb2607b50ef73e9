"""Composite and piled cloths."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, shade
from .noise import Rng, any_colour, chance, clouds, earth, greyish, hsv, lattice, log_uniform, ramp, rgb, white
from .registry import Draw, family
from .surfaces_woven import weave

F = np.float32


@family("carbon fibre", "fabric", "gloss")
def carbon_fibre(rng: Rng) -> Draw:
    """Black twill whose two thread directions mirror the light differently."""
    size, dark, bright = log_uniform(rng, 0.06, 0.2), rng.uniform(0.03, 0.15), rng.uniform(0.15, 0.5)
    kind, tint, fine = (rng.choice(["twill", "plain", "basket"]), rgb(greyish(rng, (0.8, 1))), rng.uniform(0.05, 0.25))

    def draw(view: View) -> Canvas:
        relief, up, tone = weave(view.rng, view.u, view.v, (size, size), str(kind), 0.05)
        hair = np.where(
            up > 0, lattice(view.rng, view.u * 150, view.v * 6, 1), lattice(view.rng, view.u * 6, view.v * 150, 1)
        )
        level = (F(dark) + F(bright - dark) * up * (0.4 + 0.6 * relief)) * (1 + tone + F(fine) * hair)
        return Canvas.filled(np.clip(tint * level[..., None], 0, 1).astype(F), relief * F(0.5), 0.15)

    return draw


@family("corduroy", "fabric")
def ribbed_cloth(rng: Rng) -> Draw:
    base, pitch, fuzz = rgb(any_colour(rng, (0, 0.8))), log_uniform(rng, 0.05, 0.25), rng.uniform(0.02, 0.12)
    sharp, wander = rng.uniform(0.5, 2), rng.uniform(0, 0.006)

    def draw(view: View) -> Canvas:
        v = view.v + F(wander) * lattice(view.rng, view.u * 3, view.v * 2, 2)
        rib = np.abs(np.cos(F(np.pi / pitch) * v)) ** F(sharp)
        hair = lattice(view.rng, view.u * 20, view.v * 70, 2, 0.7)
        return Canvas.filled(
            shade(base, (0.5 + 0.5 * rib) * (1 + F(fuzz) * hair)), rib * F(min(4, pitch / view.px * 0.2))
        )

    return draw


@family("plain cloth", "fabric", grey_share=0.5)
def draped_cloth(rng: Rng) -> Draw:
    """Fine cloth that does not lie flat: its soft waves are no fault."""
    base, fine, contrast = (
        rgb(any_colour(rng, (0, 0.6)) if chance(rng, 0.5) else greyish(rng)),
        log_uniform(rng, 0.018, 0.04),
        rng.uniform(0.05, 0.25),
    )
    waves, run = rng.uniform(1, 9), rng.uniform(0.3, 1.5)

    def draw(view: View) -> Canvas:
        swell = F(waves) * lattice(view.rng, view.u * F(run), view.v * F(1.5), 1)
        a, b = F(6.2832 / fine) * (view.u + F(0.002) * swell), F(6.2832 / fine) * (view.v + F(0.002) * swell)
        tone = F(contrast) * 0.5 * (np.sin(a) * np.sin(b) + np.sin(b)) + F(0.03) * white(view.rng)
        return Canvas.filled(shade(base, 1 + tone), swell * 4 + tone)

    return draw


@family("artificial turf", "pile")
def turf(rng: Rng) -> Draw:
    base, second = (rgb(hsv(rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.7))), rgb(earth(rng)))
    fine, turns = rng.uniform(25, 70), rng.uniform(0, np.pi, 4)

    def draw(view: View) -> Canvas:
        total = np.full_like(view.u, -2.0)
        for turn in turns:
            cos, sin = F(np.cos(turn)), F(np.sin(turn))
            blade = lattice(view.rng, (cos * view.u + sin * view.v) * 9, (cos * view.v - sin * view.u) * F(fine), 1)
            total = np.maximum(total, blade)
        mix = ramp(clouds(view.rng, 5, 2), 0.5, 1.5)[..., None] * F(0.5)
        return Canvas.filled(
            np.clip((base + (second - base) * mix) * (0.6 + 0.3 * total)[..., None], 0.01, 1), total * 1.5
        )

    return draw
