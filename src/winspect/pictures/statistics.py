"""Statistics of a picture as the camera gave it: what changes when a lamp fades, a lens loosens or a bracket shifts."""

from __future__ import annotations

import numpy as np
from PIL import Image

STATISTICS = ("brightness", "sharpness", "red", "blue", "centre_x", "centre_y")
"""Names of what :func:`picture_statistics` measures."""
_LINES = 64
"""Rows, and columns, of the picture that are looked at: evenly spaced, each at full resolution."""


def picture_statistics(image: Image.Image) -> dict[str, float]:
    """Measure a picture, on 64 rows and 64 columns of it at most.

    Returns:
        ``brightness``: mean of Pillow's luma, 0 to 255.
        ``sharpness``: mean squared difference of neighbouring pixels, along rows and along columns, over the variance
        of the luma: a brighter lamp does not change it. 0 for a picture of a constant luma.
        ``red``, ``blue``: share of the channel in the sum of all three, 0 to 1.
        ``centre_x``, ``centre_y``: where the squared differences lie in the mean, 0 (left, top) to 1.

    Args:
        image: RGB, upright.
    """
    width, height = image.size
    rows = image.resize((width, min(height, _LINES)), Image.Resampling.NEAREST)
    columns = image.resize((min(width, _LINES), height), Image.Resampling.NEAREST)
    luma_rows, luma_columns = rows.convert("L"), columns.convert("L")
    along_x = _squared_differences(np.asarray(luma_rows))
    along_y = _squared_differences(np.asarray(luma_columns.transpose(Image.Transpose.TRANSPOSE)))
    edges = along_x.sum() / (rows.width * rows.height) + along_y.sum() / (columns.width * columns.height)
    counts = np.array(luma_rows.histogram(), np.float64)
    brightness = counts @ _LEVELS / counts.sum()
    variance = counts @ (_LEVELS - brightness) ** 2 / counts.sum()
    red, green, blue = np.array(rows.histogram(), np.float64).reshape(3, -1) @ _LEVELS
    total = red + green + blue
    return {
        "brightness": float(brightness),
        "sharpness": float(edges / variance) if variance else 0.0,
        "red": float(red / total) if total else 1 / 3,
        "blue": float(blue / total) if total else 1 / 3,
        "centre_x": _centre(along_x),
        "centre_y": _centre(along_y),
    }


_LEVELS = np.arange(256.0)


def _squared_differences(luma: np.ndarray) -> np.ndarray:
    """Sums over all lines of the squared differences between neighbours in a line: uint8 (lines, n) -> (n - 1,)."""
    levels = luma.astype(np.float32)
    steps = levels[:, 1:] - levels[:, :-1]
    return np.einsum("ij,ij->j", steps, steps).astype(np.float64)  # whole numbers below 2**24: exact


def _centre(weights: np.ndarray) -> float:
    total = weights.sum()
    places = (np.arange(len(weights)) + 1.0) / (len(weights) + 1)
    return float(weights @ places / total) if total else 0.5
