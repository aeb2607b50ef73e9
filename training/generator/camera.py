"""Light on the layers, then lens, sensor and file compression."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas
from .noise import FRAME_X, FRAME_Y, SIZE, Field, Rng, chance, clouds, greyish, rng_of, soften


@dataclass(frozen=True)
class Light:
    angle: float
    elevation: float
    ambient: float
    slope: float  # brightness change from the middle to the border, along `angle`
    vignette: float
    spot: float
    spot_at: tuple[float, float]
    spot_width: float
    blotches: float
    tint: tuple[float, float, float]
    exposure: float
    relief: float  # how strongly height shows


@dataclass(frozen=True)
class Sensor:
    grey: bool
    contrast: float
    black: float
    gamma: float
    blur: float
    sharpen: float
    detail: int  # resampled through this size, 240 for none
    gauss: float  # read noise, grey levels
    shot: float  # photon noise at full scale, grey levels
    grain: float  # blur of the noise, pixels
    jpeg: int  # quality, 0 for none


def draw_light(rng: Rng, emission: bool = False) -> Light:
    """A line's lamp; ``emission``: the item shines by itself, so no relief and little fall-off."""
    strong = 0.3 if emission else 1.0
    red, green, blue = greyish(rng, (0.95, 1.0)) if chance(rng, 0.5) else (1.0, 1.0, 1.0)
    return Light(
        angle=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(0.5, 1.3),
        ambient=rng.uniform(0.25, 0.75),
        slope=strong * abs(rng.normal(0, 0.13)),
        vignette=strong * abs(rng.normal(0, 0.15)),
        spot=strong * (rng.uniform(0.05, 0.4) if chance(rng, 0.35) else 0.0),
        spot_at=(rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)),
        spot_width=rng.uniform(0.3, 1.2),
        blotches=rng.uniform(0.04, 0.12) if chance(rng, 0.25) else rng.uniform(0.0, 0.04),
        tint=(red, green, blue),
        exposure=rng.uniform(0.8, 1.3),
        relief=0.0 if emission else rng.uniform(0.5, 1.2),
    )


def draw_sensor(rng: Rng, grey_share: float = 0.35) -> Sensor:
    low = chance(rng, 0.2)
    return Sensor(
        grey=chance(rng, grey_share),
        contrast=rng.uniform(0.3, 0.65) if chance(rng, 0.2) else rng.uniform(0.75, 1.15),
        black=rng.uniform(-0.03, 0.08),
        gamma=rng.uniform(0.8, 1.25),
        blur=abs(rng.normal(0, 0.6)),
        sharpen=rng.uniform(0.2, 0.9) if chance(rng, 0.3) else 0.0,
        detail=int(rng.integers(110, 220)) if low else SIZE,
        gauss=abs(rng.normal(0, 2.5)),
        shot=abs(rng.normal(0, 3.0)),
        grain=rng.uniform(0.4, 1.0) if chance(rng, 0.4) else 0.0,
        jpeg=int(rng.integers(55, 97)) if chance(rng, 0.6) else 0,
    )


def jitter(light: Light, rng: Rng, amount: float = 1.0) -> Light:
    """The same lamp on another day."""
    return replace(
        light,
        angle=light.angle + rng.normal(0, 0.05) * amount,
        exposure=light.exposure * float(np.exp(rng.normal(0, 0.035) * amount)),
        slope=light.slope + rng.normal(0, 0.02) * amount,
        vignette=light.vignette + rng.normal(0, 0.02) * amount,
        spot_at=(light.spot_at[0] + rng.normal(0, 0.06) * amount, light.spot_at[1] + rng.normal(0, 0.06) * amount),
    )


def merge(item: Canvas, ground: Canvas, shadow: tuple[float, float, float]) -> Canvas:
    """Put the item on its background, with a soft shadow of (dx, dy) pixels and a strength."""
    dx, dy, strength = shadow
    alpha = item.alpha
    if strength > 0 and alpha.min() < 1:
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        cast = soften(
            cv2.warpAffine(alpha, move, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE),
            2 + 0.4 * abs(dx) + 0.4 * abs(dy),
        )
        ground = Canvas(
            ground.colour * (1 - np.float32(strength) * cast)[..., None], ground.height, ground.alpha, ground.gloss
        )
    a3 = alpha[..., None]
    return Canvas(
        ground.colour + (item.colour - ground.colour) * a3,
        ground.height + (item.height - ground.height) * alpha,
        np.ones_like(alpha),
        ground.gloss + (item.gloss - ground.gloss) * alpha,
        item.angle,
    )


def shade(canvas: Canvas, light: Light, seed: int) -> Field:
    """Lambert light with a Phong highlight on the relief, then the lamp's own unevenness; (S, S, 3), about 0 ... 1."""
    field = 1 + np.float32(light.slope) * (
        np.float32(np.cos(light.angle)) * FRAME_X + np.float32(np.sin(light.angle)) * FRAME_Y
    )
    field -= np.float32(light.vignette) * (FRAME_X**2 + FRAME_Y**2)
    if light.spot > 0:
        far = (FRAME_X - np.float32(light.spot_at[0])) ** 2 + (FRAME_Y - np.float32(light.spot_at[1])) ** 2
        field += np.float32(light.spot) * np.exp(-far / np.float32(light.spot_width**2))
    if light.blotches > 0:
        field += np.float32(light.blotches) * clouds(rng_of(seed, "blotches"), 70, 2)
    picture = canvas.colour * (field * np.float32(light.exposure))[..., None]
    if light.relief > 0:
        slope_x = cv2.Sobel(canvas.height, cv2.CV_32F, 1, 0, ksize=3, scale=light.relief / 8)
        slope_y = cv2.Sobel(canvas.height, cv2.CV_32F, 0, 1, ksize=3, scale=light.relief / 8)
        size = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
        lx, ly, lz = (np.float32(t) for t in _towards(light))
        facing = np.maximum((lz - lx * slope_x - ly * slope_y) * size, 0)
        picture *= (np.float32(light.ambient) + np.float32(1 - light.ambient) * np.minimum(facing / lz, 1.9))[..., None]
        if canvas.gloss.max() > 0:
            norm = np.float32(np.sqrt(lx**2 + ly**2 + (lz + 1) ** 2))
            half = np.maximum((lz + 1 - lx * slope_x - ly * slope_y) * size / norm, 0)
            picture += (canvas.gloss * field * half**24)[..., None]
    return picture * np.asarray(light.tint, np.float32)


def _towards(light: Light) -> tuple[float, float, float]:
    flat = np.cos(light.elevation)
    return flat * np.cos(light.angle), flat * np.sin(light.angle), np.sin(light.elevation)


def develop(picture: Field, sensor: Sensor) -> Field:
    """Tone and lens, before noise: float32 (S, S, 3), grey levels 0 ... 255."""
    if sensor.grey:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        picture = cv2.merge([grey, grey, grey])
    picture = np.clip(picture, 0, 1.3)
    if abs(sensor.gamma - 1) > 0.05:
        picture = cv2.pow(picture, sensor.gamma)
    picture = np.float32(0.5) + (picture - np.float32(0.5)) * np.float32(sensor.contrast) + np.float32(sensor.black)
    if sensor.detail < SIZE:
        small = cv2.resize(picture, (sensor.detail, sensor.detail), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    if sensor.blur > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sensor.blur)
    if sensor.sharpen > 0:
        picture = picture + np.float32(sensor.sharpen) * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
    return np.clip(picture, 0, 1) * np.float32(255)


def expose(levels: Field, sensor: Sensor, seed: int) -> NDArray[np.uint8]:
    """Sensor noise and compression; the same seed gives the same noise, so twins differ in the defect alone."""
    rng = rng_of(seed, "sensor")
    shape = (SIZE, SIZE) if sensor.grey else (SIZE, SIZE, 3)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sensor.grain > 0:
        noise = cv2.GaussianBlur(noise, (0, 0), sensor.grain) * np.float32(1 + sensor.grain)
    signal = levels[..., 0] if sensor.grey else levels
    signal = signal + noise * np.sqrt(np.float32(sensor.gauss**2) + np.float32(sensor.shot**2 / 255) * signal)
    out = np.clip(signal + np.float32(0.5), 0, 255).astype(np.uint8)
    if sensor.jpeg:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg])
        out = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return cv2.merge([out, out, out]) if sensor.grey else out
