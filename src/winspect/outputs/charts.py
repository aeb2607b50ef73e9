"""Charts as SVG: pure functions from numbers to markup, and the parts that all charts share.

The markup needs no style sheet and no script. One unit is one pixel where a chart is shown at its own width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 300, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 288, 30, 194
"""Edges of the plotting area of a chart inside a page."""

# Blue and vermilion can be distinguished with all common kinds of colour vision; light and dark, also in grey.
NORMAL_COLOUR, DEFECTIVE_COLOUR = "#7db0dc", "#b8400e"
CURVE_COLOUR = "#174f86"
INK, SOFT, LINE, PAPER = "#1c2430", "#5b6675", "#dde2e8", "#ffffff"

_LETTER = 6.4
"""About the width of a letter; a wide font's, so that nothing overlaps in another."""

BINS = 24
_MOST_TICKS = 6


@dataclass(frozen=True)
class Scale:
    """A straight map from numbers (``low`` to ``high``) to SVG units (``start`` to ``end``)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a number."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, most: int = _MOST_TICKS) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them, evenly spaced by 1, 2 or 5 times a power of 10.

    >>> ticks(0, 0.3), ticks(0.12, 0.31)
    ([0.0, 0.1, 0.2, 0.3], [0.15, 0.2, 0.25, 0.3])
    """
    exponent = math.floor(math.log10((high - low) / most))
    for step in (factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = SOFT, weight: int = 400, more: str = ""
) -> str:
    """A line of text; ``more`` are further attributes, such as :data:`WHITE_EDGE`."""
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"{more and " " + more}'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


WHITE_EDGE = f'stroke="{PAPER}" stroke-width="3" paint-order="stroke"'
"""Attributes of a text that stays readable on whatever lies behind it."""


def upright_lines(scale: Scale, top: float, bottom: float, *, gap: float = 16) -> list[str]:
    """A line across the chart at every round number of a horizontal scale, with the number below it."""
    parts = []
    for number in ticks(scale.low, scale.high):
        x = scale(number)
        parts.append(f'<line x1="{x:.1f}" y1="{top:g}" x2="{x:.1f}" y2="{bottom:g}" stroke="{LINE}"/>')
        parts.append(text(x, bottom + gap, f"{number:.6g}", anchor="middle"))
    return parts


def place(machine: Mapping[str, Any]) -> str:
    """The machine in a few words, from :func:`winspect.system.machine.describe_machine`."""
    return machine["accelerator"] or f"{machine['cpu'] or machine['processor']}, {machine['cores']} cores"


def frame(title: str, subtitle: str, parts: Sequence[str], *, width: int, height: float) -> Markup:
    """A chart as an SVG file of its own."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}" font-size="12" font-family="sans-serif">'
    )
    paper = f'<rect width="{width}" height="{height:.0f}" fill="{PAPER}"/>'  # readable on a dark page, too
    heading = f'<text x="8" y="20" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>'
    return Markup("\n".join([head, paper, heading, text(8, 38, subtitle), *parts, "</svg>\n"]))


def curve_chart(
    curve: Sequence[Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_max: float = 1.0,
    chance: bool = False,
) -> Markup:
    """A curve, with the area under it shaded.

    Args:
        curve: x from 0 and y, at least two points, neither falling; y is at most 1.
        title: holds the area, in words.
        x_max: where the x axis ends.
        chance: also draw the diagonal that a blind guess gives.
    """
    x_scale, y_scale = Scale(0, x_max, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    points = [(x, y) for x, y in zip(*curve, strict=True) if x <= x_max]
    line = " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in points)
    area = f"{line} {x_scale(points[-1][0]):.1f},{BOTTOM} {x_scale(points[0][0]):.1f},{BOTTOM}"
    parts = [f'<polygon points="{area}" fill="{CURVE_COLOUR}" fill-opacity="0.10"/>', *_axes(x_scale, x_label, y_label)]
    for number in ticks(0, 1):
        y = y_scale(number)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{LINE}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{number:.6g}", anchor="end"))
    if chance:
        ends = f'x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{TOP}"'
        parts.append(f'<line class="chance" {ends} stroke="{SOFT}" stroke-dasharray="3 4"/>')
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{CURVE_COLOUR}" stroke-width="2" stroke-linejoin="round"/>'
    )
    return _in_page(title, parts)


def histogram_chart(
    normal: Sequence[float], defective: Sequence[float], *, title: str = "Scores", bins: int = BINS
) -> Markup:
    """Scores of normal pictures upwards and of defective ones downwards, in the same bins.

    Heights are shares of a kind's own pictures, so that a kind with few of them can be compared with one with many.

    Args:
        normal, defective: finite scores; either may be empty, not both.
    """
    low, high = _score_span([*normal, *defective])
    middle = (TOP + BOTTOM) / 2
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(scores, edges)[0] / max(len(scores), 1) for scores in (normal, defective)]
    tallest = float(max(share.max() for share in shares))
    x_scale, up, down = Scale(low, high, LEFT, RIGHT), Scale(0, tallest, middle, TOP), Scale(0, tallest, middle, BOTTOM)
    parts = _axes(x_scale, "anomaly score", "share of own kind")
    for name, colour, share, scale in (
        ("normal", NORMAL_COLOUR, shares[0], up),
        ("defective", DEFECTIVE_COLOUR, shares[1], down),
    ):
        parts += _bars(name, colour, share, edges, x_scale, scale)
        parts.append(text(LEFT - 6, scale(tallest) + 4, f"{100 * tallest:.3g} %", anchor="end"))
    parts.append(text(LEFT - 6, middle + 4, "0", anchor="end"))
    parts.append(f'<line x1="{LEFT}" y1="{middle}" x2="{RIGHT}" y2="{middle}" stroke="{INK}"/>')
    return _in_page(title, parts + _legend(f"{len(normal)} normal", f"{len(defective)} defective"))


def _score_span(scores: Sequence[float]) -> tuple[float, float]:
    """The range of all scores, never empty."""
    low, high = min(scores), max(scores)
    margin = max(abs(low), 1e-6) * 1e-3
    return (low, high) if high - low > margin else (low - margin, high + margin)


def _legend(normal: str, defective: str) -> list[str]:
    """The two kinds, at the right end of the title's line."""
    parts, right = [], float(RIGHT)
    for words, colour in ((defective, DEFECTIVE_COLOUR), (normal, NORMAL_COLOUR)):
        parts.append(text(right, 15, words, anchor="end", colour=INK))
        right -= _LETTER * len(words) + 13
        parts.append(f'<rect x="{right:.1f}" y="6" width="9" height="9" fill="{colour}"/>')
        right -= 8
    return parts


def _bars(name: str, colour: str, shares: np.ndarray, edges: np.ndarray, x_scale: Scale, y_scale: Scale) -> list[str]:
    bars = []
    for share, left, right in zip(shares, edges, edges[1:], strict=False):
        if share:
            x, y = x_scale(left), min(y_scale(share), y_scale(0))
            size = f'width="{x_scale(right) - x - 0.6:.1f}" height="{abs(y_scale(share) - y_scale(0)):.1f}"'
            bars.append(f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>')
    return bars


def _axes(x_scale: Scale, x_label: str, y_label: str) -> list[str]:
    """The numbers of the x axis, and both labels."""
    middle = (TOP + BOTTOM) / 2
    turn = f'transform="rotate(-90 11 {middle:g})"'
    return [
        *upright_lines(x_scale, TOP, BOTTOM, gap=15),
        text((LEFT + RIGHT) / 2, HEIGHT - 8, x_label, anchor="middle"),
        text(11, middle, y_label, anchor="middle", more=turn),
    ]


def _in_page(title: str, parts: Sequence[str]) -> Markup:
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" font-size="11.5" '
        'font-family="inherit">'
    )
    heading = f'<text x="4" y="15" font-size="13" font-weight="600" fill="{INK}">{escape(title)}</text>'
    return Markup("\n".join([head, heading, *parts, "</svg>"]))
