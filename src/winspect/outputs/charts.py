"""Charts as SVG: pure functions from numbers to markup.

The markup needs no style sheet and no script. One unit is one pixel where a chart is shown at its own width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 300, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 288, 30, 194
"""Edges of the plotting area."""

# Blue and vermilion are told apart by all common kinds of colour vision; light and dark, also in grey.
NORMAL_COLOUR, DEFECTIVE_COLOUR = "#7db0dc", "#b8400e"
CURVE_COLOUR = "#174f86"
_INK, _SOFT, _LINE = "#1c2430", "#5b6675", "#dde2e8"

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
    parts = [
        f'<polygon points="{area}" fill="{CURVE_COLOUR}" fill-opacity="0.10"/>',
        *_axes(x_scale, y_scale, ticks(0, x_max), ticks(0, 1), x_label, y_label),
    ]
    if chance:
        ends = f'x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{TOP}"'
        parts.append(f'<line class="chance" {ends} stroke="{_SOFT}" stroke-dasharray="3 4"/>')
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{CURVE_COLOUR}" stroke-width="2" stroke-linejoin="round"/>'
    )
    return _svg(title, parts)


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
    parts = _axes(x_scale, up, ticks(low, high), [], "anomaly score", "share of own kind")
    for name, colour, share, scale in (
        ("normal", NORMAL_COLOUR, shares[0], up),
        ("defective", DEFECTIVE_COLOUR, shares[1], down),
    ):
        parts += _bars(name, colour, share, edges, x_scale, scale)
        parts.append(_text(LEFT - 6, scale(tallest) + 4, f"{100 * tallest:.3g} %", anchor="end"))
    parts.append(_text(LEFT - 6, middle + 4, "0", anchor="end"))
    parts.append(f'<line x1="{LEFT}" y1="{middle}" x2="{RIGHT}" y2="{middle}" stroke="{_INK}"/>')
    parts += _legend(f"{len(normal)} normal", f"{len(defective)} defective")
    return _svg(title, parts)


def _score_span(scores: Sequence[float]) -> tuple[float, float]:
    """The range of all scores, never empty."""
    low, high = min(scores), max(scores)
    margin = max(abs(low), 1e-6) * 1e-3
    return (low, high) if high - low > margin else (low - margin, high + margin)


def _legend(normal: str, defective: str) -> list[str]:
    """The two kinds, at the right end of the title's line."""
    parts, right = [], float(RIGHT)
    for text, colour in ((defective, DEFECTIVE_COLOUR), (normal, NORMAL_COLOUR)):
        parts.append(_text(right, 15, text, anchor="end", colour=_INK))
        right -= _LETTER * len(text) + 13
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


def _axes(
    x_scale: Scale,
    y_scale: Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
) -> list[str]:
    parts = []
    for number in x_ticks:
        x = x_scale(number)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="{_LINE}"/>')
        parts.append(_text(x, BOTTOM + 15, f"{number:.6g}"))
    for number in y_ticks:
        y = y_scale(number)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{_LINE}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{number:.6g}", anchor="end"))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 8, x_label))
    middle = (TOP + BOTTOM) / 2
    parts.append(_text(11, middle, y_label, turn=f' transform="rotate(-90 11 {middle:g})"'))
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", colour: str = _SOFT, weight: int = 400, turn: str = ""
) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}{turn}>{escape(text)}</text>'


def _svg(title: str, parts: Sequence[str]) -> Markup:
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" font-size="11.5" '
        'font-family="inherit">'
    )
    heading = f'<text x="4" y="15" font-size="13" font-weight="600" fill="{_INK}">{escape(title)}</text>'
    return Markup("\n".join([head, heading, *parts, "</svg>"]))
