"""Statistics of a picture, against a slow twin on every pixel and a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from winspect.pictures.statistics import STATISTICS, picture_statistics


def picture(height: int = 96, width: int = 120, seed: int = 3) -> np.ndarray:
    """Smooth noise with all levels, uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def slow_twin(rgb: np.ndarray) -> dict[str, float]:
    """The same by loops over all pixels."""
    height, width = rgb.shape[:2]
    luma = np.asarray(Image.fromarray(rgb).convert("L")).astype(float)
    across, down = np.zeros(width - 1), np.zeros(height - 1)
    for y in range(height):
        for x in range(width - 1):
            across[x] += (luma[y, x + 1] - luma[y, x]) ** 2
    for y in range(height - 1):
        for x in range(width):
            down[y] += (luma[y + 1, x] - luma[y, x]) ** 2
    means = [float(rgb[..., channel].mean()) for channel in range(3)]
    return {
        "brightness": luma.mean(),
        "sharpness": (across.sum() + down.sum()) / (height * width) / luma.var(),
        "red": means[0] / sum(means),
        "blue": means[2] / sum(means),
        # the middle of two neighbours: between pixel centres x + 0.5 and x + 1.5
        "centre_x": sum(weight * (x + 1) / width for x, weight in enumerate(across)) / across.sum(),
        "centre_y": sum(weight * (y + 1) / height for y, weight in enumerate(down)) / down.sum(),
    }


def test_a_small_picture_is_measured_on_all_its_pixels():
    rgb = picture(64, 60)
    found = picture_statistics(Image.fromarray(rgb))
    assert tuple(found) == STATISTICS
    assert found == pytest.approx(slow_twin(rgb), rel=1e-9)


def test_worked_by_hand():
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[:, 8:, 0] = 255  # a red stripe at the right: luma 76 in a fifth of the picture
    found = picture_statistics(Image.fromarray(rgb))
    assert found["brightness"] == pytest.approx(76 / 5)
    assert (found["red"], found["blue"]) == (1.0, 0.0)
    assert found["centre_x"] == pytest.approx(0.8) and found["centre_y"] == 0.5
    assert found["sharpness"] == pytest.approx(76**2 / 10 / (76**2 * 0.2 * 0.8))


def test_a_large_picture_is_sampled_close_to_all_of_it():
    rgb = picture(1000, 1400)
    found, every = picture_statistics(Image.fromarray(rgb)), slow_twin_of_large(rgb)
    assert found["brightness"] == pytest.approx(every["brightness"], rel=0.02)
    assert found["sharpness"] == pytest.approx(every["sharpness"], rel=0.05)
    assert found["centre_x"] == pytest.approx(every["centre_x"], abs=0.02)


def slow_twin_of_large(rgb: np.ndarray) -> dict[str, float]:
    """What the large picture's test compares, on all pixels."""
    luma = np.asarray(Image.fromarray(rgb).convert("L")).astype(float)
    across, down = np.diff(luma, axis=1) ** 2, np.diff(luma, axis=0) ** 2
    places = (np.arange(across.shape[1]) + 1) / rgb.shape[1]
    return {
        "brightness": luma.mean(),
        "sharpness": (across.mean() + down.mean()) / luma.var(),
        "centre_x": float((across * places).sum() / across.sum()),
    }


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_picture_has_numbers(level):
    found = picture_statistics(Image.new("RGB", (300, 9), (level,) * 3))
    assert found["brightness"] == level and found["sharpness"] == 0.0
    assert found["red"] == found["blue"] == pytest.approx(1 / 3)
    assert (found["centre_x"], found["centre_y"]) == (0.5, 0.5)


def test_each_fault_of_the_camera_moves_its_statistic_alone():
    image = Image.fromarray((picture() * 0.7).astype(np.uint8))
    before = picture_statistics(image)
    darker = picture_statistics(image.point(lambda level: level * 0.8))
    assert darker["brightness"] == pytest.approx(0.8 * before["brightness"], rel=0.01)
    assert darker["sharpness"] == pytest.approx(before["sharpness"], rel=0.02)
    blurred = picture_statistics(image.filter(ImageFilter.GaussianBlur(1.5)))
    assert blurred["sharpness"] < 0.8 * before["sharpness"]
    assert blurred["brightness"] == pytest.approx(before["brightness"], rel=0.01)


def test_a_shift_moves_the_centre():
    rgb = np.full((80, 100, 3), 40, np.uint8)
    rgb[20:50, 30:60] = 200
    moved = np.roll(rgb, (8, 10), axis=(0, 1))
    before, after = (picture_statistics(Image.fromarray(each)) for each in (rgb, moved))
    assert after["centre_x"] - before["centre_x"] == pytest.approx(0.1)
    assert after["centre_y"] - before["centre_y"] == pytest.approx(0.1)
