"""The picture of a profile, as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from winspect.outputs.charts import CURVE_COLOUR, DEFECTIVE_COLOUR, NORMAL_COLOUR, Scale, ticks
from winspect.outputs.standing_svg import INK, LINE, PAPER, frame, place, text
from winspect.speed.flops import ATTENTION, LAYER_NORM, LINEAR, OTHER

WIDTH, LEFT, RIGHT, TOP = 660, 96, 560, 86
"""Edges of the bars; the scale begins at LEFT and the longest bar ends at RIGHT."""
ROW, BAR, SHARES_BAR = 50, 18, 20
_LEGEND_Y, _AXIS_GAP, _SHARES_GAP, _SHARES_ROW, _BELOW = 62, 16, 62, 46, 14
_SMALLEST_LABELLED = 0.06  # of a bar's length: narrower parts have no room for their figure

# Dark, light and two in between: told apart in grey as well.
COLOURS = {LINEAR: CURVE_COLOUR, ATTENTION: DEFECTIVE_COLOUR, LAYER_NORM: NORMAL_COLOUR, OTHER: "#8a94a3"}
_ON_COLOURS = {LINEAR: PAPER, ATTENTION: PAPER, LAYER_NORM: INK, OTHER: INK}
TITLES = {LINEAR: "linear", ATTENTION: "attention", LAYER_NORM: "LayerNorm", OTHER: "other"}


def profile_chart(results: Mapping[str, Any]) -> Markup:
    """Time of every operator class with the least time the machine allows, and shares beside reported ones.

    Args:
        results: what ``profile.json`` holds.
    """
    classes = results["classes"]
    longest = max(max(own["ms"], own["limit_ms"] or 0) for own in classes.values())
    scale = Scale(0, longest, LEFT, RIGHT)
    bottom = TOP + ROW * len(classes)
    parts = [*_legend(), *_axis(scale, bottom)]
    for number, (name, own) in enumerate(classes.items()):
        parts += _class_row(name, own, scale, TOP + ROW * number)
    parts.append(text((LEFT + RIGHT) / 2, bottom + 2 * _AXIS_GAP, "ms per picture", anchor="middle"))
    y = bottom + _SHARES_GAP
    shares = {"shares of this run": {name: own["share"] for name, own in classes.items()}}
    reported = results["reported"]
    shares[f"shares reported for {reported['title']}"] = reported["shares"]
    for title, own in shares.items():
        parts += _shares_bar(title, own, y)
        y += _SHARES_ROW
    return _frame(parts, y + _BELOW, results)


def _legend() -> list[str]:
    mark = f'x1="{LEFT}" y1="{_LEGEND_Y - 12}" x2="{LEFT}" y2="{_LEGEND_Y + 2}"'
    return [
        f'<line {mark} stroke="{INK}" stroke-width="2.5"/>',
        text(LEFT + 7, _LEGEND_Y, "the least time that this machine's matrix products and memory allow"),
    ]


def _axis(scale: Scale, bottom: float) -> list[str]:
    parts = []
    for number in ticks(0, scale.high):
        x = scale(number)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{LINE}"/>')
        parts.append(text(x, bottom + _AXIS_GAP, f"{number:.6g}", anchor="middle"))
    return parts


def _class_row(name: str, own: Mapping[str, Any], scale: Scale, y: float) -> list[str]:
    end = scale(own["ms"])
    parts = [
        text(LEFT - 8, y + 13, TITLES[name], anchor="end", colour=INK, weight=600),
        f'<rect class="{name}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{COLOURS[name]}"/>',
    ]
    behind = end
    if own["limit_ms"] is not None:
        x = scale(own["limit_ms"])
        behind = max(behind, x)
        # White around it, so that it is seen on a dark bar.
        for stroke, thickness in ((PAPER, 5), (INK, 2.5)):
            line = f'x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + BAR + 3}"'
            parts.append(f'<line class="limit" {line} stroke="{stroke}" stroke-width="{thickness}"/>')
    parts.append(text(behind + 7, y + 13, f"{figure(own['ms'])} ms", colour=INK))
    # A white edge keeps the words readable where they cross a line of the axis.
    parts.append(text(LEFT + 4, y + BAR + 15, describe_class(own), edge=True))
    return parts


def figure(number: float) -> str:
    """Three digits that count, or a whole number.

    >>> figure(0.01234), figure(61.78), figure(6611.7)
    ('0.0123', '61.8', '6612')
    """
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"


def describe_class(own: Mapping[str, Any]) -> str:
    """What a class does, how fast, and what binds it, in a line."""
    work = f"{figure(own['gflop'])} GFLOP, {figure(own['gbyte'])} GB"
    if own["gflop_s"] is None:
        return f"{work}; no time was measured"
    rate = f"{figure(own['gflop_s'])} GFLOP/s, {figure(own['gbyte_s'])} GB/s"
    if own["bound"] is None:
        return f"{work}; {rate}"
    return f"{work}; {rate}; bound by {own['bound']}, at {100 * own['limit_ms'] / own['ms']:.0f} % of that limit"


def _shares_bar(title: str, shares: Mapping[str, float], y: float) -> list[str]:
    scale = Scale(0, 1, LEFT, RIGHT)
    parts, start = [text(LEFT, y - 5, title)], 0.0
    for name, share in shares.items():
        x, end = scale(start), scale(start + share)
        size = f'width="{end - x:.1f}" height="{SHARES_BAR}"'
        parts.append(f'<rect class="share" x="{x:.1f}" y="{y}" {size} fill="{COLOURS[name]}"/>')
        if share >= _SMALLEST_LABELLED:
            parts.append(text((x + end) / 2, y + 14, f"{100 * share:.1f} %", anchor="middle", colour=_ON_COLOURS[name]))
        start += share
    return parts


def _frame(parts: Sequence[str], height: float, results: Mapping[str, Any]) -> Markup:
    title = f"{results['model']}: where the image tower's time goes"
    how = f"{results['engine']} {results['precision']}, recipe {results['recipe']}, {place(results['machine'])}"
    rest = sum(results["rest"].values())
    times = f"{figure(results['picture_ms'])} ms a picture, {figure(rest)} ms of them outside the tower"
    return frame(title, f"{how}: {times}", parts, width=WIDTH, height=height)
