"""Textiles, meshes and other surfaces made of threads."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, View, shade
from .noise import (
    FRAME_X,
    Field,
    Rng,
    any_colour,
    chance,
    clouds,
    earth,
    greyish,
    lattice,
    log_uniform,
    ramp,
    rgb,
    shifted,
    white,
)
from .registry import Draw, family

TAU = np.float32(2 * np.pi)


def _wave(rng: Rng, view: View, amount: float) -> tuple[Field, Field]:
    """The product's coordinates with threads that wander a little."""
    du = np.float32(amount) * lattice(rng, view.u * 2, view.v * 2, 2)
    dv = np.float32(amount) * lattice(rng, view.u * 2, view.v * 2, 2)
    return view.u + du, view.v + dv


def _per_thread(rng: Rng, index: Field, spread: float) -> Field:
    """One value for each thread number."""
    table = rng.normal(0, spread, 512).astype(np.float32)
    return table[index.astype(np.int32) % 512]


def weave(
    rng: Rng, u: Field, v: Field, period: tuple[float, float], pattern: str, spread: float
) -> tuple[Field, Field, Field]:
    """Thread height 0 ... 1, whether the warp is on top (0 or 1) and a tone per thread."""
    a, b = u / np.float32(period[0]), v / np.float32(period[1])
    i, j = np.floor(a), np.floor(b)
    x, y = a - i - np.float32(0.5), b - j - np.float32(0.5)
    rule = {
        "plain": (i + j) % 2 < 1,
        "twill": (i + j) % 4 < 2,
        "twill3": (i - j) % 3 < 2,
        "satin": (2 * i + j) % 5 > 0,
        "basket": (np.floor(i / 2) + np.floor(j / 2)) % 2 < 1,
    }
    warp_up = rule[pattern].astype(np.float32)
    across, along = np.where(warp_up > 0, x, y), np.where(warp_up > 0, y, x)
    relief = np.clip(1 - 3.4 * across * across, 0, 1) * (1 - 1.2 * along * along)
    tone = np.where(warp_up > 0, _per_thread(rng, i, spread), _per_thread(rng, j, spread))
    return relief.astype(np.float32), warp_up, tone.astype(np.float32)


def _weaver(
    rng: Rng, patterns: list[str], period: tuple[float, float], colours: tuple[np.ndarray, np.ndarray], amp: float
) -> Draw:
    size = log_uniform(rng, *period)
    sides = (size, size * log_uniform(rng, 0.7, 1.4))
    pattern, spread, wander = str(rng.choice(patterns)), rng.uniform(0.01, 0.1), rng.uniform(0, 0.006)
    fuzz, depth = rng.uniform(0, 0.05), amp * rng.uniform(0.3, 1.0)
    warp, weft = colours

    def draw(view: View) -> Canvas:
        u, v = _wave(view.rng, view, wander)
        relief, up, tone = weave(view.rng, u, v, sides, pattern, spread)
        light = (1 - np.float32(depth) * (1 - relief)) * (1 + tone + np.float32(fuzz) * white(view.rng))
        colour = (weft + (warp - weft) * up[..., None]) * light[..., None]
        thick = np.float32(min(3.0, sides[0] / view.px * 0.15))
        return Canvas.filled(np.clip(colour, 0.01, 1), relief * thick)

    return draw


@family("woven fabric", "fabric")
def woven_fabric(rng: Rng) -> Draw:
    base = any_colour(rng, (0, 0.8)) if chance(rng, 0.6) else greyish(rng)
    pair = np.asarray(base, np.float32), np.asarray(shifted(rng, base, 0.15), np.float32)
    return _weaver(rng, ["plain", "plain", "basket"], (0.025, 0.14), pair, 0.8)


@family("denim", "fabric")
def twill_denim(rng: Rng) -> Draw:
    blue = rgb(any_colour(rng, (0.3, 0.8), (0.2, 0.7)))
    return _weaver(rng, ["twill", "twill3"], (0.02, 0.09), (blue, np.clip(blue * 0.5 + 0.4, 0, 1)), 0.7)


@family("satin cloth", "fabric")
def satin_cloth(rng: Rng) -> Draw:
    base = any_colour(rng, (0.1, 0.8))
    pair = np.asarray(base, np.float32), np.asarray(shifted(rng, base, 0.1), np.float32)
    return _weaver(rng, ["satin"], (0.018, 0.06), pair, 0.5)


@family("textile", "fabric", grey_share=0.7)
def fine_grey_cloth(rng: Rng) -> Draw:
    """Fine cloth close to the resolution of the camera: low contrast, with moire and soft shading."""
    base = rgb(greyish(rng, (0.3, 0.8)))
    sides = log_uniform(rng, 0.02, 0.05), log_uniform(rng, 0.02, 0.05)
    contrast, bumps, slub = rng.uniform(0.05, 0.3), rng.uniform(0, 0.06), 0.08 * rng.random() ** 2
    diagonal = rng.choice([0.0, 0.0, 0.5, 1.0])

    def draw(view: View) -> Canvas:
        u, v = _wave(view.rng, view, 0.002)
        a, b = TAU * u / np.float32(sides[0]), TAU * v / np.float32(sides[1])
        tone = np.float32(contrast) * 0.5 * (np.sin(a + np.float32(diagonal) * b) + np.sin(b))
        rows = np.float32(slub) * (
            lattice(view.rng, u * 2, v / np.float32(sides[1]), 1)
            + lattice(view.rng, u / np.float32(sides[0]), v * 2, 1)
        )
        soft = np.float32(bumps) * clouds(view.rng, 45, 2) + np.float32(0.03) * white(view.rng)
        return Canvas.filled(shade(base, 1 + tone + rows + soft), tone * 1.5)

    return draw


@family("checked cloth", "fabric", "print")
def checked_cloth(rng: Rng) -> Draw:
    tones = np.array([any_colour(rng) for _ in range(4)], np.float32)
    widths = rng.integers(1, 6, 12)
    stripe = np.repeat(rng.integers(0, 4, 12), widths)
    other = stripe if chance(rng, 0.5) else np.roll(stripe, 5)
    size = log_uniform(rng, 0.02, 0.05)

    def draw(view: View) -> Canvas:
        u, v = _wave(view.rng, view, 0.003)
        relief, up, tone = weave(view.rng, u, v, (size, size), "twill", 0.03)
        i, j = np.floor(u / np.float32(size)).astype(int), np.floor(v / np.float32(size)).astype(int)
        colour = np.where(up[..., None] > 0, tones[stripe[i % len(stripe)]], tones[other[j % len(other)]])
        light = (0.7 + 0.3 * relief) * (1 + tone)
        return Canvas.filled(np.clip(colour * light[..., None], 0.01, 1).astype(np.float32), relief)

    return draw


@family("knitted fabric", "fabric")
def knit(rng: Rng) -> Draw:
    base = rgb(any_colour(rng, (0, 0.8)))
    width, tall = log_uniform(rng, 0.04, 0.2), rng.uniform(0.7, 1.3)
    spread, fuzz, lean = rng.uniform(0.01, 0.06), rng.uniform(0.02, 0.1), rng.uniform(0.5, 0.9)

    def draw(view: View) -> Canvas:
        u, v = _wave(view.rng, view, 0.004)
        a = u / np.float32(width)
        x = a - np.floor(a) - np.float32(0.5)
        b = v / np.float32(width * tall) + np.float32(lean) * np.abs(x)
        y = b - np.floor(b) - np.float32(0.5)
        relief = np.clip(1 - 3.6 * y * y, 0, 1) * np.clip(1 - ((np.abs(x) - 0.26) * 3.4) ** 2, 0, 1)
        tone = _per_thread(view.rng, np.floor(b), spread)
        light = (0.35 + 0.65 * relief) * (1 + tone + np.float32(fuzz) * clouds(view.rng, 2.5, 2))
        return Canvas.filled(
            np.clip(base * light[..., None], 0.01, 1), relief * np.float32(min(4, width / view.px * 0.12))
        )

    return draw


@family("carpet", "pile")
def carpet(rng: Rng) -> Draw:
    """Loops or tufts in rows, strongly irregular."""
    base, second = rgb(any_colour(rng, (0, 0.5))), rgb(any_colour(rng, (0, 0.5)))
    size, wild, mix = log_uniform(rng, 0.05, 0.14), rng.uniform(0.005, 0.03), rng.uniform(0, 0.5)

    def draw(view: View) -> Canvas:
        rng = view.rng
        u = view.u + np.float32(wild) * lattice(rng, view.u * 14, view.v * 14, 2)
        v = view.v + np.float32(wild) * lattice(rng, view.u * 14, view.v * 14, 2)
        a, b = u / np.float32(size), v / np.float32(size)
        b = b + np.float32(0.5) * (np.floor(a) % 2)
        x, y = a - np.floor(a) - np.float32(0.5), b - np.floor(b) - np.float32(0.5)
        tuft = np.clip(1 - 2.6 * (x * x + y * y), 0, 1)
        blend = np.float32(mix) * ramp(
            lattice(rng, np.floor(a) * np.float32(1.7), np.floor(b) * np.float32(1.3), 1), -0.3, 0.3
        )
        light = (0.3 + 0.7 * tuft) * (1 + 0.12 * clouds(rng, 2, 2))
        colour = (base + (second - base) * blend[..., None]) * light[..., None]
        return Canvas.filled(np.clip(colour, 0.01, 1), tuft * 2)

    return draw


@family("felt", "pile")
def felt(rng: Rng) -> Draw:
    base = rgb(any_colour(rng, (0, 0.7)))
    depth, cell, turns = rng.uniform(0.04, 0.16), rng.uniform(1.2, 4), rng.uniform(0, np.pi, 5)

    def draw(view: View) -> Canvas:
        tone = np.zeros_like(FRAME_X)
        for turn in turns:
            cos, sin = np.float32(np.cos(turn) * 110), np.float32(np.sin(turn) * 110)
            along, across = cos * view.u + sin * view.v, cos * view.v - sin * view.u
            tone += lattice(view.rng, along / 14, across / np.float32(cell), 1)
        return Canvas.filled(shade(base, 1 + np.float32(depth * 0.45) * tone), tone * 0.4)

    return draw


def _net(rng: Rng, period: tuple[float, float], wire: tuple[float, float], kinds: list[str]) -> Draw:
    size, thick, kind = log_uniform(rng, *period), rng.uniform(*wire), str(rng.choice(kinds))
    wires = rgb(greyish(rng, (0.35, 0.95)) if chance(rng, 0.6) else any_colour(rng))
    back = rgb(greyish(rng, (0.02, 0.3)) if wires.mean() > 0.5 else greyish(rng, (0.6, 1)))
    wander = rng.uniform(0, 0.004)

    def draw(view: View) -> Canvas:
        u, v = _wave(view.rng, view, wander)
        if kind == "diamond":
            u, v = (u + np.float32(0.6) * v) * np.float32(0.8), (u - np.float32(0.6) * v) * np.float32(0.8)
        if kind == "hex":
            v = (
                v
                + np.float32(size * 0.25)
                * np.sign(np.sin(TAU * u / np.float32(2 * size)))
                * np.abs(np.sin(TAU * u / np.float32(2 * size))) ** 0.4
            )
        a, b = u / np.float32(size), v / np.float32(size)
        x, y = np.abs(a - np.floor(a) - np.float32(0.5)) - 0.5, np.abs(b - np.floor(b) - np.float32(0.5)) - 0.5
        flip = np.float32(0.15) * np.cos(np.float32(np.pi) * (np.floor(a) + np.floor(b)))
        across = np.minimum(np.abs(x) + flip * (np.abs(x) < np.abs(y)), np.abs(y))
        cover = view.cover((across - np.float32(thick)) * np.float32(size))
        relief = np.clip(1 - (across / np.float32(thick)) ** 2, 0, 1)
        tone = (0.55 + 0.45 * relief) * (1 + 0.05 * clouds(view.rng, 5, 2))
        colour = back + (wires * tone[..., None] - back) * cover[..., None]
        return Canvas.filled(np.clip(colour, 0, 1), relief * cover * np.float32(min(4, thick * size / view.px)), 0.0)

    return draw


@family("wire mesh", "fabric", "metal")
def wire_mesh(rng: Rng) -> Draw:
    return _net(rng, (0.07, 0.3), (0.1, 0.22), ["square", "square", "diamond"])


@family("grid", "fabric", "metal", grey_share=0.6)
def coarse_grid(rng: Rng) -> Draw:
    return _net(rng, (0.15, 0.5), (0.06, 0.2), ["square", "diamond", "hex"])


@family("gauze", "fabric")
def gauze(rng: Rng) -> Draw:
    return _net(rng, (0.04, 0.1), (0.14, 0.26), ["square"])


@family("woven basket", "fabric", "grain")
def wicker(rng: Rng) -> Draw:
    base = rgb(earth(rng))
    return _weaver(
        rng,
        ["plain", "basket", "twill"],
        (0.1, 0.3),
        (base, np.asarray(shifted(rng, (base[0], base[1], base[2]), 0.15), np.float32)),
        0.9,
    )
