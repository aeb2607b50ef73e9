"""Turned pictures, against SciPy's own interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from winspect.pictures.rotation import rotated


def smooth(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).random((height, width, 3))
    return (255 * scipy.ndimage.gaussian_filter(noise, (2, 2, 0))).astype(np.uint8)


@pytest.mark.parametrize("size_hw", [(40, 40), (30, 70), (70, 30)])
@pytest.mark.parametrize("degrees", [45, 90, 137, 315, 400])
def test_as_an_affine_map_with_mirrored_edges(size_hw, degrees):
    rgb = smooth(*size_hw)
    angle = np.deg2rad(degrees)
    # Where each pixel (row, column) of the turned picture comes from.
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(size_hw) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                rgb[..., channel].astype(float), matrix, centre - matrix @ centre, order=1, mode="mirror"
            )
            for channel in range(3)
        ],
        axis=-1,
    )
    found = np.asarray(rotated(Image.fromarray(rgb), degrees))
    assert found.shape == rgb.shape
    assert np.abs(found - expected).max() <= 1.5


def test_a_whole_turn_changes_nothing():
    picture = Image.fromarray(smooth(20, 30))
    assert rotated(picture, 0) is picture
    assert rotated(picture, -360) is picture


def test_a_tiny_picture_is_mirrored_again_and_again():
    picture = Image.fromarray(np.full((2, 90, 3), 7, np.uint8))
    assert np.asarray(rotated(picture, 90)).tolist() == np.asarray(picture).tolist()
