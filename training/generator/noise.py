"""Random fields and colours on the picture grid, 240 x 240 pixels: the raw material of every generated surface."""

from __future__ import annotations

import os
import zlib

import cv2
import numpy as np

SIZE = int(os.environ.get("WINSPECT_GENERATOR_SIDE", "240"))
"""Side of every picture in pixels: the model's, unless ``training.lines`` started this process for larger ones."""
Field = np.ndarray  # float32, (240, 240) unless said otherwise; cv2's stubs know no finer type
Rng = np.random.Generator
Colour = tuple[float, float, float]


def rng_of(*key: int | str) -> Rng:
    """A generator that depends on nothing but ``key``."""
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else int(k) & 0xFFFFFFFF for k in key]
    return np.random.Generator(np.random.SFC64(words))


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def white(rng: Rng) -> Field:
    """Independent normal noise, (240, 240), mean 0, deviation 1."""
    return rng.standard_normal((SIZE, SIZE), dtype=np.float32)


_BANK = rng_of("bank").standard_normal((512, 512), dtype=np.float32)


def lattice(rng: Rng, x: Field, y: Field, octaves: int = 3, gain: float = 0.5) -> Field:
    """Value noise at the points (x, y), one lattice cell a unit, of about unit deviation.

    Stretched coordinates give streaks, so this one function makes clouds, grain and brushing.
    """
    total = np.zeros(x.shape, np.float32)
    starts = rng.uniform(0, 512, (octaves, 2)).astype(np.float32)
    for octave, (start_x, start_y) in enumerate(starts):
        scale = np.float32(2.0**octave)
        kind = cv2.INTER_CUBIC if octave == 0 else cv2.INTER_LINEAR
        noise = cv2.remap(_BANK, scale * x + start_x, scale * y + start_y, kind, borderMode=cv2.BORDER_WRAP)
        total += np.float32(gain**octave) * noise
    return total * np.float32(1.45 / np.sqrt(sum(gain ** (2 * o) for o in range(octaves))))


_AXIS = np.arange(SIZE, dtype=np.float32)
PIXEL_X, PIXEL_Y = (np.ascontiguousarray(a) for a in np.meshgrid(_AXIS, _AXIS))
FRAME_X, FRAME_Y = (2 * PIXEL_X + 1) / SIZE - 1, (2 * PIXEL_Y + 1) / SIZE - 1


def clouds(rng: Rng, cell: float, octaves: int = 3, gain: float = 0.5) -> Field:
    """Isotropic cloudy noise of about unit deviation, lattice cells of ``cell`` pixels."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        side = max(1.0, cell / 2**octave)
        count = int(SIZE / side) + 4
        grid = rng.standard_normal((count, count), dtype=np.float32)
        full = max(SIZE, round(count * side))
        shift = int(rng.integers(0, min(full - SIZE, side) + 1))
        noise = cv2.resize(grid, (full, full), interpolation=cv2.INTER_CUBIC if octave == 0 else cv2.INTER_LINEAR)
        total += np.float32(gain**octave) * noise[shift : shift + SIZE, shift : shift + SIZE]
    return total * np.float32(1.4 / np.sqrt(sum(gain ** (2 * o) for o in range(octaves))))


def voronoi(rng: Rng, count: int, wobble: float = 0.0) -> tuple[np.ndarray, Field]:
    """Random cells: label of each pixel (0 ... count) and the distance to its seed, in pixels."""
    seeds = np.full((SIZE, SIZE), 255, np.uint8)
    spots = rng.integers(0, SIZE, (count, 2))
    seeds[spots[:, 0], spots[:, 1]] = 0
    dist, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    if wobble > 0:
        fx = PIXEL_X + np.float32(wobble) * clouds(rng, max(4.0, wobble * 3), 2)
        fy = PIXEL_Y + np.float32(wobble) * clouds(rng, max(4.0, wobble * 3), 2)
        labels = cv2.remap(labels.astype(np.float32), fx, fy, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        dist = cv2.remap(dist, fx, fy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return labels.astype(np.int32), dist


def borders(labels: np.ndarray, width: int = 1) -> Field:
    """Soft lines, 0 to 1, along the borders between labels."""
    edge: Field = np.zeros((SIZE, SIZE), np.uint8)
    edge[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).astype(np.uint8)
    edge[1:] |= (labels[1:] != labels[:-1]).astype(np.uint8)
    if width > 1:
        edge = cv2.dilate(edge, np.ones((width, width), np.uint8))
    return soften(edge.astype(np.float32), 0.6)


def soften(field: Field, sigma: float) -> Field:
    if sigma <= 0:
        return field
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def ramp(field: Field, low: float, high: float) -> Field:
    """Smooth step from 0 at ``low`` to 1 at ``high`` (or down, when low > high)."""
    t = np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """HSV in 0 ... 1 to RGB in 0 ... 1."""
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    red, green, blue = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return float(red), float(green), float(blue)


def rgb(colour: Colour | np.ndarray) -> np.ndarray:
    """A colour as a float32 array (3,)."""
    return np.asarray(colour, np.float32)


def any_colour(
    rng: Rng, saturation: tuple[float, float] = (0.1, 0.9), value: tuple[float, float] = (0.25, 0.95)
) -> Colour:
    return hsv(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def earth(rng: Rng, value: tuple[float, float] = (0.25, 0.85)) -> Colour:
    """Browns, tans and ochres."""
    return hsv(rng.uniform(0.02, 0.13), rng.uniform(0.2, 0.7), rng.uniform(*value))


def greyish(rng: Rng, value: tuple[float, float] = (0.2, 0.9)) -> Colour:
    return hsv(rng.random(), rng.uniform(0, 0.12), rng.uniform(*value))


def shifted(rng: Rng, colour: Colour, amount: float) -> Colour:
    """A neighbour of ``colour``: brightness and each channel moved a little."""
    step = rng.normal(0, amount) + rng.normal(0, amount * 0.4, 3)
    red, green, blue = np.clip(np.array(colour) * (1 + step), 0.02, 1)
    return float(red), float(green), float(blue)
