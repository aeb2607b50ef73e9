"""Charts: every point and bar lies where its numbers say."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from winspect.outputs.charts import (
    BINS,
    BOTTOM,
    DEFECTIVE_COLOUR,
    HEIGHT,
    LEFT,
    NORMAL_COLOUR,
    RIGHT,
    TOP,
    WIDTH,
    curve_chart,
    histogram_chart,
    ticks,
)

LABELS = {"x_label": "false positive rate", "y_label": "true positive rate"}


def points_of(svg, tag):
    (shape,) = ET.fromstring(svg).findall(tag)
    return [tuple(map(float, pair.split(","))) for pair in shape.attrib["points"].split()]


def area_of(points):
    """The shoelace formula."""
    x, y = np.array(points).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def bars_of(svg, kind):
    bars = ET.fromstring(svg).findall(f"rect[@class='{kind}']")
    return [tuple(float(bar.attrib[name]) for name in ("x", "y", "width", "height")) for bar in bars]


def texts_of(svg):
    return [text.text for text in ET.fromstring(svg).findall("text")]


def test_a_curve_by_hand():
    svg = curve_chart([[0, 0.5, 1], [0, 0.8, 1]], title="ROC, area 65.00 %", **LABELS)
    assert (LEFT, RIGHT, TOP, BOTTOM) == (46, 288, 30, 194)
    assert points_of(svg, "polyline") == [(46, 194), (167, 62.8), (288, 30)]
    assert {"ROC, area 65.00 %", "false positive rate", "true positive rate"} <= set(texts_of(svg))


def test_the_shaded_area_is_the_area_under_the_curve():
    rng = np.random.default_rng(3)
    labels = rng.random(200) < 0.4
    x, y, _ = roc_curve(labels, rng.normal(labels, 1))
    shaded = area_of(points_of(curve_chart([x, y], title="ROC", **LABELS), "polygon"))
    assert shaded / ((RIGHT - LEFT) * (BOTTOM - TOP)) == pytest.approx(auc(x, y), abs=1e-3)


def test_an_axis_that_ends_early():
    svg = curve_chart([[0, 0.1, 0.3, 0.9], [0.2, 0.6, 0.9, 1]], title="PRO", x_max=0.3, **LABELS)
    points = points_of(svg, "polyline")
    assert len(points) == 3
    assert points[-1] == pytest.approx((RIGHT, BOTTOM - 0.9 * (BOTTOM - TOP)), abs=0.05)
    below = [text.text for text in ET.fromstring(svg).findall("text") if text.attrib["y"] == "209.0"]
    assert below == ["0", "0.1", "0.2", "0.3"]


def test_grid_lines_lie_at_the_numbers_written_beside_them():
    svg = ET.fromstring(curve_chart([[0, 1], [0, 1]], title="ROC", **LABELS))
    upright = [line for line in svg.findall("line") if line.attrib["x1"] == line.attrib["x2"]]
    numbers = {text.attrib["x"]: float(text.text) for text in svg.findall("text") if text.attrib["y"] == "209.0"}
    assert len(upright) == len(numbers) == 6
    for line in upright:
        x = line.attrib["x1"]
        assert float(x) == pytest.approx(LEFT + numbers[x] * (RIGHT - LEFT), abs=0.05)


@pytest.mark.parametrize("chance", [True, False])
def test_the_chance_line_is_the_diagonal(chance):
    lines = ET.fromstring(curve_chart([[0, 1], [0, 1]], title="ROC", chance=chance, **LABELS)).findall(
        "line[@class='chance']"
    )
    assert len(lines) == chance
    for line in lines:
        assert [float(line.attrib[name]) for name in ("x1", "y1", "x2", "y2")] == [LEFT, BOTTOM, RIGHT, TOP]


def test_a_histogram_by_hand():
    # Four bins of 0.25; normal: three in the first, one in the second; defective: one in each of the last two.
    svg = histogram_chart([0, 0.1, 0.2, 0.3], [0.6, 1.0], bins=4)
    middle, quarter, half = (TOP + BOTTOM) / 2, (RIGHT - LEFT) / 4, (BOTTOM - TOP) / 2
    normal, defective = bars_of(svg, "normal"), bars_of(svg, "defective")
    assert [bar[0] for bar in normal] == [LEFT, LEFT + quarter]
    assert [bar[0] for bar in defective] == [LEFT + 2 * quarter, LEFT + 3 * quarter]
    assert all(bar[2] == pytest.approx(quarter - 0.6, abs=0.06) for bar in [*normal, *defective])
    # The tallest share, three quarters, fills its half; the others are as tall as their share.
    assert [bar[3] for bar in normal] == pytest.approx([half, half / 3], abs=0.06)
    assert [bar[3] for bar in defective] == pytest.approx([half * 2 / 3] * 2, abs=0.06)
    assert all(bar[1] + bar[3] == pytest.approx(middle, abs=0.06) for bar in normal)
    assert all(bar[1] == middle for bar in defective)
    assert {"75 %", "4 normal", "2 defective", "anomaly score"} <= set(texts_of(svg))


def test_both_kinds_share_their_bins_and_every_score_counts():
    rng = np.random.default_rng(5)
    svg = histogram_chart(rng.normal(0, 1, 300).tolist(), rng.normal(1, 1, 40).tolist())
    step = (RIGHT - LEFT) / BINS
    for kind in ("normal", "defective"):
        bars = bars_of(svg, kind)
        numbers = [(bar[0] - LEFT) / step for bar in bars]
        assert numbers == pytest.approx(np.round(numbers), abs=0.02)
    # Shares of a kind sum to 1: both kinds' bars are equally tall together.
    totals = [sum(bar[3] for bar in bars_of(svg, kind)) for kind in ("normal", "defective")]
    assert totals[0] == pytest.approx(totals[1], abs=BINS * 0.05)


@pytest.mark.parametrize(
    ("normal", "defective"), [([0.5], []), ([], [0.2, 0.4]), ([0.0, 0.0], [0.0]), ([1.0], [1.0]), ([1e-9], [3e-9])]
)
def test_histograms_at_their_limits_stay_inside_the_chart(normal, defective):
    svg = histogram_chart(normal, defective)
    bars = [*bars_of(svg, "normal"), *bars_of(svg, "defective")]
    assert bars
    for x, y, width, height in bars:
        assert LEFT <= x <= x + width <= RIGHT
        assert TOP <= y <= y + height <= BOTTOM
        assert width > 0
        assert height > 0


def test_the_two_kinds_differ_in_lightness_as_well():
    def lightness(colour):
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert lightness(NORMAL_COLOUR) > 1.8 * lightness(DEFECTIVE_COLOUR)


def test_words_are_escaped():
    svg = curve_chart([[0, 1], [0, 1]], title='<script>"&', x_label="<b>", y_label="y")
    assert "<script>" not in svg
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == '<script>"&'
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}"
    assert {'<script>"&', "<b>"} <= set(texts_of(svg))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.3), (0.123, 0.131), (0.4999, 0.5001), (1e-9, 4e-9), (-3, 250), (0.07, 0.93)]
)
def test_ticks_are_round_evenly_spaced_and_inside(low, high):
    found = np.array(ticks(low, high))
    assert 2 <= len(found) <= 6
    assert found.min() >= low - 1e-9 * (high - low)
    assert found.max() <= high + 1e-9 * (high - low)
    steps = np.diff(found)
    assert steps == pytest.approx(steps[0], rel=1e-6)
    assert float(f"{steps[0]:.0e}"[0]) in (1, 2, 5)
