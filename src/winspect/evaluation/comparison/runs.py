"""Figures of two runs side by side, and of a run beside published ones; and what must not be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from winspect.errors import SettingsError, UsageError
from winspect.evaluation.comparison.pictures import Pictures, look_at, matched
from winspect.evaluation.published import Table, different_conditions, entry_for, remarks
from winspect.evaluation.results import METRICS, Run
from winspect.methods.identity import brief, differences
from winspect.metrics import auroc

SAME_KEYS = ("dataset", "recipe", "recipe_settings", "prompts", "class", "class_names", "shots", "seeds")
"""What two runs must share to be compared, beside the pictures and references themselves."""

# The scores file holds every digit, so that the figure made from it again is the same up to summation.
_SAME_FIGURE = 1e-9
# Differences of decimal fractions are not exact in binary: 0.85 - 0.84 > 0.01.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Pair:
    """One figure in both runs, as fractions; None where it is undefined."""

    baseline: float | None
    other: float | None

    @property
    def difference(self) -> float | None:
        """Other minus baseline, or None when either is undefined."""
        return None if self.baseline is None or self.other is None else self.other - self.baseline

    def within(self, tolerance: float) -> bool:
        """Whether the figures differ by the tolerance at most, in either direction, or are both undefined."""
        if self.difference is None:
            return self.baseline is self.other
        return abs(self.difference) <= tolerance + _ROUNDING


@dataclass(frozen=True)
class Category:
    """One category in both runs. ``reasons`` say why it is not within the tolerance, and are empty when it is."""

    figures: Mapping[str, Pair]
    pictures: Pictures | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A run against its baseline.

    Attributes:
        baseline, other: file or table; ``how``: what judged in each.
        categories: name to what was found.
        mean: metric to both means; ``mean_reasons`` say why they are not within the tolerance, and are empty between
            two runs, whose categories decide.
        remarks: what to know of published figures.
        pictures: over all categories; None against published figures.
    """

    baseline: str
    other: str
    how: tuple[str, str]
    tolerance: float
    categories: Mapping[str, Category]
    mean: Mapping[str, Pair]
    pictures: Pictures | None
    mean_reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def within(self) -> bool:
        """Whether every category is within the tolerance, and every published mean."""
        return not self.mean_reasons and not any(category.reasons for category in self.categories.values())

    @property
    def worst(self) -> tuple[str, str, Pair] | None:
        """Category, metric and figures of the largest difference."""
        pairs = [
            (name, metric, pair)
            for name, category in self.categories.items()
            for metric, pair in category.figures.items()
            if pair.difference is not None
        ]
        return max(pairs, key=lambda found: abs(found[2].difference or 0), default=None)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        worst = self.worst and {"category": self.worst[0], "metric": self.worst[1], **_pair(self.worst[2])}
        return {
            "schema": 1,
            "baseline": self.baseline,
            "other": self.other,
            "how": list(self.how),
            "tolerance": self.tolerance,
            "within": self.within,
            "worst": worst,
            "categories": {
                name: {
                    "within": not category.reasons,
                    "reasons": list(category.reasons),
                    "figures": {metric: _pair(pair) for metric, pair in category.figures.items()},
                    "pictures": category.pictures and asdict(category.pictures),
                }
                for name, category in self.categories.items()
            },
            "mean": {metric: _pair(pair) for metric, pair in self.mean.items()},
            "mean_reasons": list(self.mean_reasons),
            "remarks": list(self.remarks),
            "pictures": self.pictures and asdict(self.pictures),
        }


def _pair(pair: Pair) -> dict[str, float | None]:
    return {"baseline": pair.baseline, "other": pair.other, "difference": pair.difference}


def compare_runs(baseline: Run, other: Run, *, tolerance: float = 0.01) -> Comparison:
    """Compare a run with its baseline.

    A category is within the tolerance when every figure is defined in both runs or in neither, the defined ones differ
    by no more than the tolerance, the same pictures were judged, and neither run has an alarm there.

    Args:
        tolerance: as a fraction, 0 to 1; 0.01 is one percentage point.

    Raises:
        SettingsError: the tolerance is out of range.
        UsageError: the runs differ in data, recipe, shots or references (says which), or have no figure in common.
    """
    _check_tolerance(tolerance)
    _refuse_different(baseline, other)
    both = {name: matched(baseline, other, name) for name in baseline.results["categories"]}
    categories = {}
    for name, pairs in both.items():
        own, others = baseline.results["categories"][name], other.results["categories"][name]
        figures = _figures(own, others)
        pictures = look_at([pairs])
        reasons = [
            f"{role}: alarm: {category['alarm']}"
            for role, category in (("baseline", own), ("other", others))
            if category.get("alarm")
        ]
        reasons += [
            f"{role}: {contradiction}"
            for role, run in (("baseline", baseline), ("other", other))
            if (contradiction := _contradiction(run, name)) is not None
        ]
        if pictures.failed_in_one:
            reasons.append(f"{pictures.failed_in_one} pictures were judged in one run only")
        categories[name] = Category(figures, pictures, (*reasons, *_beyond(figures, tolerance)))
    _refuse_nothing(categories)
    mean = _figures(baseline.results["mean"], other.results["mean"])
    every = look_at(list(both.values()))
    how = _judge(baseline), _judge(other)
    return Comparison(str(baseline.path), str(other.path), how, tolerance, categories, mean, every)


def _contradiction(run: Run, category: str) -> str | None:
    """How a category's image AUROC and the scores file beside it contradict each other, or None.

    A run with an alarm has no figure to hold its scores to.
    """
    recorded = run.results["categories"][category]["image_auroc"]
    judged = [score for score in run.scores if score.category == category and score.score is not None]
    by_seed = []
    for seed in sorted({score.seed for score in judged}):
        own = [score for score in judged if score.seed == seed]
        scores = np.array([score.score for score in own], np.float64)
        by_seed.append(auroc(scores, np.array([score.label == "anomalous" for score in own])))
    defined = [figure for figure in by_seed if figure is not None]
    if recorded is None or len(defined) != len(by_seed) or not defined:
        return None
    ours = sum(defined) / len(defined)
    if abs(ours - recorded) <= _SAME_FIGURE:
        return None
    return f"its scores give an image AUROC of {ours:.4f}, its results {recorded:.4f}: the two files differ in origin"


def compare_published(run: Run, table: Table, *, tolerance: float = 0.01) -> Comparison:
    """Compare a run with published figures, the baseline.

    Published means are compared as the categories are, if the run has all categories. Where the source gives no figures
    per category, the mean alone is compared, under the name ``mean``. Figures that the source does not give are left
    out.

    Raises:
        SettingsError: the tolerance is out of range.
        UsageError: the table was made with something else: model, weights, recipe, prompts, form of class names, data
            set, number of shots (says which), or there is no
            figure to compare: the mean needs the run to have all categories.
    """
    _check_tolerance(tolerance)
    different = different_conditions(table, run.results)
    entry = entry_for(table, run.results)
    if different or entry is None:
        raise UsageError(f"{run.path} cannot be compared with {table.name}: different {'; different '.join(different)}")
    ours = run.results["categories"]
    published = {name: figures for name, figures in entry.categories.items() if name in ours}
    is_whole = set(ours) == set(entry.categories) or not entry.categories
    mean = _given(entry.mean, run.results["mean"]) if is_whole else {}
    rows = {name: _given(figures, ours[name]) for name, figures in published.items()}
    mean_reasons = _beyond(mean, tolerance) if rows else []
    rows = rows or {"mean": mean}
    alarms = {name: category.get("alarm") for name, category in ours.items() if category.get("alarm")}
    categories = {
        name: Category(figures, None, (*_told(name, alarms), *_beyond(figures, tolerance)))
        for name, figures in rows.items()
    }
    _refuse_nothing(categories)
    how = f"{table.model}, {table.title}", _judge(run)
    said = tuple(remarks(table, entry, run.results))
    return Comparison(
        table.name, str(run.path), how, tolerance, categories, mean, None, tuple(mean_reasons), remarks=said
    )


def _judge(run: Run) -> str:
    return "{model}, {engine} {precision} on {device}".format_map(run.results)


def _told(name: str, alarms: Mapping[str, str]) -> Iterable[str]:
    return (f"alarm: {alarm}" for category, alarm in alarms.items() if name in (category, "mean"))


def _given(published: Mapping[str, float], ours: Mapping[str, Any]) -> dict[str, Pair]:
    return {metric: Pair(figure, ours.get(metric)) for metric, figure in published.items()}


def _figures(own: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Pair]:
    return {metric: Pair(own.get(metric), others.get(metric)) for metric in METRICS}


def _beyond(figures: Mapping[str, Pair], tolerance: float) -> list[str]:
    reasons = []
    for metric, pair in figures.items():
        if pair.within(tolerance):
            continue
        if pair.difference is None:
            reasons.append(f"{metric} is undefined in one run only")
        else:
            reasons.append(f"{metric} differs by {pair.difference:+.4f}")
    return reasons


def _check_tolerance(tolerance: float) -> None:
    if not (math.isfinite(tolerance) and 0 <= tolerance <= 1):
        raise SettingsError(f"tolerance: got {tolerance}, need a fraction from 0 to 1; 0.01 is one percentage point")


def _refuse_nothing(categories: Mapping[str, Category]) -> None:
    defined = any(pair.difference is not None for own in categories.values() for pair in own.figures.values())
    if not defined and not any(category.reasons for category in categories.values()):
        raise UsageError("no figure is defined in both: there is nothing to compare")


def _refuse_different(baseline: Run, other: Run) -> None:
    ours, theirs = ({key: run.results.get(key) for key in SAME_KEYS} for run in (baseline, other))
    found = [each.in_words("{name} ({first} and {second})", brief) for each in differences(ours, theirs)]
    ours, theirs = baseline.results["categories"], other.results["categories"]
    if sorted(ours) != sorted(theirs):
        found.append(f"categories ({', '.join(ours)} and {', '.join(theirs)})")
    elif not found:
        found += _different_pictures(baseline, other)
    if found:
        raise UsageError(f"{baseline.path} and {other.path} cannot be compared: different {'; different '.join(found)}")


def _different_pictures(baseline: Run, other: Run) -> list[str]:
    """Whether both runs judged the same pictures, with the same labels and references."""

    def told(run: Run) -> Counter[tuple[object, ...]]:
        return Counter((*score.key, score.label) for score in run.scores)

    one, two = told(baseline), told(other)
    extra = [*(one - two), *(two - one)]
    if extra:
        return [f"data ({len(extra)} pictures or labels, as {extra[0][2]} of {extra[0][1]})"]
    categories = [(name, other.results["categories"][name]) for name in baseline.results["categories"]]
    return [
        f"references (of {name})"
        for name, own in categories
        if own.get("references") != baseline.results["categories"][name].get("references")
    ]
