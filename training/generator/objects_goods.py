"""Medicine and packaging."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Part, View, box, disc, dome, pill
from .noise import Rng, any_colour, borders, chance, clouds, greyish, ramp, rgb, soften, voronoi
from .objects_electronic import slab
from .objects_metal import finish, metal, metal_body
from .registry import Draw, family
from .surfaces_printed import laid, words

F = np.float32
Places = list[tuple[float, float, float]]


def layout(rng: Rng, rows: int, columns: int, pitch: float, turns: float = 0.0) -> Places:
    """Equal items in a grid, each slightly off."""
    spread = pitch * rng.uniform(0, 0.06)
    return [
        (
            (i - (columns - 1) / 2) * pitch + rng.normal(0, spread),
            (j - (rows - 1) / 2) * pitch + rng.normal(0, spread),
            rng.normal(0, turns),
        )
        for j in range(rows)
        for i in range(columns)
    ]


@family("candles", "plastic", "parts", is_object=True)
def candle_layout(rng: Rng) -> Draw:
    """Round items seen from above in a layout: candles, caps, buttons, sweets."""
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    pitch = 1.8 / max(rows, columns, 2)
    base, cup, wick = (rgb(any_colour(rng, (0, 0.8), (0.3, 1))), rgb(greyish(rng, (0.4, 0.95))), rng.uniform(0.03, 0.1))
    holes, flower, petals = (
        int(rng.choice([0, 0, 2, 4])),
        rng.uniform(0, 0.12) * chance(rng, 0.4),
        int(rng.integers(5, 14)),
    )

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        tone = 1 + 0.02 * clouds(view.rng, 12, 2)
        for part in view.parts(layout(view.rng, rows, columns, pitch, 1.0)):
            window, x, y = view.local(part, pitch * 0.5)
            if not x.size:
                continue
            t = np.arctan2(y, x)
            far = disc(x, y, pitch * 0.42) + F(pitch * flower) * np.cos(F(petals) * t)
            canvas.paint(view.cover(far), cup, dome(far, pitch * 0.04, 5), 0.4, window)
            inner = far + F(pitch * 0.05)
            canvas.paint(
                view.cover(inner),
                np.clip(base * part.tint * tone[window][..., None], 0, 1),
                3 + 2 * ramp(inner, -pitch * 0.1, 0),
                0.15,
                window,
            )
            for k in range(max(holes, 1)):
                far_out = pitch * 0.12 * (holes > 0)
                hx, hy = (
                    x - F(far_out * np.cos(6.2832 * k / max(holes, 1))),
                    y - F(far_out * np.sin(6.2832 * k / max(holes, 1))),
                )
                canvas.paint(
                    view.cover(disc(hx, hy, pitch * wick)),
                    (0.08, 0.07, 0.06) if holes else (0.85, 0.83, 0.75),
                    5.0,
                    0.0,
                    window,
                )
        return canvas

    return draw


def _capsule(view: View, canvas: Canvas, part: Part, size: float, tones: np.ndarray, fat: float, joint: float) -> None:
    window, x, y = view.local(part, size * 1.05)
    if not x.size:
        return
    radius, half = size * fat, size * (1 - fat)
    far = pill(x, y, half, radius)
    colour = tones[0] + (tones[1] - tones[0]) * view.cover(x - F(joint * half))[..., None]
    canvas.paint(
        view.cover(far), np.clip(colour * part.tint, 0, 1), dome(far, radius, radius / view.px * 0.8), 0.5, window
    )
    step = view.cover(np.abs(x - F(joint * half)) - F(view.px * 0.8))
    canvas.colour[window] *= (1 - 0.3 * step * view.cover(far))[..., None]


@family("capsule", "plastic", is_object=True)
def capsule(rng: Rng) -> Draw:
    tones, fat, joint = np.array([any_colour(rng), any_colour(rng)], F), rng.uniform(0.28, 0.45), rng.uniform(-0.5, 0.5)
    text, print_tone = (
        words(rng, 1, int(rng.integers(2, 6))),
        rgb(greyish(rng, (0.9, 1) if tones.mean() < 0.5 else (0.05, 0.2))),
    )

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        for part in view.parts([(0.0, 0.0, 0.0)]):
            _capsule(view, canvas, part, 0.92, tones, fat, joint)
        canvas.paint(laid(view, text, 0.5).astype(F) * canvas.alpha, print_tone)
        return canvas

    return draw


@family("capsules", "plastic", "parts", "parts", is_object=True)
def capsule_layout(rng: Rng) -> Draw:
    tones, fat, joint = np.array([any_colour(rng), any_colour(rng)], F), rng.uniform(0.28, 0.45), rng.uniform(-0.5, 0.5)
    rows, columns, turns = int(rng.integers(2, 6)), int(rng.integers(1, 5)), rng.choice([0.1, 2.0])
    pitch = 1.8 / max(rows, columns)

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        for part in view.parts(layout(view.rng, rows, columns, pitch, turns)):
            _capsule(view, canvas, part, pitch * 0.44, tones, fat, joint)
        return canvas

    return draw


@family("pill", "plastic", "food", is_object=True, free=0.3)
def tablet(rng: Rng) -> Draw:
    a, b, base = rng.uniform(0.65, 0.9), rng.uniform(0.45, 0.9), rgb(any_colour(rng, (0, 0.5), (0.6, 1)))
    score, speckle, fleck = chance(rng, 0.5), rng.uniform(0, 0.9), rgb(any_colour(rng, (0.3, 0.9)))
    text, print_tone = words(rng, 1, int(rng.integers(1, 5))), F(rng.uniform(0.1, 0.6))

    def draw(view: View) -> Canvas:
        far = (np.hypot(view.u / F(a), view.v / F(min(a, b))) - 1) * F(min(a, b))
        canvas = slab(view, far, base, 18, 0.2, 0.25, 0.3)
        dots = ramp(clouds(view.rng, 4, 1), 2.6 - speckle, 2.9 - speckle)
        canvas.paint(dots * canvas.alpha, fleck)
        stamp = soften(laid(view, text, 0.5).astype(F), 0.7)
        canvas.height -= 3 * stamp * canvas.alpha
        canvas.multiply(1 - print_tone * stamp)
        if score:
            canvas.height -= 5 * ramp(np.abs(view.u), 0.06, 0.01)
        return canvas

    return draw


@family("blister pack", "plastic", "parts", "parts", is_object=True, free=0.1)
def blister_pack(rng: Rng) -> Draw:
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    pitch, foil = 1.8 / max(rows, columns), rgb(greyish(rng, (0.5, 0.85)))
    tone, slim, crimp = rgb(any_colour(rng, (0, 0.8), (0.4, 1))), rng.uniform(0.5, 1.0), rng.uniform(0, 0.06)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, pitch * columns / 2 + 0.04, pitch * rows / 2 + 0.04, 0.06)
        canvas = slab(view, far, foil, 3, 0.3, 0.3)
        a, b = view.u * 90, view.v * 90
        canvas.multiply(1 + F(crimp) * np.sin(a + b) * np.sin(a - b))
        for x0, y0, turn in layout(view.rng, rows, columns, pitch):
            pit = np.hypot(view.u - F(x0), (view.v - F(y0)) / F(slim)) - F(pitch * 0.42)
            canvas.height += 5 * ramp(np.abs(pit), pitch * 0.08, 0)
            canvas.multiply(1 - 0.25 * view.cover(pit))
            del turn
        for part in view.parts(layout(view.rng, rows, columns, pitch)):
            window, x, y = view.local(part, pitch * 0.45)
            if x.size:
                body = (np.hypot(x, y / F(slim)) - F(pitch * 0.34)) * F(slim)
                canvas.paint(
                    view.cover(body), np.clip(tone * part.tint, 0, 1), dome(body, pitch * 0.3, 9), 0.45, window
                )
        return canvas

    return draw


@family("bottle", "gloss", "plastic", is_object=True, free=0.3)
def bottle_mouth(rng: Rng) -> Draw:
    """A bottle, jar or cup from above: concentric glassy rings."""
    outer, rings = rng.uniform(0.75, 0.97), np.sort(rng.uniform(0.25, 0.95, int(rng.integers(2, 6))))
    glass, deep = rgb(any_colour(rng, (0, 0.8), (0.08, 0.8))), rng.uniform(0.02, 0.5)
    tones, wave, count = rng.uniform(-0.6, 1.6, len(rings) + 1), rng.uniform(0, 0.3), int(rng.integers(2, 6))

    def draw(view: View) -> Canvas:
        r, t = np.hypot(view.u, view.v), np.arctan2(view.v, view.u)
        far = r - F(outer)
        level, height = np.full_like(r, tones[0]), np.zeros_like(r)
        for ring, tone in zip(rings, tones[1:], strict=True):
            level = level + (F(tone) - level) * ramp(r, outer * ring - 0.02, outer * ring + 0.02)
            height = height + 3 * np.exp(-(((r - F(outer * ring)) / F(0.03)) ** 2))
        level = level * (1 + F(wave) * np.cos(F(count) * t + F(1.3)) * ramp(r, 0.2, 0.6))
        dark = ramp(r, outer * rings[0] + 0.02, outer * rings[0] - 0.02)
        canvas = Canvas.empty()
        colour = glass * np.clip(1 + 0.5 * level, 0.1, 3)[..., None] * (1 - F(1 - deep) * dark)[..., None]
        canvas.paint(view.cover(far), np.clip(colour, 0.01, 1), height, 0.5)
        return canvas

    return draw


@family("bottle cap", "plastic", "metal", is_object=True, free=0.4)
def crown_cap(rng: Rng) -> Draw:
    size, teeth, deep = rng.uniform(0.75, 0.92), int(rng.integers(15, 60)), rng.uniform(0.01, 0.05)
    base, ink, text = (
        rgb(any_colour(rng)),
        rgb(any_colour(rng)),
        words(rng, int(rng.integers(1, 3)), int(rng.integers(2, 6))),
    )
    look, ring = finish(rng), rng.uniform(0.5, 0.8)

    def draw(view: View) -> Canvas:
        r, t = np.hypot(view.u, view.v), np.arctan2(view.v, view.u)
        wave = np.cos(F(teeth) * t)
        far = r - F(size) - F(deep) * wave
        height = dome(far, 0.25, 14) + 2 * wave * ramp(r, size * 0.8, size)
        canvas = metal_body(view, view.cover(far), height, base, {**look, "brush": 0.0})
        canvas.paint(view.cover(np.abs(r - F(size * ring)) - F(0.02)), ink)
        canvas.paint(laid(view, text, size * ring * 0.7).astype(F), ink)
        return canvas

    return draw


@family("can lid", "metal", "part", "parts", is_object=True, free=0.4)
def sealed_lid(rng: Rng) -> Draw:
    size, rings, base, look = (
        rng.uniform(0.8, 0.97),
        rng.uniform(0.4, 0.95, int(rng.integers(2, 6))),
        metal(rng),
        finish(rng),
    )
    foil, tab = chance(rng, 0.4), rng.uniform(0.12, 0.2)

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        height = sum((4 * np.exp(-(((r - F(size * ring)) / F(0.03)) ** 2)) for ring in rings), np.zeros_like(r))
        if foil:
            labels, _ = voronoi(view.rng, 60, 6.0)
            height = height + 1.5 * soften(borders(labels, 2), 1.0)
        canvas = metal_body(view, view.cover(r - F(size)), height, base, look)
        for part in view.parts([(size * 0.35, 0.0, 0.0)]):
            window, x, y = view.local(part, tab * 3)
            if x.size:
                ring = np.maximum(pill(x, y, tab, tab), -pill(x + F(tab * 0.3), y, tab * 0.4, tab * 0.55))
                canvas.paint(
                    view.cover(ring), np.clip(base * part.tint * F(0.9), 0, 1), 8 + dome(ring, 0.05, 6), 0.4, window
                )
        return canvas

    return draw


@family("chewing gum", "plastic", "food", is_object=True, free=0.3)
def plain_block(rng: Rng) -> Draw:
    """A plain soft-edged block: gum, soap, eraser, tofu."""
    a, b, base = rng.uniform(0.6, 0.92), rng.uniform(0.3, 0.85), rgb(any_colour(rng, (0, 0.5), (0.4, 1)))
    corner, rise, rough = rng.uniform(0.05, 0.3), rng.uniform(8, 25), rng.uniform(0, 1.2)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, a, b, min(corner, b)) + 0.01 * clouds(view.rng, 50, 2)
        return slab(view, far, base, rise, rough, 0.25, 0.2)

    return draw


@family("label", "print", "part", is_object=True, free=0.1)
def label(rng: Rng) -> Draw:
    a, b, base = rng.uniform(0.65, 0.95), rng.uniform(0.35, 0.9), rgb(any_colour(rng, (0, 0.5), (0.7, 1)))
    ink, accent = rgb(any_colour(rng, (0, 0.9), (0.02, 0.4))), rgb(any_colour(rng))
    text, cut = words(rng, int(rng.integers(2, 7)), int(rng.integers(5, 16))), rng.uniform(-0.7, 0.3)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, a, b, 0.05)
        canvas = slab(view, far, base, 1.5, 0.2, 0.2)
        canvas.paint(view.cover(view.v - F(cut * b)) * canvas.alpha, accent)
        canvas.paint(laid(view, text, min(a, b) * 0.9).astype(F) * canvas.alpha, ink)
        return canvas

    return draw
