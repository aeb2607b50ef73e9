"""Metrics against scikit-learn, against slow plain twins, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from winspect import metrics
from winspect.errors import SettingsError
from winspect.metrics import (
    aupr,
    aupro,
    auroc,
    f1_max,
    image_metrics,
    pixel_aupr,
    pixel_auroc,
    pixel_f1_max,
    pixel_metrics,
    pixel_roc_curve,
    pro_curve,
    rank_pixels,
    roc_curve,
)

# ---- slow plain twins: every threshold, one at a time


def f1_max_twin(scores, labels):
    def f1(called):
        hits, false_alarms, missed = (called & labels).sum(), (called & ~labels).sum(), (~called & labels).sum()
        return 2 * hits / (2 * hits + false_alarms + missed)

    return max(f1(scores >= threshold) for threshold in np.unique(scores))


def regions_twin(mask):
    """Lists of the pixels of each 8-connected region, by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        region, front = [], [left.pop()]
        while front:
            y, x = front.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        regions.append(region)
    return regions


def pro_corners_twin(maps, masks):
    """False positive rate and mean overlap at every distinct score of any pixel, highest first."""
    regions = [
        np.array([heat[pixel] for pixel in region])
        for heat, mask in zip(maps, masks, strict=True)
        for region in regions_twin(mask)
    ]
    good = np.concatenate([heat[mask == 0] for heat, mask in zip(maps, masks, strict=True)])
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([heat.ravel() for heat in maps]))[::-1]:
        fpr.append(float((good >= threshold).mean()))
        overlap.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    return fpr, overlap


def aupro_twin(maps, masks, max_fpr):
    fpr, overlap = pro_corners_twin(maps, masks)
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], overlap, overlap[1:], strict=False):
        if x1 <= max_fpr:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < max_fpr:
            y_end = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            area += (max_fpr - x0) * (y0 + y_end) / 2
    return area / max_fpr


def made_up_maps(seed, levels, *, defects=0.25, dtype=np.float32):
    """Pictures of several sizes; scattered defects that score a little higher; few levels: many ties."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for size in [(9, 13), (16, 7), (12, 12), (5, 5)]:
        mask = (rng.random(size) < defects).astype(np.uint8) * rng.integers(1, 256, size, dtype=np.uint8)
        maps.append(((rng.integers(0, levels, size) + levels / 3 * (mask > 0)) / 7 - 5).astype(dtype))
        masks.append(mask)
    masks[-1][:] = 0  # one good picture
    return maps, masks


def flat(maps, masks):
    return np.concatenate([heat.ravel() for heat in maps]), np.concatenate([mask.ravel() > 0 for mask in masks])


# ---- image scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 3, 10_000])
def test_image_metrics_are_scikit_learns(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < 0.3
    scores = rng.integers(0, levels, 200) / 7 + labels * (levels > 1)  # few levels: many ties
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert aupr(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert f1_max(scores, labels) == pytest.approx(f1_max_twin(scores, labels), abs=1e-12)


def test_image_metrics_by_hand():
    assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert auroc([4, 3, 2, 1], [0, 0, 1, 1]) == 0
    assert auroc([5, 5, 5], [0, 1, 1]) == 0.5
    # Best first: defective, good, defective, good. Precision at the defective ones: 1 and 2/3.
    assert aupr([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    assert aupr([5, 5, 5, 5], [1, 0, 0, 0]) == 0.25
    # All called defective: precision 1/3, recall 1, F1 1/2; only the first two: 1/2, 1, 2/3.
    assert f1_max([3, 2, 1], [0, 1, 0]) == pytest.approx(2 / 3)
    assert image_metrics([4, 3, 2, 1], [1, 0, 1, 0]) == {
        "image_auroc": 0.75,
        "image_aupr": pytest.approx(5 / 6),
        "image_f1_max": 0.8,
    }


def test_scores_are_only_ranked():
    """Neither a sigmoid nor clipping: scores far outside 0 to 1, or a rounding apart, keep their order."""
    labels = [0, 1, 0, 1]
    for scores in [[-900.0, 700.0, 600.0, 800.0], [1.0, 1 + 6e-16, 1 + 4e-16, 1 + 9e-16]]:
        assert auroc(scores, labels) == aupr(scores, labels) == f1_max(scores, labels) == 1


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_image_metrics_of_one_class_are_undefined(labels):
    scores = [0.5] * len(labels)
    assert set(image_metrics(scores, labels).values()) == {None}
    assert roc_curve(scores, labels) is None
    assert [figure(scores, labels) for figure in (auroc, aupr, f1_max)] == [None] * 3


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [0], r"\(2,\) and labels of shape \(1,\)"),
        ([[0.1, 0.2]], [[0, 1]], r"scores of shape \(1, 2\)"),
        ([0.1, float("nan")], [0, 1], "not finite"),
        ([0.1, float("-inf")], [0, 1], "not finite"),
        ([0.1, 0.2], [0, 2], "neither 0"),
    ],
)
@pytest.mark.parametrize("figure", [auroc, aupr, f1_max, image_metrics, roc_curve])
def test_bad_scores_are_refused(figure, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        figure(scores, labels)


# ---- anomaly maps


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [1, 4, 100_000])
def test_pixel_metrics_are_scikit_learns(seed, levels):
    maps, masks = made_up_maps(seed, levels)
    scores, labels = flat(maps, masks)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert pixel_aupr(maps, masks) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert pixel_f1_max(maps, masks) == pytest.approx(f1_max_twin(scores, labels), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [1, 4, 30, 100_000])
@pytest.mark.parametrize("max_fpr", [0.003, 0.3, 1])
def test_aupro_is_its_slow_twin(seed, levels, max_fpr):
    maps, masks = made_up_maps(seed, levels, defects=0.1 + 0.15 * seed)
    assert aupro(maps, masks, max_fpr=max_fpr) == pytest.approx(aupro_twin(maps, masks, max_fpr), abs=1e-9)


# Region A is one pixel (0.8), region B two (0.6 and 0.2); four good pixels.
HAND_MASK = [[1, 0, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("heat", "max_fpr", "area"),
    [
        # A alone: overlap 1/2 from FPR 0 to 1/4; with half of B 3/4 from 1/4 to 3/4; with all 1 from 3/4 on.
        ([0.8, 0.7, 0.6, 0.2, 0.5, 0.3, 0.1], 1, 0.5 * 0.25 + 0.75 * 0.5 + 1 * 0.25),
        ([0.8, 0.7, 0.6, 0.2, 0.5, 0.3, 0.1], 0.3, 0.5 * 0.25 + 0.75 * 0.05),
        # The best good pixel ties with the better half of B: the overlap climbs from 1/2 to 3/4 until FPR 1/4.
        ([0.8, 0.6, 0.6, 0.2, 0.5, 0.3, 0.1], 0.25, 0.25 * (0.5 + 0.75) / 2),
        ([0.8, 0.6, 0.6, 0.2, 0.5, 0.3, 0.1], 0.125, 0.125 * (0.5 + 0.625) / 2),
        # Everything ties: one straight line from (0, 0) to (1, 1).
        ([0.4] * 7, 0.3, 0.3 * 0.3 / 2),
        # Every good pixel is above every defective one.
        ([0.1, 0.9, 0.2, 0.2, 0.8, 0.7, 0.6], 0.3, 0),
    ],
)
def test_aupro_by_hand(heat, max_fpr, area):
    assert aupro([[heat]], [HAND_MASK], max_fpr=max_fpr) == pytest.approx(area / max_fpr, abs=1e-12)


def test_regions_touch_by_corners():
    """Three pixels found of a region of four are 3/4; were the corner a region of its own, it would be 5/6."""
    mask = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]])
    heat = np.where(mask, 1.0, 0.5)
    heat[2, 1] = 0
    assert aupro([heat], [mask]) == pytest.approx(0.75)


def test_good_pictures_count():
    """A false alarm on a good picture costs as much as one beside a defect."""
    maps, masks = [np.array([[1.0, 0, 0, 0]])], [np.array([[1, 0, 0, 0]])]
    assert aupro(maps, masks) == 1
    maps.append(np.array([[2.0, 0, 0, 0, 0, 0, 0]]))  # one good pixel of ten scores above the defect
    masks.append(np.zeros((1, 7), int))
    assert aupro(maps, masks) == pytest.approx(2 / 3)


def test_small_regions_weigh_as_much_as_large_ones():
    heat, mask = np.zeros((20, 20)), np.zeros((20, 20), bool)
    mask[:10, :10] = heat[:10, :10] = True  # found; 100 pixels
    mask[15, 15] = True  # missed; 1 pixel, which ties with all the good ones
    missed = 0.5 * (0.3 / 2)
    assert aupro([heat], [mask]) == pytest.approx(0.5 + missed)
    assert pixel_auroc([heat], [mask]) == pytest.approx((100 + 0.5) / 101)


@pytest.mark.parametrize("seed", range(20))
def test_aupro_never_exceeds_one(seed):
    """Not even by rounding, when every region is found before any good pixel is."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 15, 15)) < 0.2
    maps = masks + 0.9 * rng.random((3, 15, 15))
    assert 1 - 1e-12 < aupro(maps, masks, max_fpr=rng.uniform(0.001, 1)) <= 1


def test_pixel_metrics_in_one_sort_are_those_apart():
    maps, masks = made_up_maps(1, 30)
    assert pixel_metrics(maps, masks, max_fpr=0.2) == {
        "pixel_auroc": pixel_auroc(maps, masks),
        "pixel_aupr": pixel_aupr(maps, masks),
        "pixel_aupro": aupro(maps, masks, max_fpr=0.2),
        "pixel_f1_max": pixel_f1_max(maps, masks),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64])
def test_any_type_of_number_keeps_its_order(dtype):
    maps, masks = made_up_maps(2, 50, dtype=np.float64)
    maps = [np.round(heat * 7 + 40).astype(dtype) for heat in maps]
    expected = aupro_twin([heat.astype(np.float64) for heat in maps], masks, 0.3)
    assert aupro(maps, masks) == pytest.approx(expected, abs=1e-9)


def test_double_precision_is_not_rounded_to_single():
    heat = np.array([[1.0, 1 + 1e-12, 1 - 1e-12]])
    assert aupro([heat], [[[0, 1, 0]]]) == pixel_auroc([heat], [[[0, 1, 0]]]) == 1
    mixed = [heat, np.zeros((2, 2), np.float32)]
    assert pixel_auroc(mixed, [[[0, 1, 0]], np.zeros((2, 2), bool)]) == 1


def test_input_is_left_as_it_was():
    maps, masks = made_up_maps(3, 30)
    before = [heat.copy() for heat in maps], [mask.copy() for mask in masks]
    pixel_metrics(maps, masks)
    scores, labels = np.array([3.0, 1.0, 2.0]), np.array([0, 1, 0])
    image_metrics(scores, labels)
    for now, then in zip(maps + masks, before[0] + before[1], strict=True):
        np.testing.assert_array_equal(now, then)
    assert scores.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    "masks",
    [None, np.zeros((2, 3, 3)).astype(bool), np.ones((2, 3, 3), np.uint8)],
    ids=["no masks", "no defects", "no good pixels"],
)
def test_pixel_metrics_of_one_class_are_undefined(masks):
    maps = np.random.default_rng(0).random((2, 3, 3))
    assert set(pixel_metrics(maps, masks).values()) == {None}
    assert [figure(maps, masks) for figure in (pixel_auroc, pixel_aupr, pixel_f1_max, aupro)] == [None] * 4
    assert pro_curve(maps, masks) is None
    assert pixel_roc_curve(maps, masks) is None


def test_no_pictures_are_undefined():
    assert aupro([], []) is None


MAP, MASK = np.zeros((4, 6)), np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([MAP], [MASK, MASK], "1 maps and 2 masks"),
        ([MAP, MAP], [MASK, MASK.T], r"mask 1 has shape \(6, 4\), its map \(4, 6\)"),
        ([MAP, MAP], [MASK, None], "mask 1 is object"),
        ([MAP], [MASK / 2], "mask 0 is float64"),
        ([MAP, MAP[None]], [MASK, MASK[None]], r"map 1 is float64 of shape \(1, 4, 6\)"),
        ([MAP.astype(complex)], [MASK], "map 0 is complex128"),
        ([MAP, MAP * np.nan], [MASK, MASK], "map 1 holds NaN or infinity"),
        ([MAP, MAP - np.inf], [MASK, MASK], "map 1 holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("figure", [aupro, pixel_auroc, pixel_metrics, pro_curve])
def test_bad_maps_are_refused(figure, maps, masks, message):
    with pytest.raises(ValueError, match=message):
        figure(maps, masks)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.5, 30, float("nan")])
@pytest.mark.parametrize("figure", [aupro, pro_curve, pixel_metrics])
def test_bad_max_fpr_is_refused(figure, max_fpr):
    with pytest.raises(SettingsError, match="max_fpr="):
        figure([MAP], [MASK], max_fpr=max_fpr)


# ---- curves


def area_under(curve):
    x, y = curve
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@pytest.mark.parametrize("levels", [1, 4, 100_000])
def test_the_area_under_a_whole_curve_is_the_figure(levels):
    maps, masks = made_up_maps(0, levels)
    scores, labels = flat(maps, masks)
    everything = 10**6
    assert area_under(pro_curve(maps, masks, max_fpr=0.2, points=everything)) / 0.2 == pytest.approx(
        aupro(maps, masks, max_fpr=0.2), abs=1e-12
    )
    assert area_under(roc_curve(scores, labels, points=everything)) == pytest.approx(auroc(scores, labels), abs=1e-12)
    assert area_under(pixel_roc_curve(maps, masks, points=everything)) == pytest.approx(
        pixel_auroc(maps, masks), abs=1e-12
    )


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1])
def test_a_curve_for_drawing_is_short_and_lies_on_the_exact_one(max_fpr):
    rng = np.random.default_rng(0)
    masks = rng.random((2, 20, 20)) < 0.1
    maps = rng.normal(masks * 1.5, 1.0)
    fpr, overlap = pro_curve(maps, masks, max_fpr=max_fpr, points=30)
    assert 10 < len(fpr) == len(overlap) <= 30
    assert fpr.dtype == overlap.dtype == np.float64
    assert (fpr[0], overlap[0], fpr[-1]) == (0, 0, max_fpr)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(overlap) >= 0).all()
    assert overlap[-1] <= 1
    x, y = pro_corners_twin(maps, masks)
    away = np.abs(np.array(x) - fpr[:-1, None]) + np.abs(np.array(y) - overlap[:-1, None])
    assert away.min(axis=1).max() < 1e-12
    assert area_under((fpr, overlap)) / max_fpr == pytest.approx(aupro(maps, masks, max_fpr=max_fpr), abs=0.02)


def test_curves_by_hand():
    fpr, recall = roc_curve([4, 3, 2, 1], [1, 0, 1, 0])
    assert (fpr.tolist(), recall.tolist()) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1])
    fpr, overlap = pro_curve([[[0.4] * 7]], [HAND_MASK])
    assert (fpr.tolist(), overlap.tolist()) == ([0, 0.3], [0, pytest.approx(0.3)])


def test_a_curve_of_one_point_is_refused():
    with pytest.raises(SettingsError, match="points=1"):
        roc_curve([1, 2], [0, 1], points=1)


# ---- the package


def test_one_ranking_gives_every_figure():
    maps, masks = made_up_maps(4, 30)
    ranking = rank_pixels(maps, masks)
    assert (ranking.auroc(), ranking.aupro()) == (pixel_auroc(maps, masks), aupro(maps, masks))
    np.testing.assert_array_equal(ranking.pro_curve(), pro_curve(maps, masks))


def test_all_names_are_there():
    assert metrics.__all__ == sorted(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)
