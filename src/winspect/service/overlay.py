"""Results as of a smaller picture: maps and overlays of a size that is worth sending."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from winspect.heatmaps import heat_overlay
from winspect.results import Result


def smaller_size(size_wh: tuple[int, int], longest: float) -> tuple[int, int]:
    """The size of a picture whose longer side is at most ``longest`` pixels; no side below 1.

    >>> smaller_size((4000, 2000), 1000), smaller_size((40, 20), 1000)
    ((1000, 500), (40, 20))
    """
    scale = min(1.0, longest / max(size_wh))
    width, height = (max(1, round(side * scale)) for side in size_wh)
    return width, height


def shrunk(result: Result, size_wh: tuple[int, int]) -> Result:
    """The same judgement as of the picture scaled to another size, so that its ``anomaly_map`` is made at that size.

    It has no picture. A result with an error, or without maps, is given back as it is.
    """
    if result.size_wh is None or result.tile_maps is None:
        return result
    scales = [new / old for new, old in zip(size_wh, result.size_wh, strict=True)]
    boxes = tuple(_scaled(box, (*scales, *scales)) for box in result.tile_boxes)
    return replace(result, size_wh=size_wh, tile_boxes=boxes, picture_rgb=None)


def _scaled(box: tuple[int, int, int, int], scales: tuple[float, ...]) -> tuple[int, int, int, int]:
    # Edges are rounded the same way in every tile: none comes to lie beside its neighbour's.
    x0, y0, x1, y1 = (round(edge * scale) for edge, scale in zip(box, scales, strict=True))
    return min(x0, x1 - 1), min(y0, y1 - 1), x1, y1


def shrink_picture(picture_rgb: np.ndarray, longest: float) -> np.ndarray:
    """A picture uint8 (height, width, 3) whose longer side is at most ``longest`` pixels."""
    size = smaller_size((picture_rgb.shape[1], picture_rgb.shape[0]), longest)
    if size == (picture_rgb.shape[1], picture_rgb.shape[0]):
        return picture_rgb
    image = Image.fromarray(picture_rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


def overlay_png(result: Result, picture_rgb: np.ndarray) -> bytes:
    """The heat map over the picture, at the size of ``picture_rgb``, as PNG."""
    anomaly_map = shrunk(result, (picture_rgb.shape[1], picture_rgb.shape[0])).anomaly_map
    if anomaly_map is None:
        raise ValueError(f"{result.path}: a result without maps has no overlay")
    png = io.BytesIO()
    Image.fromarray(heat_overlay(picture_rgb, anomaly_map)).save(png, format="PNG", compress_level=1)
    return png.getvalue()
