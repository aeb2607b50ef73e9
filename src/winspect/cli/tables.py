"""Figures as text: percent with two places; a dash is undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from winspect.cli.common import print_table, shown
from winspect.evaluation.recipes import shots_in_words, side_by_side
from winspect.evaluation.results import TITLES
from winspect.evaluation.results import percent as percent_of
from winspect.system.terminal import show

if TYPE_CHECKING:
    from winspect.evaluation.compare import Comparison, Pair

_MAIN = ("image_auroc", "pixel_auroc")


def percent(figure: float | None, deviation: float | None = None) -> str:
    """A fraction in percent.

    >>> percent(0.9576), percent(0.5, 0.012), percent(None)
    ('95.76', '50.00 ± 1.20', '-')
    """
    if figure is None:
        return "-"
    return percent_of(figure) + ("" if deviation is None else f" ± {percent_of(deviation)}")


def fraction(figure: float | None, *, signed: bool = False) -> str:
    """A fraction with four places; no minus before a zero.

    >>> fraction(-0.00001, signed=True), fraction(0.25, signed=True), fraction(None)
    ('0.0000', '+0.2500', '-')
    """
    if figure is None:
        return "-"
    rounded = round(figure, 4) or 0.0
    return f"{rounded:+.4f}" if signed and rounded else f"{rounded:.4f}"


def print_evaluation(results: Mapping[str, Any]) -> None:
    """Print the figures, and published ones beside them."""
    print_figures(results)
    print_published(results)


def print_figures(results: Mapping[str, Any]) -> None:
    """Print the table of categories and their mean, and why what is undefined is so."""
    seeds = results["seeds"]
    shots = shots_in_words(results)
    drawn = "" if not results["shots"] else f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    how = f"{results['model']}, recipe {results['recipe']}, {results['engine']} {results['precision']}"
    show(f"{results['dataset']}, {shots}{drawn}: {how} (percent{', mean ± deviation' * (len(seeds) > 1)})", "")
    rows = [["category", "normal", "defective", *TITLES.values()]]
    for name, category in results["categories"].items():
        rows.append([name, str(category["n_normal"]), str(category["n_anomalous"]), *_cells(category)])
    totals = [str(sum(c[key] for c in results["categories"].values())) for key in ("n_normal", "n_anomalous")]
    if len(results["categories"]) > 1:
        rows.append(["mean", *totals, *_cells({**results["mean"], "std": results.get("std", {})})])
    print_table(rows)
    print_reasons(results)


def print_recipes(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of several recipes below each other, category by category; then what is undefined, and why."""
    first = next(iter(results.values()))
    show(f"{first['dataset']}: {first['model']} (percent)", "")
    rows = [["category", "recipe", "", *TITLES.values()]]
    for name, recipe, figures in side_by_side(results):
        rows.append([name, recipe, shots_in_words(results[recipe]), *_cells(figures)])
    print_table(rows, left=(0, 1, 2))
    for recipe, each in results.items():
        print_reasons(each, f"{recipe}, ")


def print_reasons(results: Mapping[str, Any], name: str = "") -> None:
    """Print why what is undefined is so; ``name`` goes before each category's."""
    together: dict[tuple[str, str], list[str]] = {}
    for category, figures in results["categories"].items():
        for reason in dict.fromkeys(figures["reasons"].values()):
            metrics = [TITLES[metric] for metric, entry in figures["reasons"].items() if entry == reason]
            together.setdefault((", ".join(metrics), reason), []).append(f"{name}{category}")
    for (metrics_named, reason), categories in together.items():
        show(f"- {', '.join(categories)}: no {metrics_named}: {reason}")


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [percent(figures[metric], figures.get("std", {}).get(metric)) for metric in TITLES]


def print_published(results: Mapping[str, Any]) -> None:
    """Print published figures beside ours, for each table that was made the same way; nothing where there is none."""
    from winspect.evaluation.published import matching_tables, remarks

    for table, entry in matching_tables(results):
        sources = "; ".join(table.sources)
        show("", f"ours / published / difference (percent): {table.name}, {table.title} ({sources})", "")
        categories = results["categories"]
        rows = [(name, categories[name], entry.categories[name]) for name in categories if name in entry.categories]
        if not entry.categories or set(entry.categories) == set(categories):
            rows.append(("mean", results["mean"], entry.mean))
        metrics = [metric for metric in TITLES if any(metric in figures for _, _, figures in rows)]
        lines = [["category", *(TITLES[metric] for metric in metrics)]]
        lines += [
            [name, *(_beside(ours[metric], figures.get(metric)) for metric in metrics)] for name, ours, figures in rows
        ]
        print_table(lines)
        for remark in remarks(table, entry, results):
            show(f"note: {remark}")


def _beside(ours: float | None, published: float | None) -> str:
    if published is None:
        return percent(ours)
    difference = "-" if ours is None else f"{100 * (ours - published):+.2f}"
    return f"{percent(ours)} / {percent(published)} / {difference}"


def print_comparison(comparison: Comparison) -> None:
    """Print the categories of both runs, the worst of them, the pictures, and the verdict."""
    for role, where, how in zip(
        ("baseline", "other"), (comparison.baseline, comparison.other), comparison.how, strict=True
    ):
        show(f"{role}: {where} ({how})")
    print()
    heading = ["category"]
    for metric in _MAIN:
        heading += [TITLES[metric], "other", "difference"]
    rows = [[*heading, "largest score difference", "Spearman", "flips"]]
    for name, category in comparison.categories.items():
        rows.append([name, *_both(category.figures), *_picture_cells(category.pictures)])
    if len(comparison.categories) > 1:
        rows.append(["mean", *_both(comparison.mean), *_picture_cells(comparison.pictures)])
    print_table(rows)
    if comparison.worst is not None:
        name, metric, pair = comparison.worst
        change = f"{fraction(pair.baseline)} to {fraction(pair.other)}, {fraction(pair.difference, signed=True)}"
        label = "largest difference" if comparison.tolerance is None else "worst"
        show("", f"{label}: {name}, {TITLES[metric]}: {change}")
    for name, category in comparison.categories.items():
        for reason in category.reasons:
            show(f"- {name}: {reason}")
    for reason in comparison.mean_reasons:
        show(f"- mean: {reason}")
    for remark in comparison.remarks:
        show(f"note: {remark}")
    if comparison.tolerance is None:
        show("side by side, not judged: the runs were made differently; a gate (--tolerance) refuses that")
        return
    verdict = "every category is within" if comparison.within else "NOT every category is within"
    show(f"{verdict} {comparison.tolerance:g}")


def _both(figures: Mapping[str, Pair]) -> list[str]:
    cells = []
    for metric in _MAIN:
        pair = figures.get(metric)
        both = (None, None, None) if pair is None else (pair.baseline, pair.other, pair.difference)
        cells += [fraction(figure, signed=number == 2) for number, figure in enumerate(both)]
    return cells


def _picture_cells(pictures: Any) -> list[str]:
    if pictures is None:
        return ["-"] * 3
    return [fraction(pictures.largest_difference), fraction(pictures.spearman), shown(pictures.flips, "d")]
