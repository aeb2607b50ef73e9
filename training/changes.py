"""Changes of a whole picture: what a lamp, a lens or another batch of material does, and no mask can show."""

from __future__ import annotations

import cv2
import numpy as np

_WHITE = 255


def change_whole(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A good picture, uint8 (height, width, 3), after one of six changes of all of it, drawn at random.

    Brighter or darker by 12 to 30 %; another gamma; out of focus by 1.2 to 3 pixels; more or less contrast; warmer or
    colder; seen from nearer.
    """
    pixels, sign = rgb.astype(np.float32), float(random.choice([-1, 1]))
    mean = pixels.mean(axis=(0, 1))
    match random.integers(6):
        case 0:
            changed = pixels * (1 + sign * random.uniform(0.12, 0.3))
        case 1:
            changed = _WHITE * (pixels / _WHITE) ** np.exp(sign * random.uniform(0.2, 0.5))
        case 2:
            changed = cv2.GaussianBlur(pixels, (0, 0), random.uniform(1.2, 3))
        case 3:
            changed = mean + (pixels - mean) * (1 + sign * random.uniform(0.15, 0.35))
        case 4:
            changed = pixels * (1 + sign * np.array([0.12, 0.0, -0.12]))
        case _:
            changed = _nearer(pixels, random.uniform(0.75, 0.88))
    return np.clip(np.rint(changed), 0, _WHITE).astype(np.uint8)


def _nearer(pixels: np.ndarray, share: float) -> np.ndarray:
    """The middle of a picture, ``share`` of its sides, at its size."""
    height, width = pixels.shape[:2]
    top, left = (round(side * (1 - share) / 2) for side in (height, width))
    inner = pixels[top : height - top, left : width - left]
    return cv2.resize(inner, (width, height), interpolation=cv2.INTER_CUBIC)
