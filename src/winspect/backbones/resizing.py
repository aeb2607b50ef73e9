"""Resizing by two fixed matrices: the same in every engine. No torch."""

from __future__ import annotations

import numpy as np


def bicubic_weights(length: int, count: int) -> np.ndarray:
    """How much each of ``length`` pixels gives to each of ``count`` new ones, bicubic (a = -0.5) and antialiased.

    What Pillow's ``BICUBIC`` computes along one axis before it rounds (R. Keys, 1981, the kernel widened by the factor
    that a picture shrinks by); rows sum to 1.

    Returns:
        float64 (count, length).
    """
    step = length / count
    centres = (np.arange(count)[:, None] + 0.5) * step
    apart = np.abs(np.arange(length) + 0.5 - centres) / max(step, 1.0)
    near = (1.5 * apart - 2.5) * apart**2 + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    weights = np.where(apart < 1, near, np.where(apart < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
