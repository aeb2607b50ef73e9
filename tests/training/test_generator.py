"""The generated training pictures: repeatable, twins that differ by the defect alone, honest masks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `training` lies beside the package, it is not installed
cv2 = pytest.importorskip("cv2")

from training import generator as gen  # noqa: E402
from training.generator import pair as pair_module  # noqa: E402
from training.generator.canvas import Canvas, View, box, disc  # noqa: E402
from training.generator.defects import MARKS  # noqa: E402
from training.generator.faults import EDITS, draw_edit  # noqa: E402
from training.generator.noise import hsv, rng_of  # noqa: E402
from training.generator.registry import REGISTRY  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def pairs() -> dict[str, gen.Pair]:
    return {name: gen.make_pair(name, 7, references=1) for name in gen.FAMILIES}


def test_split_is_a_partition() -> None:
    assert len(gen.FAMILIES) >= 40
    assert 8 <= len(gen.HELDOUT) <= 12
    assert set(gen.TRAIN).isdisjoint(gen.HELDOUT)
    assert set(gen.TRAIN) | set(gen.HELDOUT) == set(gen.FAMILIES)
    assert len(set(gen.FAMILIES)) == len(gen.FAMILIES)
    kinds = {REGISTRY[name].is_object for name in gen.HELDOUT}
    assert kinds == {True, False}


def test_every_defect_named_exists() -> None:
    named = {d for f in REGISTRY.values() for d in f.defects}
    assert named <= set(MARKS) | set(EDITS)
    assert set(MARKS) | set(EDITS) == named, "a defect that no family uses"


def test_every_family_gives_a_well_formed_pair(pairs: dict[str, gen.Pair]) -> None:
    for name, pair in pairs.items():
        for picture in (pair.clean_rgb, pair.defect_rgb, pair.reference_rgb[0]):
            assert picture.shape == (240, 240, 3) and picture.dtype == np.uint8, name
            assert picture.std() > 0.5, name
        assert pair.reference_rgb.shape == (1, 240, 240, 3), name
        assert pair.mask.shape == (240, 240) and pair.mask.dtype == np.bool_, name
        assert pair.mask_fraction == pytest.approx(pair.mask.mean()), name
        assert 0 < pair.mask_fraction <= 1, name
        assert pair.family == name and pair.noun and pair.defects, name
        assert set(pair.defects) <= set(REGISTRY[name].defects), name


def test_twins_differ_inside_the_mask_and_only_there(pairs: dict[str, gen.Pair]) -> None:
    kernel = np.ones((25, 25), np.uint8)  # the lens, and JPEG blocks of 16 pixels
    for name, pair in pairs.items():
        difference = np.abs(pair.clean_rgb.astype(int) - pair.defect_rgb).max(2)
        near = cv2.dilate(pair.mask.astype(np.uint8), kernel).astype(bool)
        assert cv2.blur(difference.astype(np.float32), (3, 3))[pair.mask].max() > 4, name
        outside = difference[~near]
        assert outside.sum() < 0.1 * difference.sum(), name
        if outside.size:
            assert np.quantile(outside, 0.999) <= 12, name  # compression ripples, the foot of a soft stain


def test_uncompressed_twins_are_equal_far_from_the_mask() -> None:
    found = 0
    for seed in range(40):
        if gen.make_product("washer", seed).sensor.jpeg:
            continue
        pair = gen.make_pair("washer", seed, references=0)
        near = cv2.dilate(pair.mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        assert np.abs(pair.clean_rgb.astype(int) - pair.defect_rgb)[~near].max(initial=0) <= 12
        found += 1
        if found == 4:
            return
    pytest.fail("no product line without compression among 40 seeds")


@pytest.mark.parametrize("family", ["woven_fabric", "chip", "poly_cell_emission"])
def test_same_seed_same_bytes(family: str) -> None:
    first, second, other = (gen.make_pair(family, seed) for seed in (3, 3, 4))
    for name in ("clean_rgb", "defect_rgb", "mask", "reference_rgb"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.defects == second.defects
    assert not np.array_equal(first.clean_rgb, other.clean_rgb)


def test_references_show_other_items_of_the_same_line() -> None:
    pair = gen.make_pair("keypad", 2, references=3)
    assert pair.reference_rgb.shape[0] == 3
    pictures = [pair.clean_rgb, *pair.reference_rgb]
    for i, a in enumerate(pictures):
        assert not any(np.array_equal(a, b) for b in pictures[i + 1 :])
    assert gen.make_pair("keypad", 2, references=0).reference_rgb.shape == (0, 240, 240, 3)


def test_a_line_shows_different_items_of_the_product_of_a_pair() -> None:
    line = pair_module.make_line("hex_nut", 7, good=3, defective=2)
    pair = gen.make_pair("hex_nut", 7, references=2)
    assert len({picture.tobytes() for picture in [*line.good_rgb, *line.defective_rgb]}) == 5
    np.testing.assert_array_equal(line.good_rgb[0], pair.clean_rgb)
    np.testing.assert_array_equal(line.good_rgb[1:], pair.reference_rgb)
    assert line.masks.shape == (2, 240, 240) and line.masks.any(axis=(1, 2)).all()
    again = pair_module.make_line("hex_nut", 7, good=3, defective=2)
    np.testing.assert_array_equal(line.defective_rgb, again.defective_rgb)


def test_unknown_family_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        gen.make_pair("unobtainium", 0)


def test_an_invisible_defect_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every defect made a no-op, there is nothing to show: an error, not an empty mask."""
    for name in MARKS:
        monkeypatch.setitem(pair_module.MARKS, name, lambda canvas, rng: None)
    with pytest.raises(RuntimeError, match="no visible defect on 'wood'"):
        gen.make_pair("wood", 0)


def test_the_mask_needs_a_visible_difference() -> None:
    sensor = gen.make_product("wood", 0).sensor
    clean = np.full((240, 240, 3), 100, np.float32)
    faint, clear = clean.copy(), clean.copy()
    faint[50:60, 50:60] += 2
    clear[50:60, 50:60] += 60
    assert pair_module.visible_mask(clean, faint, sensor, True) is None
    mask = pair_module.visible_mask(clean, clear, sensor, False)
    assert mask is not None and mask[52:58, 52:58].all() and not mask[:45].any() and mask.sum() < 16 * 16


def test_view_and_shapes_by_hand() -> None:
    view = View(0)
    assert view.px == pytest.approx(2 / 240)
    assert view.cover(disc(view.u, view.v, 0.5)).sum() == pytest.approx(np.pi * 60**2, rel=0.003)
    assert view.cover(box(view.u, view.v, 0.5, 0.25)).sum() == pytest.approx(120 * 60, rel=0.02)
    turned = View(0, angle=np.pi / 2, zoom=2.0)
    assert turned.cover(box(turned.u, turned.v, 0.25, 0.125)).sum() == pytest.approx(120 * 60, rel=0.02)
    assert hsv(0.0, 1.0, 1.0) == pytest.approx((1.0, 0.0, 0.0))
    assert hsv(1 / 3, 1.0, 0.5) == pytest.approx((0.0, 0.5, 0.0))


def test_edits_change_one_part() -> None:
    places = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.5, 0.0)]
    counts = {"missing_part": 2, "extra_part": 4}
    for name in EDITS:
        parts = View(0, edit=draw_edit(name, rng_of(name))).parts(places)
        assert len(parts) == counts.get(name, 3), name


def test_paint_covers_by_its_coverage() -> None:
    canvas = Canvas.empty()
    half = np.full((240, 240), 0.5, np.float32)
    canvas.paint(half, (1.0, 0.5, 0.0), 4.0)
    assert canvas.colour[0, 0] == pytest.approx([0.5, 0.25, 0.0])
    assert canvas.height[0, 0] == pytest.approx(2.0)
    assert canvas.alpha[0, 0] == pytest.approx(0.5)


def test_sheet_is_written(tmp_path: Path) -> None:
    from training.generator.__main__ import main

    out = tmp_path / "sheet.png"
    main(["--sheet", str(out), "--families", "wood", "chip", "--seeds", "1"])
    assert cv2.imread(str(out)).shape == (258, 1920, 3)
    with pytest.raises(SystemExit):
        main(["--sheet", str(out), "--families", "unobtainium"])
