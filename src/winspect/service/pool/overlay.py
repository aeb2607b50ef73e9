"""Results as of a smaller picture: maps and overlays of a size that is worth sending."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from winspect.calibration.judgement import verdict_of
from winspect.methods.result import Result, shrunk
from winspect.pictures.heatmaps import ScoreRange, annotated_overlay


def smaller_size(size_wh: tuple[int, int], longest: float) -> tuple[int, int]:
    """The size of a picture whose longer side is at most ``longest`` pixels; no side below 1.

    >>> smaller_size((4000, 2000), 1000), smaller_size((40, 20), 1000)
    ((1000, 500), (40, 20))
    """
    scale = min(1.0, longest / max(size_wh))
    width, height = (max(1, round(side * scale)) for side in size_wh)
    return width, height


def shrink_picture(picture_rgb: np.ndarray, longest: float) -> np.ndarray:
    """A picture uint8 (height, width, 3) whose longer side is at most ``longest`` pixels."""
    size = smaller_size((picture_rgb.shape[1], picture_rgb.shape[0]), longest)
    if size == (picture_rgb.shape[1], picture_rgb.shape[0]):
        return picture_rgb
    image = Image.fromarray(picture_rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


@dataclass(frozen=True)
class Look:
    """How an overlay is painted.

    Attributes:
        score_range: of its colours; None for the scale of the class' good samples.
        threshold: scores above it are anomalous; None for no verdict.
        anomalous_at: whether a score at the threshold is anomalous too.
    """

    score_range: ScoreRange | None = None
    threshold: float | None = None
    anomalous_at: bool = False


def overlay_png(result: Result, picture_rgb: np.ndarray, score_range: ScoreRange, look: Look) -> bytes:
    """The heat map over the picture with its score, at the size of ``picture_rgb``, as PNG."""
    anomaly_map = shrunk(result, (picture_rgb.shape[1], picture_rgb.shape[0])).anomaly_map
    if anomaly_map is None or result.anomaly_score is None:
        raise ValueError(f"{result.path}: a result without maps has no overlay")
    verdict = None
    if look.threshold is not None:
        verdict = verdict_of(result.anomaly_score, look.threshold, anomalous_at=look.anomalous_at)
    painted = annotated_overlay(picture_rgb, anomaly_map, score_range, score=result.anomaly_score, verdict=verdict)
    png = io.BytesIO()
    Image.fromarray(painted).save(png, format="PNG", compress_level=1)
    return png.getvalue()
