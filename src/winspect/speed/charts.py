"""Charts of a benchmark and of a profile, as SVG files of their own; and the files that a measurement leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from winspect.outputs import charts
from winspect.outputs.charts import CURVE_COLOUR, DEFECTIVE_COLOUR, INK, NORMAL_COLOUR, PAPER, SOFT, Scale, draw, place
from winspect.speed.flops import ATTENTION, LAYER_NORM, LINEAR, OTHER
from winspect.system.files import make_folder, write_file, write_json

SPEED_WIDTH, SPEED_LEFT, SPEED_RIGHT, SPEED_TOP = 640, 150, 520, 52
SPEED_ROW, SPEED_BAR, GAP, LABEL_GAP, BELOW_BARS = 22, 15, 20, 34, 44
_PRECISIONS = {"fp32": CURVE_COLOUR, "bf16": NORMAL_COLOUR, "fp16": SOFT, "int8": DEFECTIVE_COLOUR}

WIDTH, LEFT, RIGHT, TOP = 660, 96, 560, 86
"""Edges of a profile's bars; the scale begins at LEFT and the longest bar ends at RIGHT."""
ROW, BAR, SHARES_BAR = 50, 18, 20
LEGEND_Y, SHARES_GAP, SHARES_ROW, BELOW_SHARES = 62, 62, 46, 14
SHARES = Scale(0, 1, LEFT, RIGHT)
SMALLEST_LABELLED = 0.06  # of a bar's length: narrower parts have no room for their figure
WHITE_EDGE = Markup(f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"')
"""Attributes of a text that stays readable on whatever lies behind it."""

# Dark, light and two in between: distinguishable in grey as well.
COLOURS = {LINEAR: CURVE_COLOUR, ATTENTION: DEFECTIVE_COLOUR, LAYER_NORM: NORMAL_COLOUR, OTHER: "#8a94a3"}
ON_COLOURS = {LINEAR: PAPER, ATTENTION: PAPER, LAYER_NORM: INK, OTHER: INK}
TITLES = {LINEAR: "linear", ATTENTION: "attention", LAYER_NORM: "LayerNorm", OTHER: "other"}


def speed_chart(results: Mapping[str, Any]) -> Markup:
    """Images/s of every run of a benchmark, grouped by plan, with the speed-up over ``serial`` behind each bar.

    Args:
        results: what ``benchmark.json`` holds.
    """
    runs = results["runs"]
    scale = Scale(0, max((run["images_per_s"] for run in runs), default=1.0), SPEED_LEFT, SPEED_RIGHT)
    plans = [
        (plan, [run for run in runs if run["plan"] == plan]) for plan in dict.fromkeys(run["plan"] for run in runs)
    ]
    machine = place(results["machine"])
    return _draw("benchmark", results=results, plans=plans, scale=scale, colours=_PRECISIONS, place=machine)


def profile_chart(results: Mapping[str, Any]) -> Markup:
    """Time of every operator class with the least time the machine allows, and shares beside reported ones.

    Args:
        results: what ``profile.json`` holds.
    """
    classes = results["classes"]
    longest = max(max(figures["ms"], figures["limit_ms"] or 0) for figures in classes.values())
    rest = figure(sum(results["rest"].values()))
    how = f"{results['engine']} {results['precision']}, recipe {results['recipe']}, {place(results['machine'])}"
    return _draw(
        "profile",
        results=results,
        scale=Scale(0, longest, LEFT, RIGHT),
        shares={name: figures["share"] for name, figures in classes.items()},
        title=f"{results['model']}: where the image tower's time goes",
        subtitle=f"{how}: {figure(results['picture_ms'])} ms a picture, {rest} ms of them outside the tower",
    )


def _draw(macro: str, **values: Any) -> Markup:
    return draw("speed.html", macro, {**vars(charts), **globals()}, **values)


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


def write_benchmark(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``benchmark.json`` and ``benchmark.svg``; returns both paths. Raises OutputError."""
    return _write(folder, "benchmark", results, speed_chart(results))


def write_profile(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``profile.json`` and ``profile.svg``; returns both paths. Raises OutputError."""
    return _write(folder, "profile", results, profile_chart(results))


def _write(folder: Path, name: str, results: Mapping[str, Any], chart: Markup) -> list[Path]:
    paths = [make_folder(folder) / f"{name}.json", folder / f"{name}.svg"]
    write_json(paths[0], results)
    write_file(paths[1], chart)
    return paths
