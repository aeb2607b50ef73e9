"""What lies under an object: tables, belts, cloths, boards."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, shade
from .noise import Rng, any_colour, chance, clouds, earth, greyish, lattice, log_uniform, rgb, white
from .registry import Draw

_KINDS = (
    *(4 * ["plain"]),
    *(2 * ["bright"]),
    *(2 * ["dark"]),
    *("paper", "belt", "cloth", "brushed", "speckled", "board"),
)
"""One named twice is twice as likely."""


def draw_ground(rng: Rng) -> Draw:
    """A background for one product line."""
    kind = rng.choice(_KINDS)
    colour = rgb(greyish(rng, (0.1, 0.98)) if chance(rng, 0.65) else any_colour(rng))
    if kind == "dark":
        colour = rgb(greyish(rng, (0.02, 0.1)))
    if kind == "bright":
        colour = rgb(greyish(rng, (0.8, 1.0)))
    if kind == "board":
        colour = rgb(earth(rng))
    cell, depth, turn = log_uniform(rng, 0.02, 0.15), rng.uniform(0.04, 0.2), rng.uniform(0, np.pi)
    grain = rng.uniform(0, 0.03)

    def draw(view: View) -> Canvas:
        rng = view.rng
        u, v = view.u / np.float32(cell), view.v / np.float32(cell)
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        along, across = cos * u + sin * v, cos * v - sin * u
        if kind == "belt":
            tone = np.float32(depth) * np.sin(np.float32(3) * across)
        elif kind == "cloth":
            tone = np.float32(depth) * np.sin(np.float32(6.3) * along) * np.sin(np.float32(6.3) * across)
        elif kind == "brushed":
            tone = np.float32(0.5 * depth) * lattice(rng, along / 8, across * 4, 2)
        elif kind == "speckled":
            tone = np.float32(depth) * lattice(rng, along * 2, across * 2, 2)
        elif kind == "board":
            tone = np.float32(depth) * np.sin(lattice(rng, along / 10, across / 2, 2) * 2 + across)
        elif kind == "paper":
            tone = np.float32(0.3 * depth) * clouds(rng, 3, 2)
        else:
            tone = np.float32(0.1 * depth) * clouds(rng, 60, 1)
        tone = tone + np.float32(grain) * white(rng)
        return Canvas.filled(shade(colour, 1 + tone))

    return draw
