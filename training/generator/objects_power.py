"""Cables, batteries and lamps."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, box, disc, dome, pill
from .noise import Rng, any_colour, clouds, hsv, lattice, log_uniform, ramp, rgb
from .objects_electronic import slab
from .objects_metal import finish, metal, metal_body
from .registry import Draw, family
from .surfaces_printed import laid, words

F = np.float32


@family("cable", "plastic", "parts", is_object=True, free=0.2)
def cable_section(rng: Rng) -> Draw:
    """A cut through a cable: sheath, coloured insulations, strands."""
    wires, outer = int(rng.choice([1, 2, 3, 3, 4, 7])), rng.uniform(0.8, 0.95)
    sheath = rgb(any_colour(rng, (0, 0.6), (0.1, 0.95)))
    tones = np.array([any_colour(rng, (0.3, 0.9)) for _ in range(7)], F)
    copper, strands, wall = (
        rgb(hsv(0.07, rng.uniform(0.2, 0.6), rng.uniform(0.6, 0.95))),
        rng.uniform(0.03, 0.08),
        rng.uniform(0.05, 0.1),
    )
    size = {1: 0.8, 2: 0.42, 3: 0.4, 4: 0.35, 7: 0.28}[wires] * outer

    def draw(view: View) -> Canvas:
        far = disc(view.u, view.v, outer)
        canvas = slab(view, far, sheath, 4, 0.5, 0.1)
        ring = 0.0 if wires == 1 else (outer - size) * 0.97 - wall * 0.3
        count = wires - 1 if wires == 7 else wires
        places = [
            (ring * np.cos(6.2832 * i / count + 0.5), ring * np.sin(6.2832 * i / count + 0.5), 1.0 * i)
            for i in range(count)
        ]
        places += [(0.0, 0.0, 0.0)] if count < wires else []
        for part in view.parts(places):
            window, x, y = view.local(part, size)
            if not x.size:
                continue
            shell = disc(x, y, size - wall * 0.3)
            canvas.paint(
                view.cover(shell), np.clip(tones[part.index % 7] * part.tint, 0, 1), dome(shell, 0.05, 4), 0.1, window
            )
            a, b = x / F(strands), y / F(strands * 0.87)
            a = a + F(0.5) * (np.floor(b) % 2)
            dot = np.hypot(a - np.floor(a) - F(0.5), b - np.floor(b) - F(0.5))
            core = view.cover(disc(x, y, size - wall * 1.3))
            wire = np.clip(1.1 - 1.6 * dot * dot, 0.15, 1) * (
                1 + 0.25 * lattice(part.rng(), np.floor(a) * F(1.37), np.floor(b) * F(1.91), 1)
            )
            canvas.paint(core, np.clip(copper * wire[..., None], 0, 1), 4 - 6 * dot * dot, 0.3, window)
        return canvas

    return draw


@family("battery", "plastic", "part", is_object=True)
def battery(rng: Rng) -> Draw:
    radius, cap, base, look = rng.uniform(0.25, 0.42), rng.uniform(0.1, 0.6), metal(rng), finish(rng)
    wrap, second = rgb(any_colour(rng)), rgb(any_colour(rng))
    text = words(rng, 1, int(rng.integers(3, 8)))

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        far = np.minimum(box(u, v, 0.85, radius, 0.04), box(u - F(0.88), v, 0.07, radius * 0.35, 0.02))
        height = np.sqrt(np.clip(1 - (v / F(radius)) ** 2, 0, 1)) * F(radius / view.px * 0.6)
        canvas = metal_body(view, view.cover(far), height.astype(F), base, look)
        shade = 1 + 0.02 * clouds(view.rng, 20, 2)
        label = view.cover(box(u + F(0.02), v, 0.8, radius, 0.02)) * canvas.alpha
        colour = wrap + (second - wrap) * view.cover(F(cap) - u)[..., None]
        canvas.paint(label, np.clip(colour * shade[..., None], 0, 1), None, 0.25)
        canvas.paint(laid(view, text, 0.7).astype(F) * label, (0.95, 0.95, 0.95))
        return canvas

    return draw


@family("light bulb", "gloss", "part", is_object=True)
def led_lamp(rng: Rng) -> Draw:
    glass, base, look = rgb(any_colour(rng, (0.0, 0.7), (0.5, 1))), metal(rng), finish(rng)
    size, neck, pitch = rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.28), log_uniform(rng, 0.06, 0.12)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        bulb = disc(u + F(0.3), v, size)
        cone = np.maximum(
            np.abs(v) - F(neck) - (F(size * 0.8 - neck)) * ramp(u, 0.4, -0.2), np.abs(u - F(0.1)) - F(0.35)
        )
        far = np.minimum(bulb, cone)
        canvas = slab(view, far, glass, size / view.px * 0.7, 0.0, 0.6, size)
        foot = pill(u - F(0.6), v, 0.22, neck * 0.9)
        wave = np.sin(F(6.28 / pitch) * u + v)
        lower = metal_body(view, view.cover(foot), dome(foot, neck, 12) + 1.5 * wave, base, look)
        canvas.paint(lower.alpha, lower.colour, lower.height, 0.3)
        return canvas

    return draw
