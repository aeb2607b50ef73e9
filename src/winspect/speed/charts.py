"""Charts of a benchmark and of a profile, as SVG files of their own; and the files that a measurement leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from winspect.outputs.charts import (
    CURVE_COLOUR,
    DEFECTIVE_COLOUR,
    INK,
    NORMAL_COLOUR,
    PAPER,
    SOFT,
    WHITE_EDGE,
    Scale,
    frame,
    place,
    text,
    upright_lines,
)
from winspect.speed.flops import ATTENTION, LAYER_NORM, LINEAR, OTHER
from winspect.system.files import make_folder, replacing

SPEED_WIDTH, SPEED_LEFT, SPEED_RIGHT, SPEED_TOP = 640, 150, 520, 52
_ROW, _BAR, _GAP, _LABEL_GAP, _BELOW_BARS = 22, 15, 20, 34, 44
_PRECISIONS = {"fp32": CURVE_COLOUR, "bf16": NORMAL_COLOUR, "fp16": "#5b6675", "int8": DEFECTIVE_COLOUR}

WIDTH, LEFT, RIGHT, TOP = 660, 96, 560, 86
"""Edges of a profile's bars; the scale begins at LEFT and the longest bar ends at RIGHT."""
ROW, BAR, SHARES_BAR = 50, 18, 20
_LEGEND_Y, _SHARES_GAP, _SHARES_ROW, _BELOW_SHARES = 62, 62, 46, 14
_SMALLEST_LABELLED = 0.06  # of a bar's length: narrower parts have no room for their figure

# Dark, light and two in between: distinguishable in grey as well.
COLOURS = {LINEAR: CURVE_COLOUR, ATTENTION: DEFECTIVE_COLOUR, LAYER_NORM: NORMAL_COLOUR, OTHER: "#8a94a3"}
_ON_COLOURS = {LINEAR: PAPER, ATTENTION: PAPER, LAYER_NORM: INK, OTHER: INK}
TITLES = {LINEAR: "linear", ATTENTION: "attention", LAYER_NORM: "LayerNorm", OTHER: "other"}


def speed_chart(results: Mapping[str, Any]) -> Markup:
    """Images/s of every run of a benchmark, grouped by plan, with the speed-up over ``serial`` behind each bar.

    Args:
        results: what ``benchmark.json`` holds.
    """
    runs = results["runs"]
    scale = Scale(0, max((run["images_per_s"] for run in runs), default=1.0), SPEED_LEFT, SPEED_RIGHT)
    parts, y = [], float(SPEED_TOP)
    for plan in dict.fromkeys(run["plan"] for run in runs):
        group = [run for run in runs if run["plan"] == plan]
        kind = "full maps" if group[0]["maps"] else "scores alone"
        parts.append(text(8, y + 13, f"{plan}: recipe {group[0]['recipe']}, {kind}", colour=INK, weight=600))
        y += _GAP
        for run in group:
            parts += _speed_bar(run, y, scale)
            y += _ROW
        y += _GAP / 2
    label = text((SPEED_LEFT + SPEED_RIGHT) / 2, y + _LABEL_GAP, "images/s (offline)", anchor="middle")
    base = results["baseline"]
    times = f"; (x): times {base['plan']}, {base['engine']} {base['precision']}" if base else ""
    return frame(
        f"{results['model']}: images per second",
        place(results["machine"]) + times,
        [*upright_lines(scale, SPEED_TOP - 6, y), label, *parts],
        width=SPEED_WIDTH,
        height=y + _BELOW_BARS,
    )


def _speed_bar(run: Mapping[str, Any], y: float, scale: Scale) -> list[str]:
    rate, faster = run["images_per_s"], run["speedup_vs_serial"]
    behind = f"{rate:.3g}" + ("" if faster is None else f"  ({faster:.2f}x)")
    size = f'width="{scale(rate) - SPEED_LEFT:.1f}" height="{_BAR}"'
    colour = _PRECISIONS.get(run["precision"], SOFT)
    return [
        text(SPEED_LEFT - 8, y + 12, f"{run['engine']} {run['precision']}", anchor="end"),
        f'<rect class="run" x="{SPEED_LEFT}" y="{y:.1f}" {size} fill="{colour}"/>',
        text(scale(rate) + 6, y + 12, behind, colour=INK),
    ]


def profile_chart(results: Mapping[str, Any]) -> Markup:
    """Time of every operator class with the least time the machine allows, and shares beside reported ones.

    Args:
        results: what ``profile.json`` holds.
    """
    classes, reported = results["classes"], results["reported"]
    longest = max(max(figures["ms"], figures["limit_ms"] or 0) for figures in classes.values())
    scale, bottom = Scale(0, longest, LEFT, RIGHT), TOP + ROW * len(classes)
    mark = f'x1="{LEFT}" y1="{_LEGEND_Y - 12}" x2="{LEFT}" y2="{_LEGEND_Y + 2}"'
    parts = [
        f'<line {mark} stroke="{INK}" stroke-width="2.5"/>',
        text(LEFT + 7, _LEGEND_Y, "the least time that this machine's matrix products and memory allow"),
        *upright_lines(scale, TOP - 6, bottom),
    ]
    for number, (name, figures) in enumerate(classes.items()):
        parts += _class_row(name, figures, scale, TOP + ROW * number)
    parts.append(text((LEFT + RIGHT) / 2, bottom + _LABEL_GAP, "ms per picture", anchor="middle"))
    y = bottom + _SHARES_GAP
    parts += _shares_bar("shares of this run", {name: figures["share"] for name, figures in classes.items()}, y)
    parts += _shares_bar(f"shares reported for {reported['title']}", reported["shares"], y + _SHARES_ROW)
    rest = sum(results["rest"].values())
    times = f"{figure(results['picture_ms'])} ms a picture, {figure(rest)} ms of them outside the tower"
    how = f"{results['engine']} {results['precision']}, recipe {results['recipe']}, {place(results['machine'])}"
    return frame(
        f"{results['model']}: where the image tower's time goes",
        f"{how}: {times}",
        parts,
        width=WIDTH,
        height=y + 2 * _SHARES_ROW + _BELOW_SHARES,
    )


def _class_row(name: str, figures: Mapping[str, Any], scale: Scale, y: float) -> list[str]:
    end = scale(figures["ms"])
    parts = [
        text(LEFT - 8, y + 13, TITLES[name], anchor="end", colour=INK, weight=600),
        f'<rect class="{name}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{COLOURS[name]}"/>',
    ]
    if figures["limit_ms"] is not None:
        x = scale(figures["limit_ms"])
        end = max(end, x)
        # White around it, so that it is seen on a dark bar.
        for stroke, thickness in ((PAPER, 5), (INK, 2.5)):
            line = f'x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + BAR + 3}"'
            parts.append(f'<line class="limit" {line} stroke="{stroke}" stroke-width="{thickness}"/>')
    parts.append(text(end + 7, y + 13, f"{figure(figures['ms'])} ms", colour=INK))
    parts.append(text(LEFT + 4, y + BAR + 15, describe_class(figures), more=WHITE_EDGE))
    return parts


def figure(number: float) -> str:
    """Three digits that count, or a whole number.

    >>> figure(0.01234), figure(61.78), figure(6611.7)
    ('0.0123', '61.8', '6612')
    """
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"


def describe_class(figures: Mapping[str, Any]) -> str:
    """A line about a class: its work, how fast it is done, and the limit that binds it."""
    work = f"{figure(figures['gflop'])} GFLOP, {figure(figures['gbyte'])} GB"
    if figures["gflop_s"] is None:
        return f"{work}; no time was measured"
    rate = f"{figure(figures['gflop_s'])} GFLOP/s, {figure(figures['gbyte_s'])} GB/s"
    if figures["bound"] is None:
        return f"{work}; {rate}"
    reached = f"{100 * figures['limit_ms'] / figures['ms']:.0f} %"
    return f"{work}; {rate}; bound by {figures['bound']}, at {reached} of that limit"


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


def write_benchmark(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``benchmark.json`` and ``benchmark.svg``; returns both paths.

    Raises:
        OutputError: they cannot be written.
    """
    return _write(folder, "benchmark", results, speed_chart(results))


def write_profile(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``profile.json`` and ``profile.svg``; returns both paths.

    Raises:
        OutputError: they cannot be written.
    """
    return _write(folder, "profile", results, profile_chart(results))


def _write(folder: Path, name: str, results: Mapping[str, Any], chart: Markup) -> list[Path]:
    make_folder(folder)
    contents = {folder / f"{name}.json": json.dumps(results, indent=2) + "\n", folder / f"{name}.svg": chart}
    for path, content in contents.items():
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return list(contents)
