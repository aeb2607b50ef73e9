"""Technical and outdoor surfaces."""

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


@family("knurled metal", "metal")
def knurled(rng: Rng) -> Draw:
    base, pitch, lean = rgb(greyish(rng, (0.3, 0.85))), log_uniform(rng, 0.06, 0.22), rng.uniform(0.4, 1.2)
    flat = rng.uniform(0.2, 0.9)

    def draw(view: View) -> Canvas:
        a, b = view.u / F(pitch) + F(lean) * view.v / F(pitch), view.u / F(pitch) - F(lean) * view.v / F(pitch)
        ridge = np.minimum(np.abs(np.mod(a, 1) - F(0.5)), np.abs(np.mod(b, 1) - F(0.5))) * 2
        top = np.minimum(ridge, F(flat))
        tone = 0.35 * (top - 0.3) + 0.05 * clouds(view.rng, 3, 2)
        return Canvas.filled(shade(base, 1 + tone), top * F(min(8, pitch / view.px * 0.4)), 0.25)

    return draw


@family("weld seam", "metal", grey_share=0.5)
def weld_seam(rng: Rng) -> Draw:
    base, half, pitch = rgb(greyish(rng, (0.3, 0.7))), rng.uniform(0.15, 0.45), log_uniform(rng, 0.05, 0.15)
    heat, curve, brush = rng.uniform(0, 0.5), rng.uniform(1, 4), rng.uniform(0.0, 0.07)

    def draw(view: View) -> Canvas:
        r = view.rng
        v = view.v + F(0.02) * lattice(r, view.u * 3, view.u * 0, 2)
        inside = ramp(np.abs(v), half, half * 0.85)
        scale = np.mod(view.u / F(pitch) + F(curve) * v * v + F(0.15) * lattice(r, view.u * 8, view.v * 3, 1), 1)
        relief = inside * (6 * np.sqrt(np.clip(1 - (v / F(half)) ** 2, 0, 1)) + 2.5 * scale)
        zone = ramp(np.abs(v), half * 2.2, half) * (1 - inside)
        tone = F(brush) * lattice(r, view.u * 3, view.v * 60, 2) + 0.06 * clouds(r, 3, 2) + 0.1 * inside * (scale - 0.5)
        tint = 1 - F(heat) * zone[..., None] * np.array([0.3, 0.5, 0.7], F)
        return Canvas.filled(np.clip(base * (1 + tone)[..., None] * tint, 0, 1), relief, 0.3)

    return draw


@family("steel plate", "metal", "mineral", grey_share=0.8)
def scaled_steel(rng: Rng) -> Draw:
    """Hot-rolled plate: cloudy scale, faint rolling lines, strong local contrast."""
    base, patchy, cell, lines = (
        rgb(greyish(rng, (0.25, 0.65))),
        rng.uniform(0.05, 0.2),
        log_uniform(rng, 8, 50),
        rng.uniform(0, 0.1),
    )
    sparkle = rng.uniform(0.02, 0.1)

    def draw(view: View) -> Canvas:
        r = view.rng
        tone = (
            F(patchy) * clouds(r, cell, 4, 0.6)
            + F(lines) * lattice(r, view.u * F(0.7), view.v * 18, 2)
            + F(sparkle) * clouds(r, 1.3, 1)
        )
        return Canvas.filled(shade(base, 1 + tone), tone * 2)

    return draw


@family("display panel", "gloss", "print", grey_share=0.5)
def display_panel(rng: Rng) -> Draw:
    """The pixel grid of a screen or filter, or a bare even field of light."""
    pitch, shares, glow = log_uniform(rng, 0.03, 0.15), rng.uniform(0.5, 0.9, 2), rng.uniform(0.3, 0.9)
    tones = np.array([(1, 0.15, 0.1), (0.15, 1, 0.2), (0.1, 0.2, 1)] if chance(rng, 0.5) else [(1, 1, 1)] * 3, F)
    even = chance(rng, 0.35)

    def draw(view: View) -> Canvas:
        a, b = view.u / F(pitch), view.v / F(pitch)
        x, y = np.abs(np.mod(a * 3, 1) - F(0.5)) * 2, np.abs(np.mod(b, 1) - F(0.5)) * 2
        lit = view.cover((x - F(shares[0])) * F(pitch / 6)) * view.cover((y - F(shares[1])) * F(pitch / 2))
        if even:
            lit = 0.9 + 0.02 * lit
        colour = tones[np.floor(a * 3).astype(np.int32) % 3] if not even else tones.mean(0)
        level = F(glow) * (0.08 + 0.92 * lit) * (1 + 0.02 * clouds(view.rng, 50, 2))
        return Canvas.filled(np.clip(colour * level[..., None], 0, 1).astype(F))

    return draw


@family("tyre tread", "soft", "plastic")
def tyre_tread(rng: Rng) -> Draw:
    base, period, zig = rgb(greyish(rng, (0.06, 0.25))), rng.uniform(0.25, 0.7), rng.uniform(0.1, 0.5)
    groove, sipe, angle = rng.uniform(0.03, 0.09), rng.uniform(0.008, 0.02), rng.uniform(-1.2, 1.2)

    def draw(view: View) -> Canvas:
        zigzag = F(zig * 0.3) * np.abs(np.mod(view.u / F(period), 1) - F(0.5))
        row = np.abs(np.mod(view.v + zigzag, F(0.5)) - F(0.25)) - F(groove)
        cross = np.abs(np.mod(view.u + F(angle) * np.abs(view.v), F(period)) - F(period / 2))
        cut = np.maximum(
            np.maximum(view.cover(row), view.cover(cross - F(groove * 0.7))),
            view.cover(np.mod(cross, F(0.12)) - F(sipe)),
        )
        rough = clouds(view.rng, 1.5, 2)
        return Canvas.filled(shade(base, 1 - 0.75 * cut + 0.08 * rough), -4 * cut + 0.3 * rough, 0.1)

    return draw


@family("road surface", "mineral", grey_share=0.5)
def road(rng: Rng) -> Draw:
    """Pavement with worn paint, joints and tyre tracks."""
    base, line, half = rgb(greyish(rng, (0.35, 0.65))), rng.uniform(-0.7, 0.7), rng.uniform(0.08, 0.25)
    painted, joint, grain = (
        chance(rng, 0.5),
        rng.uniform(-0.9, 0.9) if chance(rng, 0.4) else 9.0,
        rng.uniform(0.04, 0.14),
    )

    def draw(view: View) -> Canvas:
        r = view.rng
        rough = clouds(r, 1.8, 3, 0.7)
        tone = F(grain) * rough + 0.06 * clouds(r, 50, 3) + 0.05 * lattice(r, view.u * F(0.3), view.v * 4, 2)
        canvas = Canvas.filled(shade(base, 1 + tone), rough)
        if painted:
            stripe = view.cover(np.abs(view.v - F(line)) - F(half), 3) * ramp(clouds(r, 2, 3, 0.7), -1.6, -0.6)
            canvas.paint(stripe, np.clip(np.array([0.9, 0.9, 0.85], F) * (1 + 0.5 * tone)[..., None], 0, 1))
        canvas.multiply(1 - 0.6 * view.cover(np.abs(view.u - F(joint) + F(0.006) * rough) - F(0.015), 2))
        return canvas

    return draw


@family("bare circuit board", "board", "print")
def bare_board(rng: Rng) -> Draw:
    """Only traces, pads and vias."""
    mask = rgb(hsv(rng.choice([0.33, 0.38, 0.6, 0.0, 0.13]), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.5)))
    metal, cell, bold = (
        rgb(hsv(0.11, rng.uniform(0, 0.6), rng.uniform(0.4, 0.95))),
        int(rng.integers(8, 20)),
        rng.uniform(0.2, 0.5),
    )
    sheet = _traces(rng, cell, bold)

    def draw(view: View) -> Canvas:
        x, y = (view.u + 1) * F(SIZE) - F(0.5), (view.v + 1) * F(SIZE) - F(0.5)
        cover, holes = (cv2.remap(s, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT) for s in sheet)
        canvas = Canvas.filled(shade(mask, 1 + 0.05 * clouds(view.rng, 2, 2)), None, 0.2)
        canvas.paint(soften(cover, 0.6), metal, 2.0, 0.4)
        canvas.paint(holes, (0.03, 0.03, 0.03), 0.0, 0.0)
        return canvas

    return draw


def _traces(rng: Rng, cell: int, bold: float) -> tuple[np.ndarray, np.ndarray]:
    """Traces with their pads, and the holes, drawn on a grid: two sheets (480, 480)."""
    lines, holes = np.zeros((2 * SIZE, 2 * SIZE), np.uint8), np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    count, pen = 2 * SIZE // (2 * cell), max(2, int(2 * cell * bold))
    for _ in range(int(rng.integers(15, 60))):
        at = rng.integers(0, count, 2)
        points = [at]
        for _ in range(rng.integers(1, 5)):
            at = at + np.array([[1, 0], [0, 1], [1, 1], [1, -1], [-1, 0], [0, -1]])[rng.integers(0, 6)] * rng.integers(
                1, 5
            )
            points.append(at)
        track = (np.array(points) * 2 * cell).astype(np.int32)
        cv2.polylines(lines, [track], False, 255, pen, cv2.LINE_AA)
        for end in (track[0], track[-1]):
            cv2.circle(lines, (int(end[0]), int(end[1])), pen, 255, -1, cv2.LINE_AA)
            cv2.circle(holes, (int(end[0]), int(end[1])), max(1, pen // 2), 255, -1, cv2.LINE_AA)
    return lines.astype(F) / F(255), holes.astype(F) / F(255)


@family("metal foil", "metal", "gloss")
def crinkled_foil(rng: Rng) -> Draw:
    base, count, deep = (
        rgb(greyish(rng, (0.5, 0.9)) if chance(rng, 0.7) else hsv(0.12, 0.5, 0.8)),
        int(log_uniform(rng, 20, 250)),
        rng.uniform(0.05, 0.25),
    )

    def draw(view: View) -> Canvas:
        labels, far = voronoi(view.rng, count, 4.0)
        facet = view.rng.normal(0, deep, count + 2).astype(F)[labels % (count + 2)]
        tone = soften(facet, 1.5) + 0.1 * soften(borders(labels), 1.0)
        return Canvas.filled(shade(base, 1 + tone), soften(far, 2) * F(0.3), 0.3)

    return draw


@family("mosaic", "mineral", "gloss")
def mosaic(rng: Rng) -> Draw:
    tones, count = (
        np.array([any_colour(rng) for _ in range(int(rng.integers(2, 7)))], F),
        int(log_uniform(rng, 80, 600)),
    )
    grout, wide = rgb(greyish(rng, (0.2, 0.95))), int(rng.integers(2, 5))

    def draw(view: View) -> Canvas:
        labels, _ = voronoi(view.rng, count, 0.8)
        pick = view.rng.integers(0, len(tones), count + 2)
        each = 1 + view.rng.normal(0, 0.07, count + 2).astype(F)
        canvas = Canvas.filled(
            np.clip(tones[pick[labels % (count + 2)]] * each[labels % (count + 2)][..., None], 0, 1), None, 0.3
        )
        joint = borders(labels, wide)
        canvas.height += 3 - 3 * soften(joint, 1)
        canvas.paint(joint, grout, 0.0, 0.0)
        return canvas

    return draw


@family("radiograph of a casting", "metal", "cell", emission=True, grey_share=1.0)
def radiograph(rng: Rng) -> Draw:
    """Grey levels of thickness: smooth steps, fins and bores, grainy noise."""
    glow, steps = (
        rng.uniform(0.3, 0.8),
        [
            (rng.uniform(0, 6.28), rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35), rng.uniform(0.01, 0.2))
            for _ in range(rng.integers(1, 5))
        ],
    )
    bores = [
        (rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(0.08, 0.4), rng.uniform(-0.3, 0.4))
        for _ in range(rng.integers(0, 4))
    ]
    grain = rng.uniform(0.01, 0.05)

    def draw(view: View) -> Canvas:
        level = np.full_like(view.u, glow)
        for turn, at, change, soft in steps:
            level = level * (1 + F(change) * ramp(F(np.cos(turn)) * view.u + F(np.sin(turn)) * view.v, at, at + soft))
        for x, y, size, change in bores:
            level = level * (1 + F(change) * ramp(np.hypot(view.u - F(x), view.v - F(y)), size + 0.03, size))
        level = level * (1 + 0.03 * clouds(view.rng, 60, 2) + F(grain) * clouds(view.rng, 1.5, 1))
        return Canvas.filled(np.repeat(np.clip(level, 0, 1)[..., None], 3, 2))

    return draw


@family("cork sheet", "soft", "grain")
def cork(rng: Rng) -> Draw:
    base, count, dark = (
        rgb(hsv(rng.uniform(0.06, 0.1), rng.uniform(0.35, 0.6), rng.uniform(0.5, 0.85))),
        int(log_uniform(rng, 200, 2500)),
        rng.uniform(0.2, 0.6),
    )

    def draw(view: View) -> Canvas:
        labels, _ = voronoi(view.rng, count, 2.5)
        each = view.rng.normal(0, 0.1, count + 2).astype(F)[labels % (count + 2)]
        pit = ramp(clouds(view.rng, 4, 2), 1.2, 1.8)
        return Canvas.filled(shade(base, 1 + each - F(dark) * pit + 0.05 * clouds(view.rng, 2, 2)), -2 * pit)

    return draw


@family("abrasive paper", "soft", "mineral")
def sandpaper(rng: Rng) -> Draw:
    base, cell, deep = (rgb(any_colour(rng, (0, 0.6), (0.15, 0.8))), log_uniform(rng, 1.0, 3.0), rng.uniform(0.05, 0.3))

    def draw(view: View) -> Canvas:
        grit = clouds(view.rng, cell, 1)
        return Canvas.filled(shade(base, 1 + F(deep) * grit), grit * F(1.0), 0.15)

    return draw
