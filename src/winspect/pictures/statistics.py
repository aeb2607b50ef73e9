"""Statistics of a picture as the camera gave it: what changes when a lamp fades, a lens loosens or a bracket shifts."""

from __future__ import annotations

import numpy as np
from PIL import Image

STATISTICS = ("brightness", "sharpness", "red", "blue", "centre_x", "centre_y")
"""Names of what :func:`picture_statistics` measures."""
_LINES = 128
"""Rows, and columns, of the picture that are looked at: evenly spaced, each at full resolution."""


def picture_statistics(image: Image.Image) -> dict[str, float]:
    """Measure a picture, on 128 rows and 128 columns of it at most.

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
    luma = np.asarray(rows.convert("L"))
    along_x = _squared_differences(luma)
    along_y = _squared_differences(np.asarray(columns.convert("L")).T)
    variance = float(luma.var())
    red, green, blue = np.asarray(rows).reshape(-1, 3).mean(axis=0).tolist()
    total = red + green + blue
    edges = along_x.sum() / luma.size + along_y.sum() / (columns.width * height)
    return {
        "brightness": float(luma.mean()),
        "sharpness": edges / variance if variance else 0.0,
        "red": red / total if total else 1 / 3,
        "blue": blue / total if total else 1 / 3,
        "centre_x": _centre(along_x),
        "centre_y": _centre(along_y),
    }


def _squared_differences(luma: np.ndarray) -> np.ndarray:
    """Sums over all lines of the squared differences between neighbours in a line: uint8 (lines, n) -> (n - 1,)."""
    levels = luma.astype(np.int32)
    steps = levels[:, 1:] - levels[:, :-1]
    return np.einsum("ij,ij->j", steps, steps).astype(np.float64)


def _centre(weights: np.ndarray) -> float:
    total = weights.sum()
    places = (np.arange(len(weights)) + 1.0) / (len(weights) + 1)
    return float(weights @ places / total) if total else 0.5
