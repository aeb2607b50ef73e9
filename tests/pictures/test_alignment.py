"""Alignment: pictures that were moved are registered to where the reference lies, and maps come back."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.alignment import IDENTITY, Aligned, Alignment
from winspect.pictures.inside import TileInside
from winspect.pictures.roi import Area, Roi
from winspect.pictures.tiles import Cut, Preprocess, prepare

pytest.importorskip("cv2")
SIZE = (160, 120)


def scene(seed: int = 0) -> np.ndarray:
    """A part of some rectangles that looks like no turned or shifted one of itself: uint8 (120, 160, 3)."""
    random = np.random.default_rng(seed)
    rgb = np.full((120, 160, 3), 60, np.uint8)
    for _ in range(14):
        x, y, width, height = random.integers(25, 120), random.integers(20, 85), *random.integers(6, 22, 2)
        rgb[y : y + height, x : x + width] = random.integers(0, 256, 3)
    noise = np.random.default_rng(seed + 1).normal(0, 2, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def moving(turn: float, shift=(0.0, 0.0), scale: float = 1.0) -> np.ndarray:
    """The matrix (2, 3) of a turn in degrees about the centre, and a shift: from a picture to the moved one."""
    angle, centre = np.radians(turn), np.array(SIZE) / 2
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([rotation, centre + shift - rotation @ centre])


def moved(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture moved by a matrix, by Pillow; what is not known is grey."""
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2].ravel().tolist()
    image = Image.fromarray(rgb).transform(
        SIZE, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC, fillcolor=(60,) * 3
    )
    return np.asarray(image)


def corners(matrix) -> np.ndarray:
    points = np.array([(x, y, 1) for x in (0, SIZE[0]) for y in (0, SIZE[1])])
    return points @ np.asarray(matrix).T


@pytest.mark.parametrize("number", range(10))
def test_shifted_to_a_fifth_and_turned_to_thirty_degrees(number):
    random = np.random.default_rng(number)
    matrix = moving(random.uniform(-30, 30), random.uniform(-0.2, 0.2, 2) * SIZE)
    alignment = Alignment("euclidean").to(Image.fromarray(scene()))
    _, there, aligned = alignment.align("x", Image.fromarray(moved(scene(), matrix)))
    assert aligned.aligned and aligned.quality > 0.8
    assert np.abs(corners(aligned.matrix) - corners(matrix)).max() < 1.0
    assert there is not None and 0.4 < there.mean() < 1


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [
        ("translation", moving(0, (13, -9))),
        ("affine", np.array([[1.03, 0.05, 4.0], [-0.04, 0.97, 6.0]])),
    ],
)
def test_other_kinds(kind, matrix):
    alignment = Alignment(kind).to(Image.fromarray(scene()))
    _, _, aligned = alignment.align("x", Image.fromarray(moved(scene(), matrix)))
    assert np.abs(corners(aligned.matrix) - corners(matrix)).max() < 1.0


def test_the_aligned_picture_is_the_reference_where_it_is_there():
    alignment = Alignment("euclidean").to(Image.fromarray(scene()))
    seen, there, _ = alignment.align("x", Image.fromarray(moved(scene(), moving(20, (15, 8)))))
    difference = np.abs(np.asarray(seen).astype(float) - scene()).mean(axis=2)
    assert difference[there].mean() < 5


def test_the_reference_itself_is_not_moved():
    reference = Image.fromarray(scene())
    seen, there, aligned = Alignment("affine").to(reference).align("x", reference)
    assert seen is reference and there is None and aligned.matrix == IDENTITY


@pytest.mark.parametrize("seed", range(5))
def test_another_part_noise_or_nothing_is_not_aligned(seed):
    reference = Image.fromarray(scene())
    alignment = Alignment("euclidean").to(reference)
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    for other in (scene(seed + 10), noise, np.full_like(noise, 128)):
        seen, there, aligned = alignment.align("x", (image := Image.fromarray(other)))
        assert not aligned.aligned and seen is image and there is None and aligned.matrix == IDENTITY


def test_good_samples_raise_the_bound():
    alignment = Alignment().after([Aligned(0.9, True), Aligned(0.95, True)])
    assert alignment.bound == pytest.approx(0.765)
    assert Alignment(min_quality=0.6).after([Aligned(0.9, True)]).bound == 0.6
    assert Alignment().after([Aligned(0.1, True)]).bound == 0.3
    assert Alignment().after([]).bound == 0.5


def test_maps_come_back_worked_by_hand():
    """A shift to the right by two: what the reference shows at x lies at x + 2."""
    aligned = Aligned(1.0, True, ((1.0, 0.0, 2.0), (0.0, 1.0, 0.0)))
    values = np.arange(6, dtype=np.float32)[None].repeat(2, axis=0)
    assert aligned.back(values, outside=-1)[0].tolist() == [-1, -1, 0, 1, 2, 3]
    assert aligned.back(values > 2, outside=0)[0].tolist() == [False] * 5 + [True]
    half = aligned.scaled(0.5, 0.5)
    assert half.matrix == ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))


def test_documents_give_the_same_back():
    for alignment in (
        Alignment("affine", 0.6),
        Alignment("affine").to(Image.fromarray(scene())).after([Aligned(0.9, True)]),
    ):
        assert Alignment.read(json.loads(json.dumps(alignment.document()))) == alignment


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "homography"}, "kind: got 'homography', need one of translation, euclidean, affine"),
        ({"min_quality": 2}, "min_quality: got 2, need a number from 0 to 1"),
        ({"quality": 0.5}, "got the unknown key 'quality'"),
        ("euclidean", "got 'euclidean', need a table"),
        ({"target": "??", "size": [1, 2]}, "target: damaged"),
        ({"target": "aGk="}, "target: damaged"),
    ],
)
def test_what_is_wrong_is_refused_by_name(document, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Alignment.read(document)


def test_a_picture_of_another_size_or_no_reference_is_refused():
    alignment = Alignment().to(Image.fromarray(scene()))
    with pytest.raises(PictureError, match="it has 160x119 pixels, the reference that it is aligned to 160x120"):
        alignment.align("x", Image.fromarray(scene()[:-1]))
    with pytest.raises(SettingsError, match="show some"):
        Alignment().align("x", Image.fromarray(scene()))


def test_patches_that_the_picture_does_not_show_are_outside():
    alignment = Alignment().to(Image.fromarray(scene()))
    item = prepare(moved(scene(), moving(0, (40, 0))), Preprocess(160), Cut(alignment=alignment))
    (inside,) = item.inside
    assert item.alignment.aligned
    assert inside.on((12, 16)).all(axis=0).tolist() == [True] * 12 + [False] * 4, "what lies right of it is not shown"


def test_too_little_of_the_region_of_interest_is_not_aligned():
    alignment = Alignment().to(Image.fromarray(scene()))
    roi = Roi(SIZE, (Area(((120, 0), (160, 0), (160, 120), (120, 120))),))
    item = prepare(moved(scene(), moving(0, (32, 0))), Preprocess(160), Cut(roi=roi, alignment=alignment))
    assert not item.alignment.aligned and item.alignment.matrix == IDENTITY


def test_gaps_that_leave_no_patch_leave_those_that_show_something():
    pixels, gaps = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    pixels[:, 2:4], gaps[:, :3] = True, True
    assert TileInside(pixels, gaps).on((2, 2)).tolist() == [[True, False]] * 2
