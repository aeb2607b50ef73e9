"""Heat maps over pictures, at the picture's own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from winspect.files import replacing

# Anchors of the heat colours from low to high (RGB): yellow, orange, red, dark magenta. The low end is transparent,
# so that what is normal stays visible as it is.
_ANCHORS = np.array([(255, 237, 111), (253, 174, 48), (240, 82, 30), (205, 12, 40), (150, 0, 80)], np.float32)
_STRONGEST_OPACITY = 0.72

SMALLEST_SPAN = 0.15
"""A map is never stretched so far that less than this difference of scores covers all colours: a good part keeps
its faint map instead of having its noise painted red."""


def heat_range(anomaly_map: np.ndarray) -> tuple[float, float]:
    """The scores at which colour starts and is strongest: the map's median, and its maximum or more."""
    low = float(np.median(anomaly_map))
    return low, max(float(anomaly_map.max()), low + SMALLEST_SPAN)


def heat_overlay(
    picture_rgb: np.ndarray, anomaly_map: np.ndarray, score_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Paint a map over its picture.

    Args:
        picture_rgb: uint8 (height, width, 3).
        anomaly_map: float (height, width), 1 is most anomalous.
        score_range: scores at which colour starts and is strongest; None for :func:`heat_range`. Give the same
            range to pictures that are to be compared.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: picture and map differ in size, or the range is empty.
    """
    if picture_rgb.shape[:2] != anomaly_map.shape:
        raise ValueError(f"got a picture of {picture_rgb.shape[:2]} and a map of {anomaly_map.shape}; need equal sizes")
    low, high = score_range or heat_range(anomaly_map)
    if not high > low:
        raise ValueError(f"got the score range {low} to {high}; need the second above the first")
    # 256 steps of heat: each has a colour times its opacity, and what is left of the picture.
    level = np.linspace(0, 1, 256, dtype=np.float32)
    position = level * (len(_ANCHORS) - 1)
    colours = np.stack([np.interp(position, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T], axis=1)
    opacity = _STRONGEST_OPACITY * np.minimum(1, 1.5 * level)[:, None]
    heat = np.clip((anomaly_map - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    painted = picture_rgb * (1 - opacity).astype(np.float32)[heat] + (colours * opacity).astype(np.float32)[heat]
    return (painted + 0.5).astype(np.uint8)


def save_png(picture_rgb: np.ndarray, path: Path) -> None:
    """Write uint8 (height, width, 3) as PNG: under a temporary name, then renamed."""
    with replacing(path) as temporary:
        # Level 1 is several times faster than the default and some 10 % larger: writing must not hold up judging.
        Image.fromarray(picture_rgb).save(temporary, format="PNG", compress_level=1)
