"""Overlays of a size that is worth sending."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from winspect.calibration.judgement import Judgement
from winspect.outputs.maps import overlay_of
from winspect.pictures.heatmaps import ScoreRange


def shrink_picture(picture_rgb: np.ndarray, longest: float) -> np.ndarray:
    """A picture uint8 (height, width, 3) whose longer side is at most ``longest`` pixels; no side below 1."""
    height, width = picture_rgb.shape[:2]
    scale = longest / max(width, height)
    if scale >= 1.0:
        return picture_rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(picture_rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def overlay_png(judgement: Judgement, score_range: ScoreRange) -> bytes:
    """The heat map over the judgement's picture, annotated, at that picture's size, as PNG.

    Raises:
        ValueError: the result has no picture, or no maps.
    """
    png = io.BytesIO()
    Image.fromarray(overlay_of(judgement, score_range)).save(png, format="PNG", compress_level=1)
    return png.getvalue()
