"""Charts as SVG: functions from numbers to markup, drawn by the macros of ``charts.html``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from winspect.outputs.pages import environment

WIDTH, HEIGHT = 300, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 288, 30, 194
"""Edges of the plotting area of a chart inside a page."""
MIDDLE = (TOP + BOTTOM) / 2

# Blue and vermilion can be distinguished with all common kinds of colour vision; light and dark, also in grey.
NORMAL_COLOUR, DEFECTIVE_COLOUR = "#7db0dc", "#b8400e"
CURVE_COLOUR = "#174f86"
INK, SOFT, LINE, PAPER = "#1c2430", "#5b6675", "#dde2e8", "#ffffff"

LETTER = 6.4
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


def draw(template: str, macro: str, names: Mapping[str, Any], **values: Any) -> Markup:
    """What a macro of a template of this folder makes of some values.

    Args:
        names: constants and functions of a module that its template uses.
    """
    return getattr(environment().get_template(template, globals=names).module, macro)(**values)


def place(machine: Mapping[str, Any]) -> str:
    """The machine in a few words, from :func:`winspect.system.machine.describe_machine`."""
    return machine["accelerator"] or f"{machine['cpu'] or machine['processor']}, {machine['cores']} cores"


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
    points = [(x, y) for x, y in zip(*curve, strict=True) if x <= x_max]
    x, y = Scale(0, x_max, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    labels = {"title": title, "x_label": x_label, "y_label": y_label}
    return draw("charts.html", "curve", globals(), points=points, x=x, y=y, chance=chance, **labels)


def histogram_chart(
    normal: Sequence[float], defective: Sequence[float], *, title: str = "Scores", bins: int = BINS
) -> Markup:
    """Scores of normal pictures upwards and of defective ones downwards, in the same bins.

    Heights are shares of a kind's own pictures, so that a kind with few of them can be compared with one with many.

    Args:
        normal, defective: finite scores; either may be empty, not both.
    """
    low, high = _score_span([*normal, *defective])
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(scores, edges)[0] / max(len(scores), 1) for scores in (normal, defective)]
    tallest = float(max(share.max() for share in shares))
    kinds = [
        {
            "name": name,
            "colour": colour,
            "count": len(scores),
            "y": Scale(0, tallest, MIDDLE, end),
            "bars": list(zip(edges, edges[1:], share, strict=False)),
        }
        for name, colour, scores, share, end in (
            ("normal", NORMAL_COLOUR, normal, shares[0], TOP),
            ("defective", DEFECTIVE_COLOUR, defective, shares[1], BOTTOM),
        )
    ]
    return draw(
        "charts.html",
        "histogram",
        globals(),
        title=title,
        x=Scale(low, high, LEFT, RIGHT),
        tallest=tallest,
        kinds=kinds,
    )


def _score_span(scores: Sequence[float]) -> tuple[float, float]:
    """The range of all scores, never empty."""
    low, high = min(scores), max(scores)
    margin = max(abs(low), 1e-6) * 1e-3
    return (low, high) if high - low > margin else (low - margin, high + margin)
