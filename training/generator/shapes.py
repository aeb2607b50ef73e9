"""Random outlines, strokes and moves: where a defect is, before what it does to the surface."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .noise import PIXEL_X, PIXEL_Y, SIZE, Field, Rng, chance, clouds, ramp

Points = NDArray[np.float64]


def blob(rng: Rng, centre: tuple[float, float], radius: float, rough: float = 0.25, aspect: float = 1.0) -> Field:
    """Coverage of an irregular closed outline of about this radius, in pixels."""
    theta = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = np.arange(1, 7)
    size = rng.normal(0, rough, 6) / waves**0.7
    radii = radius * np.clip(1 + size @ np.cos(np.outer(waves, theta) + rng.uniform(0, 6.3, (6, 1))), 0.25, 2.2)
    x, y, turn = radii * np.cos(theta) * np.sqrt(aspect), radii * np.sin(theta) / np.sqrt(aspect), rng.uniform(0, np.pi)
    return outline(
        np.stack([centre[0] + np.cos(turn) * x - np.sin(turn) * y, centre[1] + np.sin(turn) * x + np.cos(turn) * y], 1)
    )


def outline(points: Points) -> Field:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(1 / 255)


def patch(rng: Rng, centre: tuple[float, float], half: tuple[float, float], angle: float) -> Field:
    """Coverage of a rectangle with the given half sides."""
    a, b = half
    corners = np.array([[-a, -b], [a, -b], [a, b], [-a, b]]) * (1 + rng.uniform(-0.06, 0.06, (4, 2)))
    cos, sin = np.cos(angle), np.sin(angle)
    return outline(np.asarray(centre) + corners @ np.array([[cos, sin], [-sin, cos]]))


def path(
    rng: Rng,
    start: tuple[float, float],
    length: float,
    bend: float = 0.05,
    jag: float = 0.0,
    angle: float | None = None,
) -> Points:
    """A curve through ``start`` at its middle: (n, 2) points; ``bend`` curvature, ``jag`` zigzag in pixels."""
    steps = int(max(4, length / 3))
    turn = np.cumsum(np.cumsum(rng.normal(0, bend, steps)) * 0.25 + rng.normal(0, bend, steps))
    heading = (rng.uniform(0, 2 * np.pi) if angle is None else angle) + turn - turn[steps // 2]
    walk = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * (length / steps), 0)
    return np.asarray(start) + walk - walk[steps // 2] + rng.normal(0, 1, (steps, 2)) * jag


def stroke(points: Points, width: float, taper: bool = False) -> Field:
    """Coverage of a pen line ``width`` pixels wide (also below one); ``taper``: thinner at the ends."""
    canvas = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    pen = max(1, round(2 * width))
    fine = np.round((2 * points + 0.5) * 16).astype(np.int32)
    if taper and pen > 1:
        for i in range(len(points) - 1):
            wide = max(1, round(pen * np.sin(np.pi * (i + 0.7) / len(points)) ** 0.5))
            cv2.line(canvas, fine[i], fine[i + 1], 255, wide, cv2.LINE_AA, 4)
    else:
        cv2.polylines(canvas, [fine], False, 255, pen, cv2.LINE_AA, 4)
    cover = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cover.astype(np.float32) * np.float32(min(1.0, max(0.35, width * 1.1)) / 255)


def crack_lines(rng: Rng, start: tuple[float, float], length: float) -> list[Points]:
    """A jagged trunk with a few branches."""
    jag = rng.uniform(0.6, 1.8)
    trunk = path(rng, start, length, 0.15, jag)
    lines = [trunk]
    for _ in range(rng.integers(0, 4)):
        at = trunk[rng.integers(0, len(trunk))]
        branch = path(rng, (0.0, 0.0), length * rng.uniform(0.15, 0.5), 0.2, jag)
        lines.append(branch - branch[0] + at)
    return lines


def specks(rng: Rng, centre: tuple[float, float], spread: float, count: int, radius: tuple[float, float]) -> Field:
    """Coverage of scattered small dots."""
    canvas = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    for _ in range(count):
        at = np.asarray(centre) + rng.normal(0, spread, 2)
        axes = rng.uniform(*radius) * np.array([1, rng.uniform(0.5, 1.0)])
        box = (tuple(2 * at), tuple(4 * axes), rng.uniform(0, 180))
        cv2.ellipse(canvas, box, 255, -1, cv2.LINE_AA)
    return cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) * np.float32(1 / 255)


def cloudy(rng: Rng, area: Field, cell: float, share: float) -> Field:
    """``area`` broken up by noise: about ``share`` of it is left, in patches of ``cell`` pixels."""
    noise = clouds(rng, cell, 3, 0.6)
    level = float(np.quantile(noise[::5, ::5], 1 - share))
    return area * ramp(noise, level - 0.15, level + 0.15)


def local_warp(rng: Rng, centre: tuple[float, float], radius: float, strength: float) -> tuple[Field, Field]:
    """A push, pinch, bulge or swirl around a point: where each pixel is taken from, in pixels."""
    dx, dy = PIXEL_X - np.float32(centre[0]), PIXEL_Y - np.float32(centre[1])
    fall = np.exp(-(dx * dx + dy * dy) / np.float32(2 * (radius / 2) ** 2))
    kind = rng.integers(0, 3)
    if kind == 0:
        theta = rng.uniform(0, 2 * np.pi)
        move = np.float32(strength * radius)
        return PIXEL_X + move * np.float32(np.cos(theta)) * fall, PIXEL_Y + move * np.float32(np.sin(theta)) * fall
    amount = np.float32(strength * (1 if chance(rng, 0.5) else -1)) * fall
    if kind == 1:
        return PIXEL_X + dx * amount, PIXEL_Y + dy * amount
    cos, sin = np.cos(3 * amount), np.sin(3 * amount)
    return PIXEL_X + dx * (cos - 1) - dy * sin, PIXEL_Y + dy * (cos - 1) + dx * sin


def turn_and_scale(
    centre: tuple[float, float], angle: float, scale: tuple[float, float], along: float
) -> tuple[Field, Field]:
    """Source pixels of a rotation by ``angle`` and stretch by ``scale`` in axes at ``along``."""
    rot = np.array([[np.cos(along), np.sin(along)], [-np.sin(along), np.cos(along)]])
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    m = (rot.T @ np.diag(1 / np.asarray(scale)) @ rot @ spin).astype(np.float32)
    dx, dy = PIXEL_X - np.float32(centre[0]), PIXEL_Y - np.float32(centre[1])
    return centre[0] + m[0, 0] * dx + m[0, 1] * dy, centre[1] + m[1, 0] * dx + m[1, 1] * dy
