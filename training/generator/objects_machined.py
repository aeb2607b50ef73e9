"""Bearings, castings, plates, coins and pipes."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, View, box, disc, dome, pill
from .noise import Rng, hsv, lattice, ramp, rgb
from .objects_metal import finish, metal, metal_body
from .registry import Draw, family

F = np.float32


@family("ball bearing", "part", "metal", "parts", is_object=True, free=0.4)
def bearing(rng: Rng) -> Draw:
    outer, inner, balls = rng.uniform(0.8, 0.95), rng.uniform(0.3, 0.42), int(rng.integers(6, 16))
    base, look, cage = (
        metal(rng),
        finish(rng),
        rgb(hsv(rng.uniform(0, 0.15), rng.uniform(0, 0.6), rng.uniform(0.2, 0.7))),
    )

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        mid, half = (outer + inner) / 2, (outer - inner) / 2
        far = np.maximum(r - F(outer), F(inner) - r)
        canvas = metal_body(view, view.cover(far), dome(far, 0.05, 5), base, look)
        canvas.paint(view.cover(np.abs(r - F(mid)) - F(half * 0.45)), cage * F(0.5), 0.0, 0.1)
        size = min(half * 0.5, mid * np.pi / balls * 0.85)
        for part in view.parts(
            [(mid * np.cos(6.2832 * i / balls), mid * np.sin(6.2832 * i / balls), 0.0) for i in range(balls)]
        ):
            window, x, y = view.local(part, size)
            if x.size:
                ball = disc(x, y, size)
                canvas.paint(
                    view.cover(ball),
                    np.clip(base * part.tint * F(1.1), 0, 1),
                    dome(ball, size, size / view.px * 0.8),
                    0.6,
                    window,
                )
        return canvas

    return draw


@family("cast impeller", "part", "metal", is_object=True, grey_share=0.8, free=0.5)
def impeller(rng: Rng) -> Draw:
    """A cast disc from above with a hub, an outer ring and curved vanes."""
    outer, hub, vanes, curl = (
        rng.uniform(0.8, 0.98),
        rng.uniform(0.15, 0.3),
        int(rng.integers(0, 9)),
        rng.uniform(-2.5, 2.5),
    )
    base, look, rings = metal(rng), {**finish(rng), "rough": rng.uniform(0.3, 1.0)}, rng.uniform(0.35, 0.8, 2)

    def draw(view: View) -> Canvas:
        r, t = np.hypot(view.u, view.v), np.arctan2(view.v, view.u)
        height = 4 * ramp(r, hub + 0.05, hub) + 3 * ramp(np.abs(r - F(outer * 0.93)), 0.06, 0.03)
        for ring in rings:
            height = height + 1.5 * ramp(np.abs(r - F(ring * outer)), 0.03, 0.015)
        if vanes:
            blade = np.abs(np.mod(t * F(vanes / 6.2832) + F(curl) * r, 1) - F(0.5)) * r * F(6.2832 / vanes)
            height = np.maximum(height, 4 * ramp(blade, 0.06, 0.03) * ramp(r, hub, hub + 0.1))
        canvas = metal_body(view, view.cover(r - F(outer)), height * 1.5, base, look)
        canvas.paint(view.cover(r - F(hub * 0.4)), base * F(0.2), -2.0)
        return canvas

    return draw


@family("brake disc", "part", "metal", "parts", is_object=True, free=0.4)
def brake_disc(rng: Rng) -> Draw:
    outer, hub, rows, arms = (
        rng.uniform(0.85, 0.97),
        rng.uniform(0.35, 0.5),
        int(rng.integers(1, 4)),
        int(rng.integers(6, 16)),
    )
    base, look, size = metal(rng), finish(rng), rng.uniform(0.025, 0.05)

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        far = np.maximum(r - F(outer), F(hub * 0.4) - r)
        canvas = metal_body(view, view.cover(far), dome(far, 0.04, 3) + 4 * ramp(r, hub, hub - 0.05), base, look)
        canvas.multiply(1 + F(0.04) * lattice(view.rng, r * 70, view.u * 1, 2) * (r > F(hub)))
        places = []
        for k in range(arms):
            for row in range(rows):
                far_out = hub + (outer - hub) * (row + 1) / (rows + 1)
                places.append(
                    (
                        far_out * np.cos(6.2832 * k / arms + 0.25 * row),
                        far_out * np.sin(6.2832 * k / arms + 0.25 * row),
                        0.0,
                    )
                )
        for part in view.parts(places):
            window, x, y = view.local(part, size * 1.4)
            if x.size:
                canvas.paint(view.cover(disc(x, y, size)), base * part.tint * F(0.12), 0.0, 0.0, window)
        return canvas

    return draw


@family("metal bracket", "part", "metal", "parts", is_object=True)
def bracket(rng: Rng) -> Draw:
    """A stamped plate with holes and slots."""
    half, tall, corner = rng.uniform(0.6, 0.95), rng.uniform(0.3, 0.9), rng.uniform(0.03, 0.25)
    base, look, count = metal(rng), finish(rng), int(rng.integers(2, 9))
    slots = rng.uniform(-0.8, 0.8, (count, 2)) * np.array([half, tall])
    sizes, bent = rng.uniform(0.05, 0.14, count), rng.uniform(-0.5, 0.5) * half

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, half, tall, corner)
        height = dome(far, 0.04, 3) + 6 * ramp(view.u, bent, bent + 0.06)
        canvas = metal_body(view, view.cover(far), height, base, look)
        for part in view.parts([(float(x), float(y), 0.0) for x, y in slots]):
            size = float(sizes[part.index])
            window, x, y = view.local(part, size * 2)
            if x.size:
                canvas.alpha[window] *= 1 - view.cover(pill(x, y, size * (part.index % 2), size))
        return canvas

    return draw


@family("coin", "part", "metal", is_object=True, free=0.5)
def coin(rng: Rng) -> Draw:
    from .surfaces_printed import laid, words

    size, base, look = rng.uniform(0.8, 0.95), metal(rng), finish(rng)
    stamp = cv2.GaussianBlur(words(rng, int(rng.integers(1, 4)), int(rng.integers(1, 5))), (0, 0), 1.0)
    beads, dots = rng.uniform(0.86, 0.93), int(rng.integers(0, 60))

    def draw(view: View) -> Canvas:
        r, t = np.hypot(view.u, view.v), np.arctan2(view.v, view.u)
        relief = 3 * ramp(r, size * 0.93, size * 0.96) + 4 * laid(view, stamp, size * 0.6)
        relief = relief + 2 * ramp(np.abs(r - F(size * beads)), 0.03, 0.01) * (0.5 + 0.5 * np.cos(F(dots) * t))
        return metal_body(view, view.cover(r - F(size)), relief.astype(F), base, look)

    return draw


@family("metal pipe", "part", "metal", is_object=True)
def pipe(rng: Rng) -> Draw:
    """A tube or rod from the side, sometimes with collars."""
    radius, base, look, length = rng.uniform(0.2, 0.6), metal(rng), finish(rng), rng.choice([0.9, 3.0])
    collars = rng.uniform(-0.8, 0.8, int(rng.integers(0, 4)))

    def draw(view: View) -> Canvas:
        swell = np.zeros_like(view.u)
        for at in collars:
            swell = np.maximum(swell, ramp(np.abs(view.u - F(at)), 0.09, 0.07) * F(0.08))
        limit = F(radius) + swell
        far = np.maximum(np.abs(view.v) - limit, np.abs(view.u) - F(length))
        height = np.sqrt(np.clip(1 - (view.v / limit) ** 2, 0, 1)) * limit / F(view.px) * F(0.6)
        return metal_body(view, view.cover(far), height.astype(F), base, look)

    return draw
