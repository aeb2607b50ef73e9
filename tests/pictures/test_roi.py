"""Regions of interest: which pixels lie inside, their files, and what is refused."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from winspect.errors import PictureError, SettingsError
from winspect.pictures.inside import any_of_cells
from winspect.pictures.polygons import inside
from winspect.pictures.roi import Area, Roi
from winspect.pictures.tiles import WHOLE, Cut, Preprocess, prepare

SIZE = (40, 30)
SQUARE = ((4, 4), (20, 4), (20, 20), (4, 20))
HOLE = ((8, 8), (12, 8), (12, 12), (8, 12))


def centre_is_inside(polygon, column: int, row: int) -> bool:
    """Oracle: crossings of a ray from the pixel's centre to the left, edge by edge."""
    x, y, count = column + 0.5, row + 0.5, 0
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            count += 1
    return count % 2 == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 9)), min_size=3, max_size=7))
def test_inside_is_where_a_ray_crosses_the_edges_an_odd_number_of_times(polygon):
    expected = [[centre_is_inside(polygon, column, row) for column in range(12)] for row in range(9)]
    assert np.array_equal(inside(tuple(polygon), (12, 9)), expected)


def test_a_square_worked_by_hand():
    mask = inside(((1, 1), (3, 1), (3, 4), (1, 4)), (5, 5))
    assert mask.dtype == bool and mask.sum() == 6 and mask[1:4, 1:3].all()


def test_areas_that_share_an_edge_share_no_pixel_and_leave_none_out():
    left, right = (
        inside(((0, 0), (3.5, 0), (3.5, 5), (0, 5)), (7, 5)),
        inside(((3.5, 0), (7, 0), (7, 5), (3.5, 5)), (7, 5)),
    )
    assert (left ^ right).all()


def test_included_less_excluded():
    both = Roi(SIZE, (Area(SQUARE), Area(HOLE, exclude=True)))
    assert both.inside.sum() == 16 * 16 - 4 * 4
    assert Roi(SIZE, (Area(HOLE, exclude=True),)).inside.sum() == 40 * 30 - 16, "everything else is inside"
    assert Roi(SIZE, (Area(HOLE), Area(SQUARE))).inside.sum() == 16 * 16


def test_documents_and_pickles_give_the_same_back():
    areas = Roi(SIZE, (Area(SQUARE, name="face", threshold=0.4), Area(HOLE, exclude=True)))
    masked = Roi(SIZE, mask=np.packbits(areas.inside).tobytes())
    for roi in (areas, masked):
        assert Roi.read(json.loads(json.dumps(roi.document()))) == roi
        assert pickle.loads(pickle.dumps(roi)) == roi
    assert masked.words == areas.words, "the same pixels give the same scores"
    assert Roi(SIZE, (Area(SQUARE),)).words != areas.words


def labelme(*shapes):
    return {"version": "5.4", "imageWidth": 40, "imageHeight": 30, "shapes": list(shapes)}


def shape(label, points=SQUARE, **more):
    return {"label": label, "points": [list(point) for point in points], "shape_type": "polygon", "flags": {}, **more}


def coco(*annotations, images=1, categories=("include", "exclude")):
    return {
        "images": [{"id": number, "width": 40, "height": 30} for number in range(images)],
        "annotations": [{"image_id": 0, **entry} for entry in annotations],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories)],
    }


def test_labelme(tmp_path):
    document = labelme(
        shape("face", description="threshold=0.4"),
        shape("exclude: screw", HOLE),
        shape("ignore", ((0, 0), (2, 2)), shape_type="rectangle"),
    )
    file = tmp_path / "roi.json"
    file.write_text(json.dumps(document))
    roi = Roi.load(file)
    assert [(area.name, area.exclude, area.threshold) for area in roi.areas] == [
        ("face", False, 0.4),
        ("screw", True, None),
        (None, True, None),
    ]
    assert roi.inside.sum() == 16 * 16 - 16 and not roi.inside[:2, :2].any()
    assert Roi.read({"file": str(file)}) == roi


def test_coco(tmp_path):
    flat = [value for point in SQUARE for value in point]
    hole = [value for point in HOLE for value in point]
    document = coco(
        {"category_id": 0, "segmentation": [flat], "attributes": {"threshold": 0.5}},
        {"category_id": 1, "segmentation": [hole]},
    )
    file = tmp_path / "roi.json"
    file.write_text(json.dumps(document))
    roi = Roi.load(file)
    assert roi.inside.sum() == 16 * 16 - 16 and roi.areas[0].threshold == 0.5


def test_mask(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    assert np.array_equal(Roi.load(tmp_path / "roi.png").inside, mask > 0)


SIZED = {"size": list(SIZE)}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**SIZED, "areas": [{"polygon": [[0, 0], [50, 0], [0, 20]]}]}, "area 1: its point (50, 0) lies outside"),
        ({**SIZED, "areas": [{"polygon": [[0, 0], [9, 9], [9, 0], [0, 9]]}]}, "from point 1 and point 3 cross"),
        ({**SIZED, "areas": [{"polygon": []}]}, "area 1: it has 0 different points"),
        ({**SIZED, "areas": [{"polygon": [[1, 1], [5, 5], [5, 5]]}]}, "area 1: it has 2 different points"),
        (
            {**SIZED, "areas": [{"polygon": [[1, 1], [5, 1], [9, 1]], "name": "rim"}]},
            "area 1 (rim): it covers no pixel",
        ),
        ({**SIZED, "areas": [{"polygon": SQUARE}, {"polygon": SQUARE, "exclude": True}]}, "nothing lies inside"),
        ({**SIZED, "areas": []}, "neither areas nor a mask"),
        ({**SIZED, "areas": [{"polygon": [[0, float("nan")], [1, 1], [2, 2]]}]}, "need a list of points"),
        ({**SIZED, "areas": [{"polygon": SQUARE, "exclude": True, "threshold": 1}]}, "what is excluded is never"),
        ({**SIZED, "areas": [{"polygon": SQUARE, "treshold": 1}]}, "area 1: got the unknown key 'treshold'"),
        ({**SIZED, "aeras": []}, "got the unknown key 'aeras'"),
        ({"areas": [{"polygon": SQUARE}]}, "size: got None"),
        ({"size": [0, 30], "areas": [{"polygon": SQUARE}]}, "size: got [0, 30]"),
        ({"mask": "no picture"}, "need the base64 of a PNG"),
        ({"file": "roi.png", **SIZED}, "need the name of a file alone"),
        ({"file": "not there.png"}, "not there.png: cannot be read (No such file"),
        ("roi.png", "got 'roi.png', need a table"),
    ],
)
def test_what_is_wrong_is_refused_by_name(document, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Roi.read(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a PNG nor JSON"),
        (b"[1]", "neither of LabelMe (shapes) nor of COCO"),
        (json.dumps(labelme()).encode(), "it has no shapes"),
        (json.dumps({"shapes": []}).encode(), "no entry 'imageWidth'"),
        (json.dumps(labelme(shape("a", shape_type="circle"))).encode(), "shape 1 is a circle"),
        (json.dumps(labelme(shape(5))).encode(), "damaged"),
        (json.dumps(coco()).encode(), "it has no annotations"),
        (json.dumps(coco({"segmentation": [[1, 2, 3]]})).encode(), "damaged"),
        (json.dumps(coco({"segmentation": {"counts": [1, 2]}})).encode(), "has no polygons"),
        (json.dumps(coco({"segmentation": []}, images=2)).encode(), "got 2 images, need one"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, message):
    file = tmp_path / "roi.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(message)) as error:
        Roi.load(file)
    assert str(file) in str(error.value)


def test_masks_that_are_none(tmp_path):
    Image.new("L", SIZE).save(tmp_path / "black.png")
    with pytest.raises(SettingsError, match="nothing lies inside"):
        Roi.load(tmp_path / "black.png")
    Image.new("L", SIZE, 255).save(tmp_path / "white.jpg")
    with pytest.raises(SettingsError, match="a mask has to be a PNG, got JPEG"):
        Roi.load(tmp_path / "white.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "black.png").read_bytes()[:45])
    with pytest.raises(SettingsError, match="the mask cannot be used"):
        Roi.load(tmp_path / "cut.png")


def test_a_picture_of_another_size_is_refused():
    cut = Cut(roi=Roi(SIZE, (Area(SQUARE),)))
    with pytest.raises(PictureError, match="it has 40x31 pixels, the region of interest was drawn on 40x30"):
        prepare(np.zeros((31, 40, 3), np.uint8), Preprocess(32), cut)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_cells_with_any_pixel(height, width, rows, columns, seed):
    """Oracle: every pixel and every cell, by their edges."""
    pixels = np.random.default_rng(seed).random((height, width)) < 0.2
    expected = np.zeros((rows, columns), bool)
    for y, x in np.argwhere(pixels):
        for row in range(rows):
            for column in range(columns):
                beside = row * height < (y + 1) * rows and y * rows < (row + 1) * height
                expected[row, column] |= (
                    beside and column * width < (x + 1) * columns and x * columns < (column + 1) * width
                )
    assert np.array_equal(any_of_cells(pixels, (rows, columns)), expected)


@pytest.mark.parametrize("preprocess", [Preprocess(32), Preprocess(32, aspect=True, patch=8)], ids=["square", "aspect"])
@pytest.mark.parametrize("tiling", [False, True])
@pytest.mark.parametrize("angles", [(), (30.0, 200.0)])
def test_nothing_outside_reaches_a_tile(preprocess, tiling, angles):
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (30, 90, 3), np.uint8)
    roi = Roi((90, 30), (Area(((4, 4), (33, 4), (18, 25))), Area(((10, 8), (20, 8), (20, 12), (10, 12)), exclude=True)))
    other = picture.copy()
    other[~roi.inside] = random.integers(0, 256, (int((~roi.inside).sum()), 3))
    cut = Cut(tiling=tiling, roi=roi)
    first, second = (prepare(each, preprocess, cut, angles=angles) for each in (picture, other))
    assert np.array_equal(first.tiles, second.tiles)
    assert not np.array_equal(
        first.tiles, prepare(picture, preprocess, Cut(tiling=tiling), angles=angles).tiles[: len(first.tiles)]
    )
    assert len(first.inside) == len(first.tiles)
    if tiling:
        assert len(set(first.boxes)) < len(prepare(picture, preprocess, Cut(tiling=True)).boxes), (
            "tiles outside are left out"
        )


def test_patches_outside_hold_the_constant_colour_alone():
    picture = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    preprocess = Preprocess(64, interpolation="bilinear")
    item = prepare(picture, preprocess, Cut(roi=Roi((64, 64), (Area(((0, 0), (20, 0), (20, 64), (0, 64))),))))
    (inside,) = item.inside
    assert inside.on((4, 4)).tolist() == [[True, True, False, False]] * 4
    colour = preprocess.normalise(np.full((64, 64, 3), preprocess.neutral_rgb, np.uint8))
    assert np.array_equal(item.tiles[0][:, :, 20:], colour[:, :, 20:])
    assert np.abs(colour).max() < 0.01, "nothing to the model"


def test_turned_views_turn_what_lies_inside():
    roi = Roi((32, 32), (Area(((0, 0), (32, 0), (32, 8), (0, 8))),))
    item = prepare(np.full((32, 32, 3), 90, np.uint8), Preprocess(32), Cut(roi=roi), angles=(90.0,))
    upright, turned = (tile.on((4, 4)) for tile in item.inside)
    assert upright[0].all() and upright.sum() == 4
    assert turned[:, 0].all() and turned.sum() == 4, "counter-clockwise: the upper edge is the left one"


def test_a_blank_part_is_warned_of_whatever_lies_outside():
    picture = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    roi = Roi((32, 32), (Area(((0, 0), (16, 0), (16, 32), (0, 32))),))
    picture[roi.inside] = 0
    assert "black picture" in prepare(picture, Preprocess(32), Cut(roi=roi)).warning
    assert prepare(picture, Preprocess(32), WHOLE).warning is None


def test_the_section_of_the_page_is_read():
    from site_pages import blocks

    from winspect.system.toml_texts import tomllib

    (block,) = [block for block in blocks("docs/line.md", "toml") if "[roi]" in block]
    roi = Roi.read(tomllib.loads(block)["roi"])
    assert roi.inside.sum() == 560 * 420 - 40 * 40
