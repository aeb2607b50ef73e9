"""Printed patterns, labels and solar cells."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import Canvas, View, shade
from .noise import (
    SIZE,
    Rng,
    any_colour,
    borders,
    chance,
    clouds,
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

F = np.float32
LETTERS = "ABCDEFGHJKLMNPRSTUVXYZ0123456789"
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN)


def words(rng: Rng, lines: int, letters: int, font: int | None = None) -> np.ndarray:
    """A sheet (240, 240) of text, coverage 0 ... 1, in its own straight frame."""
    sheet = np.zeros((SIZE, SIZE), np.uint8)
    font = int(rng.choice(FONTS)) if font is None else font
    tall = SIZE / (lines + 0.5)
    for i in range(lines):
        text = "".join(rng.choice(list(LETTERS), letters))
        (wide, high), _ = cv2.getTextSize(text, font, 1.0, 1)
        scale = min(0.9 * SIZE / wide, 0.65 * tall / high)
        at = (int(SIZE * 0.05), int(tall * (i + 1)))
        cv2.putText(sheet, text, at, font, scale, 255, max(1, round(scale * rng.uniform(1, 3))), cv2.LINE_AA)
    return sheet.astype(F) / F(255)


def laid(view: View, sheet: np.ndarray, span: float = 1.0, at: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A straight sheet seen in the view's pose; it covers -span ... span of the product around ``at``."""
    x, y = (((c - F(o)) / F(span) + 1) * F(SIZE / 2) - F(0.5) for c, o in zip((view.u, view.v), at, strict=True))
    return cv2.remap(sheet, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@family("printed text", "print")
def printed_text(rng: Rng) -> Draw:
    base, inkc = (rgb(any_colour(rng, (0, 0.4), (0.7, 1))), rgb(any_colour(rng, (0, 0.8), (0.02, 0.35))))
    if chance(rng, 0.3):
        base, inkc = inkc, base
    sheet = words(rng, int(rng.integers(2, 9)), int(rng.integers(4, 18)))
    bars = rng.integers(1, 5, 40) if chance(rng, 0.4) else None

    def draw(view: View) -> Canvas:
        canvas = Canvas.filled(base * (1 + 0.015 * clouds(view.rng, 3, 2))[..., None])
        cover = laid(view, sheet, 0.95)
        if bars is not None:
            code = np.repeat(np.arange(len(bars)) % 2, bars * 2).astype(F)
            lines = np.zeros((SIZE, SIZE), F)
            lines[60:180, 30 : 30 + min(len(code), 190)] = code[:190]
            low = laid(view, lines, 0.6)
            inside = (np.abs(view.v) < 0.35) & (np.abs(view.u) < 0.6)
            cover = np.where(inside, low, cover)
        canvas.paint(cover.astype(F), inkc)
        return canvas

    return draw


@family("printed pattern", "print", "parts")
def printed_pattern(rng: Rng) -> Draw:
    """A repeat of one simple motif."""
    base, step, size = rgb(any_colour(rng, (0, 0.7))), rng.uniform(0.3, 0.65), rng.uniform(0.2, 0.38)
    inks = np.array([any_colour(rng) for _ in range(2)], F)
    kind, petals, half = (
        rng.choice(["dot", "ring", "flower", "square", "cross"]),
        int(rng.integers(3, 8)),
        chance(rng, 0.5),
    )

    def draw(view: View) -> Canvas:
        canvas = Canvas.filled(base * (1 + 0.02 * clouds(view.rng, 2, 1))[..., None])
        reach = int(np.ceil(1.3 / step))
        rows = range(-reach, reach + 1)
        places = [((i + 0.5 * half * (j % 2)) * step, j * step, 0.3 * (i % 2)) for j in rows for i in rows]
        for part in view.parts(places):
            window, x, y = view.local(part, step * size * 1.3)
            if x.size == 0:
                continue
            r, t = np.hypot(x, y), np.arctan2(y, x)
            limit = F(step * size)
            far = {
                "dot": r - limit,
                "ring": np.abs(r - limit * F(0.8)) - limit * F(0.2),
                "flower": r - limit * (F(0.75) + F(0.35) * np.cos(petals * t)),
                "square": np.maximum(np.abs(x), np.abs(y)) - limit * F(0.8),
                "cross": np.minimum(
                    np.maximum(np.abs(x) - limit * F(0.3), np.abs(y) - limit),
                    np.maximum(np.abs(y) - limit * F(0.3), np.abs(x) - limit),
                ),
            }[str(kind)]
            canvas.paint(view.cover(far.astype(F)), inks[part.index % 2] * part.tint, window=window)
        return canvas

    return draw


@family("striped surface", "print")
def stripes(rng: Rng) -> Draw:
    tones = np.array([any_colour(rng, (0, 0.8)) for _ in range(4)], F)
    cuts = np.cumsum(rng.uniform(0.2, 1, 6))
    period, order = log_uniform(rng, 0.15, 0.7), rng.integers(0, 4, 6)

    def draw(view: View) -> Canvas:
        where = np.mod(view.u / F(period), 1) * F(cuts[-1])
        colour = tones[order[np.minimum(np.searchsorted(cuts, where), 5)]]
        colour = cv2.GaussianBlur(colour, (0, 0), 0.5)
        return Canvas.filled(shade(colour, 1 + 0.02 * clouds(view.rng, 2, 2)))

    return draw


# solar cells and wafers -------------------------------------------------------------------------
def _wires(view: View, buses: int, width: float, fingers: float, thin: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of the bus bars (along v) and of the finger lines (along u)."""
    a = (view.u + 1) * F(buses / 2)
    bus = view.cover(np.abs(a - np.floor(a) - F(0.5)) * F(2 / buses) - F(width))
    b = view.v / F(fingers)
    finger = view.cover(np.abs(b - np.floor(b) - F(0.5)) * F(fingers) - F(thin))
    return bus, finger


def _cell_edge(view: View, side: float, cut: float) -> np.ndarray:
    far = np.maximum(
        np.maximum(np.abs(view.u), np.abs(view.v)) - F(side), (np.abs(view.u) + np.abs(view.v)) - F(2 * side - cut)
    )
    return view.cover(far)


@family("solar cell", "cell", emission=True, grey_share=1.0, aligned=True)
def poly_cell_emission(rng: Rng) -> Draw:
    """A polycrystalline cell that glows: dark grains and borders, dark bus bars, darker rim."""
    count, buses, glow = int(log_uniform(rng, 60, 600)), int(rng.integers(2, 6)), rng.uniform(0.4, 0.85)
    spread, edges, rimmed, side = (
        rng.uniform(0.03, 0.15),
        rng.uniform(0.0, 0.35),
        rng.uniform(0, 0.5),
        rng.uniform(0.9, 1.02),
    )
    dislocation, fine, thin = rng.uniform(0.05, 0.5), rng.uniform(0.02, 0.04), rng.uniform(0, 0.12)

    def draw(view: View) -> Canvas:
        r = view.rng
        labels, _ = voronoi(r, count, 2.0)
        grain = r.normal(0, spread, count + 2).astype(F)[labels % (count + 2)]
        web = np.exp(-np.abs(clouds(r, 22, 3, 0.6)) * 7) * ramp(clouds(r, 40, 2), 0.0, 1.2)
        bus, finger = _wires(view, buses, 0.018, fine, fine * 0.25)
        tone = 1 + grain - F(edges) * borders(labels, 1) - F(dislocation) * web - F(thin) * finger
        tone *= 1 - F(rimmed) * ramp(np.maximum(np.abs(view.u), np.abs(view.v)), 0.5, 1.05)
        level = np.clip(F(glow) * tone, 0.02, 1) * (1 - F(0.85) * bus) * (0.05 + 0.95 * _cell_edge(view, side, 0.0))
        return Canvas.filled(np.repeat(soften(level, 0.5)[..., None], 3, 2))

    return draw


@family("solar cell", "cell", emission=True, grey_share=1.0, aligned=True)
def mono_cell_emission(rng: Rng) -> Draw:
    """A single-crystal cell that glows: even, with rings, cut corners and faint lines."""
    buses, glow, side, cut = (
        int(rng.integers(2, 6)),
        rng.uniform(0.4, 0.9),
        rng.uniform(0.9, 1.0),
        rng.choice([0.0, 0.2, 0.35]),
    )
    rings, ring_at, fine, thin = rng.uniform(0, 0.06), rng.uniform(5, 25), rng.uniform(0.02, 0.05), rng.uniform(0, 0.15)
    dim, press = rng.uniform(0, 0.35), rng.uniform(0, 0.15)

    def draw(view: View) -> Canvas:
        bus, finger = _wires(view, buses, rng_bus, fine, fine * 0.25)
        radius = np.hypot(view.u, view.v)
        tone = 1 + F(rings) * np.sin(radius * F(ring_at)) - F(dim) * radius**2 * 0.6 - F(thin) * finger
        tone += 0.04 * clouds(view.rng, 50, 3) + F(press) * 0.3 * lattice(view.rng, view.u * 1.5, view.v * 8, 1)
        level = np.clip(F(glow) * tone, 0.02, 1) * (1 - F(0.85) * bus) * (0.05 + 0.95 * _cell_edge(view, side, cut))
        return Canvas.filled(np.repeat(soften(level, 0.5)[..., None], 3, 2))

    rng_bus = rng.uniform(0.012, 0.03)
    return draw


@family("solar panel", "cell", "gloss")
def solar_panel_photo(rng: Rng) -> Draw:
    """A cell or several in daylight: blue or black, silver lines, white gaps."""
    base = rgb(hsv(rng.uniform(0.55, 0.7), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.5)))
    count, grains, pitch, cut = (
        int(log_uniform(rng, 80, 800)),
        rng.uniform(0, 0.25),
        rng.choice([1.0, 2.0]),
        rng.choice([0.0, 0.25]),
    )
    silver, gap, buses = (rgb(greyish(rng, (0.6, 0.95))), rgb(greyish(rng, (0.5, 0.97))), int(rng.integers(2, 5)))

    def draw(view: View) -> Canvas:
        labels, _ = voronoi(view.rng, count, 1.0)
        tone = view.rng.normal(0, grains, count + 2).astype(F)[labels % (count + 2)]
        canvas = Canvas.filled(shade(base, 1 + tone), None, 0.2)
        x, y = np.mod(view.u + 1, F(pitch)) / F(pitch) * 2 - 1, np.mod(view.v + 1, F(pitch)) / F(pitch) * 2 - 1
        a = (x + 1) * F(buses / 2)
        bus = view.cover((np.abs(a - np.floor(a) - F(0.5)) * F(2 / buses) - F(0.025)) * F(pitch / 2))
        finger = np.abs(np.mod(y * 14, 1) - F(0.5)) < 0.06
        canvas.paint(np.maximum(bus, 0.35 * finger), silver)
        edge = np.maximum(np.maximum(np.abs(x), np.abs(y)) - F(0.96), np.abs(x) + np.abs(y) - F(1.92 - cut))
        canvas.paint(1 - view.cover(edge * F(pitch / 2)), gap)
        return canvas

    return draw


@family("silicon wafer", "cell", "metal")
def die_wafer(rng: Rng) -> Draw:
    """Rows of equal dies with fine circuits."""
    base, lines = rgb(any_colour(rng, (0.1, 0.7), (0.3, 0.8))), rgb(greyish(rng, (0.1, 0.9)))
    pitch, street = log_uniform(rng, 0.15, 0.6), rng.uniform(0.04, 0.12)
    stamp = soften((rng.random((SIZE, SIZE)) < rng.uniform(0.05, 0.3)).astype(F), 1.0)
    stamp = cv2.resize(
        cv2.resize(stamp, (int(rng.integers(6, 20)), int(rng.integers(6, 20))), interpolation=cv2.INTER_AREA),
        (SIZE, SIZE),
        interpolation=cv2.INTER_NEAREST,
    )
    stamp = (stamp - stamp.mean()) / max(float(stamp.std()), 1e-3)
    sheen = rng.uniform(0, 0.25)

    def draw(view: View) -> Canvas:
        a, b = view.u / F(pitch), view.v / F(pitch)
        x, y = a - np.floor(a), b - np.floor(b)
        detail = cv2.remap(stamp, x * F(SIZE - 1), y * F(SIZE - 1), cv2.INTER_LINEAR)
        rainbow = F(sheen) * np.stack([np.sin(view.u * 2 + k + view.v) for k in (0, 2, 4)], -1)
        canvas = Canvas.filled(np.clip(base * (1 + 0.12 * detail[..., None] + rainbow), 0, 1).astype(F), None, 0.2)
        near = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
        canvas.paint(view.cover((near - F(street)) * F(pitch)), lines)
        return canvas

    return draw
