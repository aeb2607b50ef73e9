"""Zips, brushes, tools, plastic parts and other everyday objects."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, box, disc, dome, shade
from .noise import Rng, any_colour, chance, clouds, earth, greyish, lattice, log_uniform, ramp, rgb
from .objects_electronic import slab
from .objects_metal import finish, metal, metal_body
from .registry import Draw, family
from .surfaces_woven import weave

F = np.float32


@family("zipper", "fabric", "parts", "parts", is_object=True, free=0.05)
def zipper(rng: Rng) -> Draw:
    """Interlocking teeth between two strips of tape."""
    teeth, pitch = rgb(greyish(rng, (0.05, 0.9))), log_uniform(rng, 0.06, 0.16)
    tape, wide, long = (rgb(any_colour(rng, (0, 0.8), (0.05, 0.8))), rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.2))

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        relief, _, tone = weave(view.rng, view.u, view.v, (0.035, 0.035), "twill", 0.03)
        cover = view.cover(np.abs(view.v) - F(wide))
        canvas.paint(cover, shade(tape, (0.7 + 0.3 * relief) * (1 + tone)), relief)
        count = int(np.ceil(1.6 / pitch))
        places = [
            (i * pitch / 2 * 2 + (0.5 * pitch if side > 0 else 0), side * long * 0.45, 0.0)
            for i in range(-count, count + 1)
            for side in (-1, 1)
        ]
        for part in view.parts(places):
            window, x, y = view.local(part, long)
            if x.size:
                tooth = box(x, y, pitch * 0.22, long * 0.6, pitch * 0.1)
                canvas.paint(
                    view.cover(tooth), np.clip(teeth * part.tint, 0, 1), dome(tooth, pitch * 0.2, 5), 0.35, window
                )
        return canvas

    return draw


@family("toothbrush", "plastic", "parts", "parts", is_object=True, free=0.05)
def brush_head(rng: Rng) -> Draw:
    """A brush head from the front: tufts of bristles in rows."""
    rows, columns, pitch = int(rng.integers(3, 6)), int(rng.integers(5, 10)), 0.2
    body, tones = (
        rgb(any_colour(rng, (0, 0.8), (0.4, 1))),
        np.array([any_colour(rng, (0, 0.9), (0.3, 1)) for _ in range(3)], F),
    )
    fine = rng.uniform(40, 90)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, pitch * columns / 2 + 0.1, pitch * rows / 2 + 0.08, 0.3)
        canvas = slab(view, far, body, 10, 0.1, 0.4, 0.15)
        places = [
            ((i - (columns - 1) / 2) * pitch * 0.95, (j - (rows - 1) / 2) * pitch * 0.95, 0.0)
            for j in range(rows)
            for i in range(columns)
        ]
        for part in view.parts(places):
            window, x, y = view.local(part, pitch * 0.7)
            if x.size:
                rng = part.rng()
                lean = rng.normal(0, 0.12, 2) * pitch
                tuft = np.hypot(x - F(lean[0]), y - F(lean[1])) - F(pitch * rng.uniform(0.4, 0.5))
                hair = 0.75 + 0.25 * lattice(rng, x * F(fine), y * F(fine), 1)
                colour = tones[(part.index // columns + part.index % 2 * (part.index % 3)) % 3]
                canvas.paint(
                    view.cover(tuft, 2),
                    np.clip(colour * part.tint * hair[..., None], 0, 1),
                    dome(tuft, pitch * 0.3, 6) + 2 * hair,
                    0.2,
                    window,
                )
        return canvas

    return draw


@family("pencils", "grain", "parts", is_object=True, free=0.1)
def pencil_row(rng: Rng) -> Draw:
    """Sticks side by side: pencils, crayons, cigarettes, straws, matches."""
    count, tones, tip = (
        int(rng.integers(2, 9)),
        np.array([any_colour(rng) for _ in range(9)], F),
        rng.uniform(0.0, 0.35),
    )
    if chance(rng, 0.5):
        tones[:] = tones[0]
    pitch = 1.8 / count
    wood, fill = rgb(earth(rng, (0.6, 0.95))), rng.uniform(0.3, 0.48)

    def draw(view: View) -> Canvas:
        canvas = Canvas.empty()
        for part in view.parts(
            [(view.rng.normal(0, 0.01), (i - (count - 1) / 2) * pitch, view.rng.normal(0, 0.01)) for i in range(count)]
        ):
            window, x, y = view.local(part, 1.0)
            if not x.size:
                continue
            radius = pitch * fill
            limit = F(radius) * np.clip((F(0.92) - x) / F(max(tip, 0.01)), 0, 1)
            far = np.maximum(np.abs(y) - limit, F(-0.92) - x)
            colour = (
                tones[part.index % 9]
                + (wood - tones[part.index % 9])
                * ramp(x + 0.02 * np.cos(y * F(9 / radius)), 0.92 - tip, 0.93 - tip)[..., None]
            )
            colour = colour * (1 - 0.85 * ramp(x, 0.92 - tip * 0.35, 0.93 - tip * 0.35))[..., None]
            height = np.sqrt(np.clip(1 - (y / F(radius)) ** 2, 0, 1)) * F(radius / view.px * 0.6)
            canvas.paint(view.cover(far), np.clip(colour * part.tint, 0, 1), height, 0.25, window)
        return canvas

    return draw


@family("plastic part", "plastic", "parts", is_object=True)
def moulded_part(rng: Rng) -> Draw:
    """A housing of random outline with ribs, bosses and windows."""
    base, corner = rgb(any_colour(rng, (0, 0.9), (0.05, 0.95))), rng.uniform(0.03, 0.3)
    blocks = [
        (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.55))
        for _ in range(rng.integers(1, 5))
    ]
    bosses = [(float(x), float(y), 0.0) for x, y in rng.uniform(-0.5, 0.5, (int(rng.integers(2, 8)), 2))]
    ribs, size, rough = rng.uniform(-0.6, 0.6, int(rng.integers(0, 4))), rng.uniform(0.05, 0.13), rng.uniform(0, 1)

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, 0.55, 0.4, corner)
        for across, down, a, b in blocks:
            far = np.minimum(far, box(view.u - F(across), view.v - F(down), a, b, min(corner, a, b)))
        canvas = slab(view, far, base, 8, rough, 0.25)
        for at in ribs:
            canvas.height += 4 * ramp(np.abs(view.u - F(at)), 0.035, 0.02) * canvas.alpha
        for part in view.parts(bosses):
            window, x, y = view.local(part, size * 1.2)
            if x.size:
                boss = disc(x, y, size)
                canvas.paint(
                    view.cover(boss), np.clip(base * part.tint * F(0.95), 0, 1), 8 + dome(boss, 0.03, 5), 0.3, window
                )
                canvas.paint(view.cover(disc(x, y, size * 0.5)), np.clip(base * F(0.25), 0, 1), 0.0, 0.0, window)
        return canvas

    return draw


@family("rubber seal", "soft", "part", is_object=True)
def seal(rng: Rng) -> Draw:
    """A closed seal of rounded outline, or a rope coiled in rings."""
    a, b, wide = rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.9), rng.uniform(0.05, 0.16)
    base, corner, rings = (
        rgb(any_colour(rng, (0, 0.6), (0.05, 0.5))),
        rng.uniform(0.2, 0.5),
        int(rng.choice([1, 1, 1, 2, 3])),
    )

    def draw(view: View) -> Canvas:
        line = box(view.u, view.v, a, b, min(corner, a, b)) + 0.01 * clouds(view.rng, 60, 1)
        far = np.abs(line) - F(wide / 2)
        for k in range(1, rings):
            far = np.minimum(far, np.abs(line + F(1.3 * wide * k)) - F(wide / 2))
        return slab(view, far, base, 7, 0.4, 0.25, wide / 2)

    return draw


@family("key", "part", "metal", is_object=True, free=0.4)
def door_key(rng: Rng) -> Draw:
    bow, blade, base, look = rng.uniform(0.28, 0.4), rng.uniform(0.09, 0.16), metal(rng), finish(rng)
    cuts = rng.uniform(0.0, 0.7, 12)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        profile = np.interp(u, np.linspace(0.0, 0.85, 12), cuts).astype(F)
        stem = np.maximum(np.maximum(v - F(blade), -v - F(blade) * (1 - profile)), np.maximum(u - F(0.9), F(-0.4) - u))
        head = np.maximum(disc(u + F(0.6), v, bow), F(bow * 0.35) - np.hypot(u + F(0.6 + bow * 0.4), v))
        far = np.minimum(stem, head)
        height = dome(far, 0.04, 4) - 3 * ramp(np.abs(v - F(blade * 0.4)), 0.03, 0.015) * (u > F(-0.3))
        return metal_body(view, view.cover(far), height, base, look)

    return draw


@family("ceramic plate", "gloss", "mineral", is_object=True, free=0.4)
def plate(rng: Rng) -> Draw:
    size, base, glaze = (rng.uniform(0.82, 0.97), rgb(any_colour(rng, (0, 0.4), (0.6, 1))), rng.uniform(0.2, 0.6))
    band, ink, foot, wave = (
        rng.uniform(0.6, 0.95),
        rgb(any_colour(rng)),
        rng.uniform(0.4, 0.7),
        int(rng.integers(0, 24)),
    )

    def draw(view: View) -> Canvas:
        r, t = np.hypot(view.u, view.v), np.arctan2(view.v, view.u)
        far = r - F(size)
        height = 8 * ramp(r, size * foot, size * 0.95) + dome(far, 0.03, 3)
        canvas = slab(view, far, base, 0.0, 0.0, glaze)
        canvas.height += height
        ring = np.abs(r - F(size * band)) - F(0.02) * (1 + F(0.6) * np.cos(F(wave) * t))
        canvas.paint(view.cover(ring) * canvas.alpha, ink)
        return canvas

    return draw


@family("rope", "fabric", is_object=True)
def rope(rng: Rng) -> Draw:
    """A twisted rope or a braided hose."""
    radius, strands, base = (
        rng.uniform(0.2, 0.6),
        rng.uniform(0.2, 0.6),
        rgb(any_colour(rng, (0, 0.7)) if chance(rng, 0.5) else earth(rng)),
    )
    braid, fuzz = chance(rng, 0.5), rng.uniform(0.03, 0.1)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        curve = np.sqrt(np.clip(1 - (v / F(radius)) ** 2, 0.02, 1))
        around = np.arcsin(np.clip(v / F(radius), -0.98, 0.98)) * F(radius)
        twist = np.abs(np.sin(F(3.14 / (strands * radius)) * (u + around)))
        if braid:
            twist = np.maximum(
                np.abs(np.sin(F(6.28 / (strands * radius)) * (u + around))),
                np.abs(np.sin(F(6.28 / (strands * radius)) * (u - around))),
            )
        hair = lattice(view.rng, (u + around) * 40, (u - around) * 8, 2)
        canvas = Canvas.empty()
        tone = (0.45 + 0.55 * twist**0.7) * (1 + F(fuzz) * hair)
        cover = view.cover(np.abs(v) - F(radius) - F(0.03 * radius) * twist, 1.5)
        canvas.paint(
            cover,
            np.clip(base * tone[..., None], 0, 1),
            (curve * F(radius / view.px * 0.5) + 3 * twist).astype(F),
            0.05,
        )
        return canvas

    return draw


@family("sponge", "soft", "food", is_object=True, free=0.2)
def pad(rng: Rng) -> Draw:
    """A porous block or pad with a scouring side."""
    a, b, base = rng.uniform(0.6, 0.9), rng.uniform(0.4, 0.85), rgb(any_colour(rng, (0.1, 0.9), (0.4, 1)))
    cell, split, second = (log_uniform(rng, 3, 9), rng.uniform(-1.5, 1), rgb(any_colour(rng, (0.2, 0.9), (0.1, 0.6))))

    def draw(view: View) -> Canvas:
        far = box(view.u, view.v, a, b, 0.08) + 0.01 * clouds(view.rng, 30, 2)
        pores = ramp(clouds(view.rng, cell, 2), 0.4, 1.3)
        canvas = slab(view, far, base, 6, 0.3, 0.0)
        canvas.multiply(1 - 0.5 * pores)
        canvas.height -= 2 * pores
        scour = view.cover(view.v - F(split * b)) * canvas.alpha
        hair = lattice(view.rng, view.u * 50, view.v * 50, 2, 0.8)
        canvas.paint(scour, shade(second, 1 + 0.2 * hair), 4 + hair)
        return canvas

    return draw
