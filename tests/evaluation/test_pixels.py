"""Masks at the size of pixel figures: no region is lost, and masks that say nothing or too much are named."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from miniature import make_mvtec, save
from PIL import Image
from scipy import ndimage

from winspect.datasets import open_dataset
from winspect.errors import SettingsError
from winspect.evaluation.pixels import reduce_mask
from winspect.evaluation.report import read_parts, write_evaluation_report
from winspect.evaluation.results import IMAGE_METRICS, PIXEL_METRICS
from winspect.evaluation.run import evaluate


def many_small_defects(count=40, side=10, size_wh=(4000, 3000)):
    """Squares that do not touch, anywhere in a large picture."""
    random = np.random.default_rng(0)
    cells = random.permutation(60 * 80)[:count]
    mask = np.zeros(size_wh[::-1], bool)
    for cell in cells:
        row, column = cell // 80 * 50 + random.integers(0, 40), cell % 80 * 50 + random.integers(0, 40)
        mask[row : row + side, column : column + side] = True
    return mask


def test_no_region_is_lost():
    mask = many_small_defects()
    assert ndimage.label(mask)[1] == 40
    plain, lost = reduce_mask(mask, 240, keep_regions=False)
    assert lost > 10 and ndimage.label(plain)[1] == 40 - lost
    cells, missed = reduce_mask(mask, 240)
    assert missed == lost
    for row, column in zip(*np.nonzero(plain), strict=True):
        assert cells[row, column]
    # Each region has a cell, and each cell holds a part of a region.
    for rows, columns in ndimage.find_objects(ndimage.label(mask)[0]):
        first, last = rows.start * 240 // 3000, (rows.stop - 1) * 240 // 3000
        left, right = columns.start * 240 // 4000, (columns.stop - 1) * 240 // 4000
        assert cells[first : last + 1, left : right + 1].any()
    touched = np.zeros((240, 240), bool)
    y, x = np.nonzero(mask)
    touched[y * 240 // 3000, x * 240 // 4000] = True
    assert not (cells & ~touched).any()


@pytest.mark.parametrize("size_hw", [(70, 90), (50, 900), (64, 64), (30, 40), (700, 64)])
def test_where_nothing_is_lost_masks_are_as_published(size_hw):
    """The nearest pixel, as before: figures of masks with larger regions do not change."""
    mask = np.zeros(size_hw, bool)
    mask[size_hw[0] // 4 : size_hw[0] // 4 + 20, size_hw[1] // 5 : size_hw[1] // 5 + 25] = True
    nearest = np.asarray(Image.fromarray(mask).resize((64, 64), Image.Resampling.NEAREST))
    for keep in (True, False):
        cells, lost = reduce_mask(mask, 64, keep_regions=keep)
        assert (cells.tolist(), lost) == (nearest.tolist(), 0)


def test_one_pixel_in_each_corner_stays():
    mask = np.zeros((701, 903), bool)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    assert np.argwhere(reduce_mask(mask, 64)[0]).tolist() == [[0, 0], [0, 63], [63, 0], [63, 63]]


def with_mask(root, change):
    """A data set of two categories, with the masks of the first changed."""
    make_mvtec(root)
    for number, path in enumerate(sorted((root / "bolt/ground_truth/scratch").iterdir())):
        change(number, path)
    return open_dataset("mvtec", root)


FAULTS = {
    "empty": (np.zeros_like, "the mask is empty, its picture labelled defective"),
    "inverted": (lambda mask: 255 - mask, "of its picture: mend it if it is inverted"),
    "lossy": (None, "a lossy WebP as mask"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_masks_are_counted_and_named_and_their_figures_null(kind, tmp_path, small_model, caplog):
    change, said = FAULTS[kind]

    def spoil(number, path):
        if number == 0:
            return
        mask = Image.open(path).copy()
        if change is None:
            mask.convert("RGB").save(path, format="WebP", quality=50)
        else:
            save(path, change(np.asarray(mask)))

    data = with_mask(tmp_path / "parts", spoil)
    with caplog.at_level(logging.INFO):
        results = evaluate(small_model, data, tmp_path / "out")
    bolt, nut = (results["categories"][name] for name in ("bolt", "metal_nut"))
    assert all(bolt[metric] is None for metric in PIXEL_METRICS)
    assert all(type(bolt[metric]) is float for metric in IMAGE_METRICS)
    reason = bolt["reasons"]["pixel_aupro"]
    assert reason.startswith("3 of 4 masks cannot be used: bolt/ground_truth/scratch/001_mask.png: ") and said in reason
    assert [fault["path"] for fault in bolt["mask_faults"]] == [
        f"bolt/ground_truth/scratch/{number:03d}_mask.png" for number in (1, 2, 3)
    ]
    assert "bolt: 3 masks with a fault: bolt/ground_truth/scratch/001_mask.png" in caplog.text
    assert nut["mask_faults"] == [] and type(nut["pixel_aupro"]) is float
    assert json.loads((tmp_path / "out/results.json").read_text()) == results
    page = write_evaluation_report(tmp_path / "out", results, read_parts(tmp_path / "out", results), data, small_model)
    text = page.read_text()
    assert "3 masks with a fault" in text and "bolt/ground_truth/scratch/003_mask.png: " in text
    assert "64x64, grid regions" in text


def test_the_published_grid_takes_masks_as_they_are_and_says_what_it_loses(tmp_path, small_model):
    def shrink(number, path):
        mask = np.zeros((70, 90), np.uint8)
        mask[20:40, 30:50] = 255
        if number == 0:
            mask[5, 4] = 255  # between the nearest pixels of a grid of 64
        if number == 1:
            mask[:] = 0
            mask[5, 4] = 255
        save(path, mask)

    data = with_mask(tmp_path / "parts", shrink)
    regions = evaluate(small_model, data, tmp_path / "regions")["categories"]["bolt"]
    published = evaluate(small_model, data, tmp_path / "published", pixel_grid="published")
    bolt = published["categories"]["bolt"]
    assert published["pixel_grid"] == "published"
    assert regions["mask_faults"] == []
    assert [fault["fault"] for fault in bolt["mask_faults"]] == [
        "1 of its regions are lost at 64x64",
        "the mask is empty at 64x64",
    ]
    assert all(type(figures[metric]) is float for figures in (regions, bolt) for metric in PIXEL_METRICS)
    assert regions["pixel_aupro"] != bolt["pixel_aupro"]
    assert all(regions[metric] == bolt[metric] for metric in IMAGE_METRICS)
    with pytest.raises(SettingsError, match="got the pixel grid 'fine', need one of regions, published"):
        evaluate(small_model, data, tmp_path / "fine", pixel_grid="fine")


def test_no_masks_says_what_was_looked_for_and_what_lies_there(tmp_path, small_model):
    root = make_mvtec(tmp_path / "parts", categories=("bolt",))
    for path in sorted((root / "bolt/ground_truth/scratch").iterdir()):
        path.rename(path.with_name(f"defect-{path.name}"))
    results = evaluate(small_model, open_dataset("mvtec", root), tmp_path / "out")
    reason = results["categories"]["bolt"]["reasons"]["pixel_auroc"]
    assert reason.startswith("the data set has no masks for this category; looked for the picture's name, alone or")
    assert "in ground_truth/, gt/, mask(s)/ or label(s)/" in reason
    assert reason.endswith("ground_truth/ in bolt (4 pictures, as ground_truth/scratch/defect-000_mask.png)")
