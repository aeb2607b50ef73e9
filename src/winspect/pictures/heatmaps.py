"""Heat maps over pictures, at the picture's own size, on one scale per run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from winspect.system.files import write_file

# Anchors of the heat colours from low to high (RGB): yellow, orange, red, dark magenta. The low end is transparent,
# so that what is normal stays visible as it is.
_ANCHORS = np.array([(255, 237, 111), (253, 174, 48), (240, 82, 30), (205, 12, 40), (150, 0, 80)], np.float32)
_STRONGEST_OPACITY = 0.72

ScoreRange = tuple[float, float]
"""The scores at which colour starts and is strongest."""

UNIT_RANGE: ScoreRange = (0.0, 1.0)
SMALLEST_SPAN = 0.15
"""A map is never stretched so far that less than this difference of scores covers all colours: a good part keeps
its faint map instead of having its noise painted red."""
HIGHEST_START = 0.5
"""Where colour starts at the latest on a scale of good samples alone."""

# Of a strip below which no text can be read; and how many pixels of the picture's width one of its height is worth.
_CAPTIONS = {"anomalous": (255, 150, 120), "review": (255, 214, 120)}  # colours of words, RGB
_LEAST_WIDTH, _STRIP_SHARE, _LEAST_STRIP = 120, 16, 14


def run_range(
    good_maxima: Sequence[float] | None, pixel_threshold: float | None = None, limits: ScoreRange = UNIT_RANGE
) -> ScoreRange | None:
    """The scale of all heat maps of a run.

    Colour starts where half of the good pictures reach somewhere, and the pixel threshold is half-way up or below: what
    is plainly coloured is more than good pictures show, in every picture of the run. Good samples that differ much
    reach high when each is scored with the few others; colour then starts at :data:`HIGHEST_START`, so that no map is
    blank.

    Args:
        good_maxima: the largest map values of good pictures: of a calibration, or of good samples each scored with the
            others; fewer than two say nothing.
        pixel_threshold: None for the largest of them.
        limits: the lowest and the highest value of a map. Where nothing is known, scores from 0 to 1 have their whole
            range; for others there is no scale of a run, and each map has its own (None, see :func:`heat_overlay`).

    >>> run_range([0.1, 0.2, 0.3], 0.45)
    (0.2, 0.7)
    >>> run_range([0.1, 0.2, 0.3])
    (0.2, 0.4)
    >>> run_range([0.7, 0.8, 0.9])
    (0.5, 1.0)
    >>> run_range(None)
    (0.0, 1.0)
    >>> run_range([20, 30, 40], limits=(0.0, 2.0))
    (30.0, 50.0)
    """
    is_unit = limits == UNIT_RANGE
    if good_maxima is None or len(good_maxima) < 2:
        if pixel_threshold is None:
            return UNIT_RANGE if is_unit else None
        good_maxima = [pixel_threshold]
    low = float(np.median(good_maxima))
    top = max(good_maxima) if pixel_threshold is None else pixel_threshold
    whole = 1.0 if is_unit else 2 * top
    if pixel_threshold is None and is_unit:
        low = min(low, HIGHEST_START)
    span = SMALLEST_SPAN * whole
    high = min(whole, max(low + span, 2 * top - low))
    return max(0.0, min(low, high - span)), round(high, 12)


def heat_range(anomaly_map: np.ndarray) -> ScoreRange:
    """The scores at which colour starts and is strongest: the map's median, and its maximum or more."""
    low, high = float(np.median(anomaly_map)), float(anomaly_map.max())
    return low, max(high, low + SMALLEST_SPAN * max(1.0, high))


def heat_overlay(picture_rgb: np.ndarray, anomaly_map: np.ndarray, score_range: ScoreRange | None = None) -> np.ndarray:
    """Paint a map over its picture.

    Args:
        picture_rgb: uint8 (height, width, 3).
        anomaly_map: float (height, width), more is more anomalous.
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
    colours, opacity = _steps()
    heat = np.clip((anomaly_map - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    painted = picture_rgb * (1 - opacity).astype(np.float32)[heat] + (colours * opacity).astype(np.float32)[heat]
    return (painted + 0.5).astype(np.uint8)


def _steps() -> tuple[np.ndarray, np.ndarray]:
    """Colour (256, 3) and opacity (256, 1) of each step of heat."""
    level = np.linspace(0, 1, 256, dtype=np.float32)
    position = level * (len(_ANCHORS) - 1)
    colours = np.stack([np.interp(position, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T], axis=1)
    return colours, _STRONGEST_OPACITY * np.minimum(1, 1.5 * level)[:, None]


def annotated_overlay(
    picture_rgb: np.ndarray,
    anomaly_map: np.ndarray,
    score_range: ScoreRange | None,
    *,
    score: float | None,
    verdict: str | None = None,
    boxes: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """A heat map with what was decided: boxes of defects; below, score, verdict and a bar of the colours.

    Args:
        picture_rgb, anomaly_map: as of :func:`heat_overlay`.
        score_range: of the run; None stretches the colours to this picture, with nothing else drawn.
        boxes: x0, y0, x1, y1 in pixels of the picture.

    Returns:
        uint8 (height, width, 3).
    """
    painted = heat_overlay(picture_rgb, anomaly_map, score_range)
    if score_range is None:
        return painted
    image = Image.fromarray(painted)
    draw = ImageDraw.Draw(image)
    line = max(1, round(image.width / 400))
    for x0, y0, x1, y1 in boxes or ():
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(0, 0, 0), width=line + 2)
        if min(x1 - x0, y1 - y0) > 4:
            draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=(255, 255, 255), width=line)
    if image.width >= _LEAST_WIDTH and image.height >= _LEAST_WIDTH // 2:
        _draw_strip(image, draw, score_range, score, verdict)
    return np.asarray(image)


def _draw_strip(
    image: Image.Image, draw: ImageDraw.ImageDraw, score_range: ScoreRange, score: float | None, verdict: str | None
) -> None:
    """Score and verdict, and the bar of colours with its ends, along the lower edge."""
    tall = max(_LEAST_STRIP, min(image.width, image.height) // _STRIP_SHARE)
    top, pad = image.height - tall, tall // 4
    draw.rectangle((0, top, image.width, image.height), fill=(24, 24, 24))
    font = ImageFont.load_default(size=round(tall * 0.7))
    middle = top + tall / 2
    caption = " ".join(filter(None, (None if score is None else f"{score:.3f}", verdict)))
    colour = _CAPTIONS.get(verdict or "", (235, 235, 235))
    draw.text((pad, middle), caption, fill=colour, font=font, anchor="lm")
    low, high = (f"{value:.2f}" for value in score_range)
    right = image.width - pad
    draw.text((right, middle), high, fill=(235, 235, 235), font=font, anchor="rm")
    right -= round(draw.textlength(high, font=font)) + pad
    left = right - image.width // 5
    if left - pad - draw.textlength(low, font=font) < 2 * pad + draw.textlength(caption, font=font):
        return  # a narrow picture has room for the score alone
    colours, opacity = _steps()
    steps = np.linspace(0, 255, right - left).astype(int)
    bar = 255 * (1 - opacity[steps]) + colours[steps] * opacity[steps]
    rows = np.repeat(bar[None].astype(np.uint8), tall - 2 * pad, axis=0)
    image.paste(Image.fromarray(rows), (left, top + pad))
    draw.text((left - pad, middle), low, fill=(235, 235, 235), font=font, anchor="rm")


def png_of(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 (height, width, 3), or grey (height, width)."""
    file = io.BytesIO()
    # Level 1 is several times faster than the default and some 10 % larger: encoding must not hold up the model.
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Write what :func:`png_of` makes, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_file(path, png_of(pixels))
