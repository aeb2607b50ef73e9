"""Nuts, washers, gears, screws and springs."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, View, box, disc, dome, polygon
from .noise import Field, Rng, chance, clouds, greyish, hsv, lattice, log_uniform, ramp, rgb
from .registry import Draw, family

F = np.float32


def metal(rng: Rng) -> np.ndarray:
    """Steel, brass, copper or blackened."""
    kind = rng.choice(["steel", "steel", "steel", "brass", "copper", "black"])
    tone = {
        "steel": greyish(rng, (0.4, 0.9)),
        "brass": hsv(0.12, 0.5, rng.uniform(0.5, 0.85)),
        "copper": hsv(0.05, 0.5, rng.uniform(0.5, 0.8)),
        "black": greyish(rng, (0.08, 0.25)),
    }[str(kind)]
    return np.asarray(tone, F)


def reflect(height: Field, amount: float, phase: float) -> Field:
    """The room mirrored in a curved metal surface: tone changes with the slope."""
    slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.25)
    return F(amount) * np.sin(F(1.7) * slope_x + F(2.3) * slope_y + F(phase))


def finish(rng: Rng) -> dict[str, float]:
    """How a metal part was left: rough, turned, brushed, shiny."""
    return {
        "rough": 0.7 * rng.random() ** 3,
        "grain": log_uniform(rng, 1.2, 5),
        "brush": rng.uniform(0, 0.08) * chance(rng, 0.5),
        "shine": rng.uniform(0, 0.3),
        "gloss": rng.uniform(0, 0.4),
        "phase": rng.uniform(0, 6),
    }


def metal_body(view: View, cover: Field, height: Field, base: np.ndarray, look: dict[str, float]) -> Canvas:
    """A metal thing of this outline and relief."""
    canvas = Canvas.empty()
    rough = clouds(view.rng, look["grain"], 2)
    tone = (
        0.03 * clouds(view.rng, 30, 2)
        + F(0.04) * F(look["rough"]) * rough
        + reflect(height, look["shine"], look["phase"])
    )
    if look["brush"]:
        tone = tone + F(look["brush"]) * lattice(view.rng, view.u * 2, view.v * 80, 2)
    canvas.paint(
        cover, np.clip(base * (1 + tone)[..., None], 0.01, 1), height + F(look["rough"]) * rough, look["gloss"]
    )
    return canvas


@family("washer", "part", "metal", is_object=True, free=0.3)
def washer(rng: Rng) -> Draw:
    outer, share, thick = rng.uniform(0.7, 0.95), rng.uniform(0.3, 0.85), rng.uniform(2, 8)
    base, look, bevel = metal(rng), finish(rng), rng.uniform(0.03, 0.2)
    rubber = chance(rng, 0.25)
    if rubber:
        base = rgb(greyish(rng, (0.05, 0.2)))

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        far = np.maximum(r - F(outer), F(outer * share) - r)
        return metal_body(
            view, view.cover(far), dome(far, outer * (1 - share) * (0.5 if rubber else bevel), thick), base, look
        )

    return draw


@family("metal nut", "part", "metal", is_object=True, free=0.4)
def hex_nut(rng: Rng) -> Draw:
    size, hole, sides = rng.uniform(0.6, 0.85), rng.uniform(0.4, 0.68), int(rng.choice([4, 6, 6, 6, 8]))
    base, look, threads = metal(rng), finish(rng), rng.uniform(0.02, 0.06)
    flange = size * rng.uniform(1.1, 1.25) if chance(rng, 0.3) else 0.0
    lobes = rng.uniform(0.0, 0.1) if chance(rng, 0.25) else 0.0

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        far = polygon(view.u, view.v, size, sides, 0.06) + F(lobes) * np.cos(F(sides) * np.arctan2(view.v, view.u))
        ring = F(size * hole) - r
        height = dome(np.maximum(far, ring), 0.1, 6) - 3 * ramp(r, size * 0.95, size * 1.15)
        outside = np.maximum(far if not flange else np.minimum(far, r - F(flange)), ring)
        canvas = metal_body(view, view.cover(outside), height, base, look)
        inner = ramp(r, size * hole + 2.5 * threads, size * hole)
        canvas.multiply(1 - inner * (0.45 + 0.35 * np.sin(r * F(6.28 / threads * 1.6))))
        return canvas

    return draw


@family("gear wheel", "part", "metal", "parts", is_object=True, free=0.4)
def gear(rng: Rng) -> Draw:
    teeth, outer, deep, hub = (
        int(rng.integers(8, 40)),
        rng.uniform(0.8, 0.95),
        rng.uniform(0.06, 0.16),
        rng.uniform(0.15, 0.35),
    )
    base, look, web, holes = metal(rng), finish(rng), rng.uniform(0.4, 0.7), int(rng.choice([0, 3, 4, 5, 6, 8]))

    def draw(view: View) -> Canvas:
        r = np.hypot(view.u, view.v)
        body = np.maximum(r - F(outer - deep), F(hub * 0.5) - r)
        height = dome(body, 0.05, 4) - 3 * ramp(r, hub, hub + 0.04) * ramp(r, outer * 0.8, outer * 0.8 - 0.04) * F(
            web > 0.5
        )
        far, turn = body, 2 * np.pi / teeth
        for part in view.parts(
            [((outer - deep) * np.cos(i * turn), (outer - deep) * np.sin(i * turn), i * turn) for i in range(teeth)]
        ):
            window, x, y = view.local(part, deep * 2)
            if x.size:
                tooth = box(
                    x,
                    y * (1 + F(2 / deep) * x * F(0.3)),
                    deep,
                    deep * min(1.0, 5.0 / teeth * outer / deep * 0.35),
                    deep * 0.2,
                )
                far[window] = np.minimum(far[window], tooth)
        canvas = metal_body(view, view.cover(far), height, base, look)
        if holes:
            mid = (hub + outer - deep) / 2
            for k in range(holes):
                x, y = view.u - F(mid * np.cos(6.2832 * k / holes)), view.v - F(mid * np.sin(6.2832 * k / holes))
                canvas.alpha *= 1 - view.cover(np.hypot(x, y) - F(mid * 0.25 * min(1.0, 6 / holes)))
        return canvas

    return draw


@family("screw", "part", "metal", is_object=True, free=0.5)
def screw(rng: Rng) -> Draw:
    """A screw or bolt from the side."""
    length, head, stem, pitch = (
        rng.uniform(0.7, 0.95),
        rng.uniform(0.2, 0.4),
        rng.uniform(0.09, 0.2),
        log_uniform(rng, 0.04, 0.12),
    )
    base, look, tip, smooth = metal(rng), finish(rng), rng.uniform(0.1, 0.5), rng.uniform(0.0, 0.5)
    deep, high = rng.uniform(0.15, 0.35), rng.uniform(0.08, 0.25)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        wave = np.abs(np.mod(u / F(pitch) + F(0.35) * v / F(stem), 1) - F(0.5)) * 2
        threaded = ramp(u, -length + high + smooth * length, -length + high + smooth * length + 0.03)
        limit = F(stem) * (1 - F(deep) * wave * threaded) * np.clip((F(length) - u) / F(tip), 0, 1)
        shaft = np.maximum(np.abs(v) - limit, np.maximum(u - F(length), F(-length) - u))
        top = box(u + F(length - high / 2), v, high / 2, head, high * 0.35)
        round_part = np.sqrt(np.clip(1 - (v / F(stem)) ** 2, 0, 1)) * F(stem / view.px * 0.5)
        height = np.maximum(round_part * (1 - F(deep) * wave * threaded), dome(top, high * 0.5, head / view.px * 0.3))
        canvas = metal_body(view, view.cover(np.minimum(shaft, top)), height, base, look)
        canvas.multiply(1 - F(0.5) * wave * threaded * (top > 0))
        return canvas

    return draw


@family("bolt head", "part", "metal", is_object=True, free=0.4)
def bolt_head(rng: Rng) -> Draw:
    size, drive, deep = rng.uniform(0.7, 0.92), rng.choice(["slot", "cross", "hex", "star"]), rng.uniform(0.2, 0.4)
    base, look, bulge = metal(rng), finish(rng), rng.uniform(4, 20)
    hexagon = chance(rng, 0.4)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        far = polygon(u, v, size * 0.9, 6, 0.05) if hexagon else disc(u, v, size)
        canvas = metal_body(view, view.cover(far), dome(far, size * (0.15 if hexagon else 0.9), bulge), base, look)
        t, r = np.arctan2(v, u), np.hypot(u, v)
        hollow = {
            "slot": lambda: np.maximum(np.abs(v) - F(0.09), r - F(size)),
            "hex": lambda: polygon(u, v, deep, 6),
            "cross": lambda: np.minimum(box(u, v, deep * 1.4, 0.09), box(u, v, 0.09, deep * 1.4)),
            "star": lambda: r - F(deep) * (1 + F(0.18) * np.cos(6 * t)),
        }[str(drive)]()
        canvas.paint(view.cover(hollow) * canvas.alpha, np.clip(base * F(0.25), 0, 1), 0.0, 0.0)
        return canvas

    return draw


@family("spring", "part", "metal", is_object=True)
def spring(rng: Rng) -> Draw:
    turns, wide, wire, length = (
        int(rng.integers(5, 16)),
        rng.uniform(0.25, 0.6),
        rng.uniform(0.25, 0.45),
        rng.uniform(0.75, 0.95),
    )
    base, look = metal(rng), finish(rng)

    def draw(view: View) -> Canvas:
        u, v = view.u, view.v
        pitch = 2 * length / turns
        lean = F(0.25 * pitch / wide) * v
        a = np.mod(u + lean, F(pitch)) - F(pitch / 2)
        b = np.mod(u - lean + F(pitch / 2), F(pitch)) - F(pitch / 2)
        limit = np.maximum(np.abs(u) - F(length), np.abs(v) - F(wide))
        front, back = (
            np.maximum(np.abs(a) - F(wire * pitch / 2), limit),
            np.maximum(np.abs(b) - F(wire * pitch / 2), limit),
        )
        canvas = metal_body(view, view.cover(back), dome(back, wire * pitch / 2, 3), base * F(0.6), look)
        fore = metal_body(
            view,
            view.cover(front),
            dome(front, wire * pitch / 2, 6) + 8 * np.sqrt(np.clip(1 - (v / F(wide)) ** 2, 0, 1)),
            base,
            look,
        )
        canvas.paint(fore.alpha, fore.colour, fore.height, look["gloss"])
        return canvas

    return draw
