"""Published figures, with their sources, and which of them a run may be put beside."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from winspect.datasets.official import OFFICIAL
from winspect.errors import SettingsError
from winspect.evaluation.results import PIXEL_METRICS
from winspect.methods.registry import all_settings, get_method
from winspect.methods.winclip.prompts import PROMPT_SETS

PUBLISHED_FILE = Path(__file__).with_name("published.json")

OUR_AUPR = "average precision"
"""Definition of AUPR here: the sum of precision over the steps of recall. The trapezoid joins them by lines."""

Figures = Mapping[str, float]

_NO_CONDITIONS = ("underscores", "keep", "limit_gb", "seed", "strict")


@dataclass(frozen=True)
class Entry:
    """Published figures for one data set and number of shots, as fractions.

    Attributes:
        mean: metric to figure, over all categories.
        categories: category to metric to figure; empty where only means were published.
        settings: of the recipe, where they are not its defaults.
        not_comparable: why no run of this project is made as these were; empty where one can be.
    """

    dataset: str
    shots: int
    mean: Figures
    categories: Mapping[str, Figures] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    not_comparable: str = ""


@dataclass(frozen=True)
class Conditions:
    """Conditions of figures, beside model and recipe. None is what the source does not say.

    Attributes:
        prompts: name of a set of prompts, see :data:`winspect.methods.winclip.prompts.PROMPT_SETS`; None for a recipe
            that reads no text.
        underscores: of class names in the prompts, see :class:`winspect.methods.winclip.recipes.Recipe`.
        weights: pretrained tag; ``sha256_prefix``: of its file, None where no one states it: the tag decides then.
        pixel_side: side of the square that pixel figures were made at.
        masks: how masks came to that size.
        aupr: definition of the area under the precision-recall curve.
        shots: how references were drawn.
        aupro: what its AUPRO differs in.
    """

    prompts: str | None
    underscores: str | None
    weights: str
    sha256_prefix: str | None
    pixel_side: int | None
    masks: str | None
    aupr: str | None
    shots: str | None
    aupro: str | None = None


@dataclass(frozen=True)
class Table:
    """Figures from one source, all made with one model and recipe, under the same conditions."""

    name: str
    title: str
    sources: tuple[str, ...]
    model: str
    recipe: str
    conditions: Conditions
    entries: tuple[Entry, ...]

    def entry(self, dataset: str, shots: int) -> Entry | None:
        """The figures for a data set and number of shots, if there are any."""
        return next((entry for entry in self.entries if (entry.dataset, entry.shots) == (dataset, shots)), None)


@functools.cache
def published_tables() -> Mapping[str, Table]:
    """All tables by name."""
    published = json.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return {name: _table(name, table) for name, table in published["tables"].items()}


def get_table(name: str) -> Table:
    """A table by name.

    Raises:
        SettingsError: there is none of that name; says which there are.
    """
    tables = published_tables()
    if name not in tables:
        known = ", ".join(f"{table.name} ({table.title})" for table in tables.values())
        raise SettingsError(f"got the published table {name!r}, need one of {known}")
    return tables[name]


def different_conditions(table: Table, results: Mapping[str, Any]) -> list[str]:
    """What keeps a run from being put beside a table: nothing, or what differs and how."""
    conditions, found = table.conditions, []
    entry = table.entry(results["dataset"], results["shots"])
    if results["model"] != table.model:
        found.append(f"model ({results['model']}, published {table.model})")
    if results["recipe"] != table.recipe:
        found.append(f"recipe ({results['recipe']}, published {table.recipe})")
    else:
        found += _different_settings(table, entry, results)
    found += _different_weights(conditions, results)
    if conditions.prompts is not None:
        found += _different_prompts(conditions.prompts, results)
    if entry is None:
        known = ", ".join(f"{entry.dataset} {entry.shots}-shot" for entry in table.entries)
        found.append(f"data set and shots ({results['dataset']} {results['shots']}-shot, published {known})")
    else:
        found += _only_means(entry, results)
    return found


def _only_means(entry: Entry, results: Mapping[str, Any]) -> list[str]:
    """What keeps a run from being put beside means of all categories."""
    if entry.not_comparable:
        return [entry.not_comparable]
    missing = OFFICIAL.get(entry.dataset, {}).keys() - results.get("categories", {}).keys()
    if entry.categories or not missing:
        return []
    return [f"categories (means alone were published, and the run lacks {', '.join(sorted(missing))})"]


def _different_weights(conditions: Conditions, results: Mapping[str, Any]) -> list[str]:
    sha256, prefix = str(results.get("weights_sha256")), conditions.sha256_prefix
    ours = f"{results.get('weights')}, {sha256[:8]}..."
    if prefix is None:
        same, theirs = results.get("weights") == conditions.weights, f"the tag {conditions.weights}"
    else:
        same, theirs = sha256.startswith(prefix), f"{conditions.weights}, {prefix}..."
    return [] if same else [f"weights ({ours}, published {theirs})"]


def _different_prompts(name: str, results: Mapping[str, Any]) -> list[str]:
    found = []
    if _unordered(results.get("prompts")) != _unordered(asdict(PROMPT_SETS[name])):
        found.append(f"prompts (published --prompts {name})")
    if results.get("class") is not None:
        found.append(f"class in the prompts ({results['class']}, published the category's name)")
    if results.get("class_names"):
        found.append("class names in the prompts (from a file, published the categories' names)")
    return found


def _different_settings(table: Table, entry: Entry | None, results: Mapping[str, Any]) -> list[str]:
    published_settings = {} if entry is None else entry.settings
    ours = all_settings(results.get("recipe_settings") or {})
    theirs = all_settings(get_method(table.recipe, published_settings).document())
    form, published = ours.get("underscores"), table.conditions.underscores
    ours, theirs = (_that_matter(settings) for settings in (ours, theirs))
    matters = published is not None and any("_" in name for name in results.get("categories", ()))
    named = f"underscores of class names ({form}, published --set underscores={published})"
    found = [named] if matters and form != published else []
    if ours == theirs:
        return found
    changed = "".join(f", published --set {name}={json.dumps(value)}" for name, value in published_settings.items())
    return [f"settings of the recipe {table.recipe}{changed}", *found]


def _that_matter(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that figures depend on and a source states: memory is not one, nor is a draw."""
    return {name: value for name, value in settings.items() if name not in _NO_CONDITIONS}


def _unordered(prompts: object) -> object:
    """Prompts are averaged: their order decides nothing."""
    return {name: sorted(texts) for name, texts in prompts.items()} if isinstance(prompts, Mapping) else prompts


def remarks(table: Table, entry: Entry, results: Mapping[str, Any]) -> list[str]:
    """What to know of published figures that a run stands beside: definitions and conditions that are not its own."""
    conditions, metrics = table.conditions, {*entry.mean}.union(*entry.categories.values())
    found = []
    if metrics & {"image_aupr", "pixel_aupr"} and conditions.aupr != OUR_AUPR:
        theirs = conditions.aupr or "not said there, and may be the trapezoid, 0.1 to 0.2 points lower"
        found.append(f"AUPR: ours is {OUR_AUPR}; theirs: {theirs}")
    if "pixel_aupro" in metrics and conditions.aupro:
        found.append(f"AUPRO: ours is exact; theirs: {conditions.aupro}")
    if metrics & {*PIXEL_METRICS}:
        side = f"{conditions.pixel_side}x{conditions.pixel_side}" if conditions.pixel_side else "not said there"
        ours = (
            f"{results.get('pixel_side')}x{results.get('pixel_side')}, masks {results.get('pixel_grid', 'published')}"
        )
        found.append(f"pixel figures: ours at {ours}; theirs: {side}, masks {conditions.masks or 'not said there'}")
    elif not _pixel_side_fits(table, results):
        sides = f"ours are at {results['pixel_side']} pixels a side, theirs at {conditions.pixel_side}"
        found.append(f"pixel figures are left out: {sides}")
    if entry.shots and conditions.shots:
        found.append(f"references: theirs: {conditions.shots}")
    return found


def matching_tables(results: Mapping[str, Any]) -> list[tuple[Table, Entry]]:
    """The tables made with the model, weights, recipe, prompts, data set and shots of a run."""
    pairs = ((table, entry_for(table, results)) for table in published_tables().values())
    return [(table, entry) for table, entry in pairs if entry is not None and not different_conditions(table, results)]


def entry_for(table: Table, results: Mapping[str, Any]) -> Entry | None:
    """The figures that a run may stand beside: without pixel figures where these were made at another size."""
    entry = table.entry(results["dataset"], results["shots"])
    if entry is None or _pixel_side_fits(table, results):
        return entry
    mean, *others = (
        {metric: figure for metric, figure in figures.items() if metric not in PIXEL_METRICS}
        for figures in (entry.mean, *entry.categories.values())
    )
    return replace(entry, mean=mean, categories=dict(zip(entry.categories, others, strict=True)))


def _pixel_side_fits(table: Table, results: Mapping[str, Any]) -> bool:
    theirs, ours = table.conditions.pixel_side, results.get("pixel_side")
    return theirs is None or ours is None or theirs == ours


def _table(name: str, table: Mapping[str, Any]) -> Table:
    entries = tuple(
        Entry(
            entry["dataset"],
            entry["shots"],
            _fractions(entry["mean"]),
            {category: _fractions(figures) for category, figures in entry.get("categories", {}).items()},
            entry.get("settings", {}),
            entry.get("not_comparable", ""),
        )
        for entry in table["entries"]
    )
    stated = {"sources": tuple(table["sources"]), "conditions": Conditions(**table["conditions"]), "entries": entries}
    return Table(name, **{**table, **stated})


def _fractions(percent: Mapping[str, float]) -> Figures:
    return {metric: round(figure / 100, 6) for metric, figure in percent.items()}
