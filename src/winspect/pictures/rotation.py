"""A picture turned about its centre."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def rotated(picture: Image.Image, degrees: float) -> Image.Image:
    """The picture turned counter-clockwise, at its own size.

    Linear interpolation; what lies outside is mirrored at the edge, without the edge pixel itself (OpenCV's
    ``BORDER_REFLECT_101``).

    Args:
        picture: RGB.
        degrees: any angle.
    """
    if degrees % 360 == 0:
        return picture
    width, height = picture.size
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    # How far the turned corners reach beyond each edge, and one pixel to interpolate with.
    beside = max(0, math.ceil((width * cosine + height * sine - width) / 2)) + 1
    above = max(0, math.ceil((width * sine + height * cosine - height) / 2)) + 1
    wide = np.pad(np.asarray(picture), ((above, above), (beside, beside), (0, 0)), mode="reflect")
    turned = Image.fromarray(wide).rotate(degrees, Image.Resampling.BILINEAR)
    return turned.crop((beside, above, beside + width, above + height))
