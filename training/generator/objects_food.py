"""Food, seeds and snacks."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Part, View, box, disc, dome, shade
from .noise import Field, Rng, any_colour, chance, clouds, earth, hsv, lattice, ramp, rgb
from .objects_goods import layout
from .registry import Draw, family

F = np.float32
Places = list[tuple[float, float, float]]


def crumb(
    view: View, far: Field, colour: np.ndarray, rise: float, width: float, speckle: float, pores: float
) -> Canvas:
    """A baked or grown body: uneven tone, browner rim, pores."""
    r, canvas = view.rng, Canvas.empty()
    rough = clouds(r, 4, 3, 0.6)
    tone = 0.06 * clouds(r, 25, 3) + F(speckle) * rough - F(pores) * ramp(clouds(r, 4, 2), 1.2, 2.0)
    tone = tone - 0.25 * ramp(far, -width * 0.5, 0)
    canvas.paint(
        view.cover(far),
        np.clip(colour * (1 + tone)[..., None], 0.01, 1),
        dome(far, width, rise) + rough * F(3 * speckle),
        0.05,
    )
    return canvas


@family("cookie", "food", "parts", is_object=True, free=0.5)
def cookie(rng: Rng) -> Draw:
    size, base, chips = (
        rng.uniform(0.7, 0.92),
        rgb(hsv(rng.uniform(0.05, 0.11), rng.uniform(0.35, 0.7), rng.uniform(0.45, 0.9))),
        int(rng.integers(0, 14)),
    )
    wavy, lobes, chunk = (
        rng.uniform(0, 0.05),
        int(rng.integers(6, 24)),
        rgb(earth(rng, (0.1, 0.5)) if chance(rng, 0.7) else any_colour(rng)),
    )
    square, speckle, pores = chance(rng, 0.25), rng.uniform(0.02, 0.1), rng.uniform(0, 0.4)

    def draw(view: View) -> Canvas:
        t = np.arctan2(view.v, view.u)
        far = box(view.u, view.v, size * 0.85, size * 0.7, 0.1) if square else disc(view.u, view.v, size)
        far = far - F(wavy) * np.cos(F(lobes) * t) + 0.015 * clouds(view.rng, 25, 2)
        canvas = crumb(view, far, base, 8, 0.25, speckle, pores)
        places = [
            (float(0.75 * size * np.sqrt(p) * np.cos(q)), float(0.75 * size * np.sqrt(p) * np.sin(q)), float(q))
            for p, q in view.rng.uniform(0, [1, 6.28], (chips, 2))
        ]
        for part in view.parts(places):
            _lump(view, canvas, part, 0.1, chunk)
        return canvas

    return draw


def _lump(view: View, canvas: Canvas, part: Part, size: float, colour: np.ndarray, gloss: float = 0.15) -> None:
    """A small irregular thing lying on the canvas."""
    rng = part.rng()
    window, x, y = view.local(part, size * 1.8)
    if x.size:
        t = np.arctan2(y, x)
        far = np.hypot(x, y * F(rng.uniform(1, 1.5))) - F(size * rng.uniform(0.75, 1.1)) * (
            1 + F(0.12) * np.cos(3 * t + F(rng.uniform(0, 6))) + F(0.08) * np.cos(5 * t)
        )
        canvas.paint(
            view.cover(far),
            np.clip(colour * part.tint * F(rng.uniform(0.85, 1.15)), 0, 1),
            canvas.height[window] + dome(far, size, 6),
            gloss,
            window,
        )


@family("hazelnut", "food", is_object=True, free=0.7)
def nut_kernel(rng: Rng) -> Draw:
    """A nut or seed: shell with streaks, paler cap."""
    a, b, base = rng.uniform(0.6, 0.85), rng.uniform(0.45, 0.8), rgb(earth(rng, (0.3, 0.75)))
    cap, streak, point = rng.uniform(0.0, 0.5), rng.uniform(0.05, 0.2), rng.uniform(0, 0.15)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        squeeze = 1 + F(point) * u / F(a)
        far = (np.hypot(u / F(a), v / F(b) * squeeze) - 1) * F(min(a, b)) + 0.008 * clouds(view.rng, 20, 2)
        bulge = v / np.sqrt(np.maximum(1 - (u / F(a)) ** 2, 0.08))
        tone = F(streak) * lattice(view.rng, u * 2, bulge * F(14), 3, 0.7)
        canvas = crumb(view, far, shade(base, 1 + tone), 55, min(a, b), 0.03, 0.0)
        end = ramp(u + 0.04 * clouds(view.rng, 9, 2), a * (1 - cap) - 0.05, a * (1 - cap) + 0.05)
        canvas.paint(end * canvas.alpha * F(0.7), np.clip(base * F(1.5), 0, 0.9))
        return canvas

    return draw


@family("seeds", "food", "parts", "parts", is_object=True)
def seed_scatter(rng: Rng) -> Draw:
    """Many equal grains or beans, in rows or scattered."""
    rows, columns, base = (
        int(rng.integers(2, 6)),
        int(rng.integers(2, 6)),
        rgb(earth(rng, (0.3, 0.95)) if chance(rng, 0.6) else any_colour(rng)),
    )
    pitch, long, curved, turns = (
        1.8 / max(rows, columns),
        rng.uniform(0.25, 0.42),
        rng.uniform(-1, 1) * chance(rng, 0.4),
        rng.choice([0.1, 2.0]),
    )
    slim, groove = rng.uniform(0.4, 0.95), chance(rng, 0.4)

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        grain = 1 + 0.05 * clouds(view.rng, 4, 3)
        for part in view.parts(layout(view.rng, rows, columns, pitch, turns)):
            window, x, y = view.local(part, pitch * 0.6)
            if x.size:
                a = pitch * long * part.rng().uniform(0.92, 1.08)
                y = y + F(curved / a) * (x * x) * F(0.5)
                far = (np.hypot(x / F(a), y / F(a * slim)) - 1) * F(a * slim)
                tone = part.rng().uniform(0.9, 1.1) - (0.3 * ramp(np.abs(y), 0.02, 0.005) if groove else 0)
                colour = shade(base * part.tint, grain[window] * F(1) * tone)
                canvas.paint(view.cover(far), colour, dome(far, a * slim, a * slim / view.px * 0.7), 0.2, window)
        return canvas

    return draw


@family("pasta", "food", "parts", is_object=True)
def pasta(rng: Rng) -> Draw:
    """Curved, ring-shaped or wheel-shaped snacks, one or several."""
    rows, columns, kind = int(rng.integers(1, 4)), int(rng.integers(1, 4)), rng.choice(["ring", "arc", "wheel", "tube"])
    pitch, base, spokes = (
        1.85 / max(rows, columns),
        rgb(hsv(rng.uniform(0.05, 0.15), rng.uniform(0.2, 0.85), rng.uniform(0.6, 0.98))),
        int(rng.integers(3, 7)),
    )
    wide, rough = rng.uniform(0.2, 0.35), rng.uniform(0.02, 0.09)

    def draw(view: View) -> Canvas:
        canvas, grain = Canvas.empty(), clouds(view.rng, 4, 3, 0.6)
        for part in view.parts(layout(view.rng, rows, columns, pitch, 1.0)):
            window, x, y = view.local(part, pitch * 0.55)
            if not x.size:
                continue
            size = pitch * 0.4 * part.rng().uniform(0.9, 1.1)
            r, t = np.hypot(x, y), np.arctan2(y, x)
            line = np.abs(r - F(size * (1 - wide)))
            far = line - F(size * wide)
            if kind == "arc":
                far = np.maximum(far, F(0.3 * size) - r * np.cos(t * F(0.5)) * F(0.8))
            elif kind == "wheel":
                far = np.minimum(
                    far, np.maximum(np.abs(np.sin(t * F(spokes / 2))) * r - F(size * wide * 0.4), r - F(size))
                )
            elif kind == "tube":
                far = box(x, y, size, size * wide * 1.3, 0.02)
            far = far + F(0.06 * size) * grain[window] * F(0.5)
            tone = (1 + F(rough) * grain[window]) * (1 - 0.25 * ramp(far, -size * wide * 0.5, 0))
            canvas.paint(
                view.cover(far),
                np.clip(base * part.tint * tone[..., None], 0, 1),
                dome(far, size * wide, 8) + grain[window],
                0.15,
                window,
            )
        return canvas

    return draw
