"""The bar chart of a benchmark, as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from winspect.outputs.charts import CURVE_COLOUR, DEFECTIVE_COLOUR, NORMAL_COLOUR, Scale, ticks
from winspect.outputs.standing_svg import INK, LINE, SOFT, frame, place, text

WIDTH, LEFT, RIGHT, TOP = 640, 150, 520, 52
_ROW, _BAR, _GAP, _BELOW = 22, 15, 20, 44
_COLOURS = {"fp32": CURVE_COLOUR, "bf16": NORMAL_COLOUR, "fp16": "#5b6675", "int8": DEFECTIVE_COLOUR}


def speed_chart(results: Mapping[str, Any]) -> Markup:
    """Images/s of every run of a benchmark, grouped by plan, with the speed-up over ``serial`` behind each bar.

    Args:
        results: what ``benchmark.json`` holds.
    """
    runs = results["runs"]
    scale = Scale(0, max((run["images_per_s"] for run in runs), default=1.0), LEFT, RIGHT)
    parts, y = [], float(TOP)
    for plan in dict.fromkeys(run["plan"] for run in runs):
        own = [run for run in runs if run["plan"] == plan]
        what = "full maps" if own[0]["maps"] else "scores alone"
        parts.append(text(8, y + 13, f"{plan}: recipe {own[0]['recipe']}, {what}", colour=INK, weight=600))
        y += _GAP
        for run in own:
            parts += _bar(run, y, scale)
            y += _ROW
        y += _GAP / 2
    return _frame(_axis(scale, y) + parts, y + _BELOW, results)


def _bar(run: Mapping[str, Any], y: float, scale: Scale) -> list[str]:
    rate, faster = run["images_per_s"], run["speedup_vs_serial"]
    behind = f"{rate:.3g}" + ("" if faster is None else f"  ({faster:.2f}x)")
    size = f'width="{scale(rate) - LEFT:.1f}" height="{_BAR}"'
    colour = _COLOURS.get(run["precision"], SOFT)
    return [
        text(LEFT - 8, y + 12, f"{run['engine']} {run['precision']}", anchor="end"),
        f'<rect class="run" x="{LEFT}" y="{y:.1f}" {size} fill="{colour}"/>',
        text(scale(rate) + 6, y + 12, behind, colour=INK),
    ]


def _axis(scale: Scale, bottom: float) -> list[str]:
    parts = []
    for number in ticks(0, scale.high):
        x = scale(number)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{LINE}"/>')
        parts.append(text(x, bottom + 16, f"{number:.6g}", anchor="middle"))
    return [*parts, text((LEFT + RIGHT) / 2, bottom + 34, "images/s (offline)", anchor="middle")]


def _frame(parts: Sequence[str], height: float, results: Mapping[str, Any]) -> Markup:
    where = place(results["machine"])
    if base := results["baseline"]:
        where += f"; (x): times {base['plan']}, {base['engine']} {base['precision']}"
    return frame(f"{results['model']}: images per second", where, parts, width=WIDTH, height=height)
