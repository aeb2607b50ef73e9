"""A run beside its baseline: figures, and the scores of the same pictures; or a run beside published figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from winspect.errors import SettingsError, UsageError
from winspect.evaluation.compare_scores import (
    Pictures,
    common,
    contradiction,
    different_pictures,
    look_at,
    matched,
)
from winspect.evaluation.published import Table, different_conditions, entry_for, remarks
from winspect.evaluation.recipes import shots_in_words
from winspect.evaluation.results import METRICS, Run
from winspect.methods.identity import brief, differences

SAME_KEYS = ("dataset", "recipe", "recipe_settings", "prompts", "class", "class_names", "shots", "seeds")
"""Entries that two runs must share to be compared, beside the pictures and references themselves."""

# Differences of decimal fractions are not exact in binary: 0.85 - 0.84 > 0.01.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Pair:
    """One figure in both runs, as fractions; None where it is undefined."""

    baseline: float | None
    other: float | None
    difference: float | None = field(init=False)
    """Other minus baseline."""

    def __post_init__(self) -> None:
        difference = None if self.baseline is None or self.other is None else self.other - self.baseline
        object.__setattr__(self, "difference", difference)

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
        baseline, other: file or table; ``how``: model, engine, precision and device of each.
        categories: by name.
        mean: metric to both means; ``mean_reasons`` say why they are not within the tolerance, and are empty between
            two runs, whose categories decide.
        tolerance: None for two runs that are put side by side and not judged.
        remarks: what to know of published figures, or of two runs that were made differently.
        pictures: over all categories; None against published figures.

    Raises:
        SettingsError: the tolerance is out of range.
        UsageError: there is no figure to compare.
    """

    baseline: str
    other: str
    how: tuple[str, str]
    tolerance: float | None
    categories: Mapping[str, Category]
    mean: Mapping[str, Pair]
    pictures: Pictures | None
    mean_reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and 0 <= self.tolerance <= 1):
            got = f"tolerance: got {self.tolerance}"
            raise SettingsError(f"{got}, need a fraction from 0 to 1; 0.01 is one percentage point")
        if self.worst is None and self.within is not False:
            raise UsageError("no figure is defined in both: there is nothing to compare")

    @property
    def within(self) -> bool | None:
        """Whether every category is within the tolerance, and every published mean; None where nothing is judged."""
        if self.tolerance is None:
            return None
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
        found = asdict(self)
        for category in found["categories"].values():
            category["within"] = None if self.tolerance is None else not category["reasons"]
        name, metric, pair = self.worst or (None, None, None)
        worst = pair and {"category": name, "metric": metric, **asdict(pair)}
        return {"schema": 1, **found, "within": self.within, "worst": worst}


def compare_runs(baseline: Run, other: Run, *, tolerance: float = 0.01) -> Comparison:
    """Compare a run with its baseline.

    A category is within the tolerance when every figure is defined in both runs or in neither, the defined ones differ
    by no more than the tolerance, the same pictures were scored, and neither run has an alarm there.

    Args:
        tolerance: as a fraction, 0 to 1; 0.01 is one percentage point.

    Raises:
        SettingsError: the tolerance is out of range.
        UsageError: the runs differ in data, recipe, shots or references (says which), or have no figure in common.
    """
    if different := made_differently(baseline, other):
        words = "; different ".join(different)
        raise UsageError(f"{baseline.path} and {other.path} cannot be compared: different {words}")
    ours, theirs = baseline.results["categories"], other.results["categories"]
    runs = {"baseline": baseline, "other": other}
    both = {name: matched(baseline, other, name) for name in ours}
    categories = {}
    for name, pairs in both.items():
        figures, pictures = _pairs(ours[name], theirs[name]), look_at(pairs)
        alarms = {role: run.results["categories"][name].get("alarm") for role, run in runs.items()}
        reasons = [f"{role}: alarm: {alarm}" for role, alarm in alarms.items() if alarm]
        reasons += [f"{role}: {found}" for role, run in runs.items() if (found := contradiction(run, name)) is not None]
        if pictures.failed_in_one:
            reasons.append(f"{pictures.failed_in_one} pictures were judged in one run only")
        categories[name] = Category(figures, pictures, (*reasons, *_beyond(figures, tolerance)))
    return Comparison(
        str(baseline.path),
        str(other.path),
        (_how(baseline), _how(other)),
        tolerance,
        categories,
        _pairs(baseline.results["mean"], other.results["mean"]),
        look_at(list(chain.from_iterable(both.values()))),
    )


def side_by_side(baseline: Run, other: Run) -> Comparison:
    """Put two runs of the same pictures side by side, however they were made: zero-shot and few-shot, two recipes.

    Nothing is judged. Scores are compared of the pictures that both runs have, where a run has several seeds by their
    mean; figures are each run's, of all of its pictures.

    Raises:
        UsageError: the runs are of different data sets, or have no picture in common.
    """
    names = [name for name in baseline.results["categories"] if name in other.results["categories"]]
    both = {name: pairs for name in names if (pairs := common(baseline, other, name))}
    if not both or baseline.results["dataset"] != other.results["dataset"]:
        data = " and ".join(run.results["dataset"] for run in (baseline, other))
        raise UsageError(f"{baseline.path} and {other.path} have no pictures in common ({data}): nothing to compare")
    categories = {}
    for name, pairs in both.items():
        figures = {role: run.results["categories"][name] for role, run in (("baseline", baseline), ("other", other))}
        alarms = [f"{role}: alarm: {alarm}" for role, each in figures.items() if (alarm := each.get("alarm"))]
        categories[name] = Category(_pairs(*figures.values()), look_at(pairs), tuple(alarms))
    is_whole = set(both) == set(baseline.results["categories"]) == set(other.results["categories"])
    return Comparison(
        str(baseline.path),
        str(other.path),
        (_how_in_full(baseline), _how_in_full(other)),
        None,
        categories,
        _pairs(baseline.results["mean"], other.results["mean"]) if is_whole else {},
        look_at(list(chain.from_iterable(both.values()))),
        remarks=tuple(f"different {found}" for found in made_differently(baseline, other)),
    )


def compare_published(run: Run, table: Table, *, tolerance: float = 0.01) -> Comparison:
    """Compare a run with published figures, the baseline.

    Published means are compared as the categories are, if the run has all categories. Where the source gives no figures
    per category, the mean alone is compared, under the name ``mean``. Figures that the source does not give are left
    out.

    Raises:
        SettingsError: the tolerance is out of range.
        UsageError: the table was made with something else: model, weights, recipe, prompts, form of class names, data
            set, number of shots (says which), or there is no figure to compare: the mean needs the run to have all
            categories.
    """
    different = different_conditions(table, run.results)
    entry = entry_for(table, run.results)
    if different or entry is None:
        raise UsageError(f"{run.path} cannot be compared with {table.name}: different {'; different '.join(different)}")
    ours = run.results["categories"]
    is_whole = set(ours) == set(entry.categories) or not entry.categories
    mean = _pairs(entry.mean, run.results["mean"], entry.mean) if is_whole else {}
    rows = {name: _pairs(figures, ours[name], figures) for name, figures in entry.categories.items() if name in ours}
    mean_reasons = _beyond(mean, tolerance) if rows else []
    rows = rows or {"mean": mean}
    alarms = {name: category["alarm"] for name, category in ours.items() if category.get("alarm")}
    categories = {}
    for name, figures in rows.items():
        concerned = [f"alarm: {alarm}" for category, alarm in alarms.items() if name in (category, "mean")]
        categories[name] = Category(figures, None, (*concerned, *_beyond(figures, tolerance)))
    return Comparison(
        table.name,
        str(run.path),
        (f"{table.model}, {table.title}", _how(run)),
        tolerance,
        categories,
        mean,
        None,
        mean_reasons=tuple(mean_reasons),
        remarks=tuple(remarks(table, entry, run.results)),
    )


def _how(run: Run) -> str:
    return "{model}, {engine} {precision} on {device}".format_map(run.results)


def _how_in_full(run: Run) -> str:
    return f"{_how(run)}, recipe {run.results['recipe']}, {shots_in_words(run.results)}"


def _pairs(
    baseline: Mapping[str, float | None], other: Mapping[str, float | None], metrics: Iterable[str] = METRICS
) -> dict[str, Pair]:
    return {metric: Pair(baseline.get(metric), other.get(metric)) for metric in metrics}


def _beyond(figures: Mapping[str, Pair], tolerance: float) -> list[str]:
    how = {
        metric: "is undefined in one run only" if pair.difference is None else f"differs by {pair.difference:+.4f}"
        for metric, pair in figures.items()
        if not pair.within(tolerance)
    }
    return [f"{metric} {words}" for metric, words in how.items()]


def made_differently(baseline: Run, other: Run) -> list[str]:
    """In what two runs differ beside the model and its engine: data, recipe, shots, references. Empty: comparable."""
    ours, theirs = ({key: run.results.get(key) for key in SAME_KEYS} for run in (baseline, other))
    found = [each.in_words("{name} ({first} and {second})", brief) for each in differences(ours, theirs)]
    ours, theirs = baseline.results["categories"], other.results["categories"]
    if sorted(ours) != sorted(theirs):
        found.append(f"categories ({', '.join(ours)} and {', '.join(theirs)})")
    elif not found and (different := different_pictures(baseline, other)):
        found.append(different)
    return found
