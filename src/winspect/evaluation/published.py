"""Published figures, with their sources, and which of them a run may be put beside."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from winspect.errors import SettingsError
from winspect.evaluation.results import METRICS
from winspect.prompts import PromptEnsemble
from winspect.recipes import all_settings, get_recipe

PUBLISHED_FILE = Path(__file__).parents[1] / "published.json"

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """Published figures for one data set and number of shots, as fractions.

    Attributes:
        mean: metric to figure, over all categories.
        categories: category to metric to figure; empty where only means were published.
    """

    dataset: str
    shots: int
    mean: Figures
    categories: Mapping[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Figures from one source, all made with one model and recipe."""

    name: str
    title: str
    sources: tuple[str, ...]
    model: str
    recipe: str
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


def differences(table: Table, results: Mapping[str, Any]) -> list[str]:
    """What keeps a run from being put beside a table: nothing, or what differs and how."""
    found = []
    if results["model"] != table.model:
        found.append(f"model ({results['model']}, published {table.model})")
    if results["recipe"] != table.recipe:
        found.append(f"recipe ({results['recipe']}, published {table.recipe})")
    elif all_settings(results.get("recipe_settings") or {}) != all_settings(asdict(get_recipe(table.recipe))):
        found.append(f"settings of the recipe {table.recipe}")
    if results.get("prompts") != json.loads(json.dumps(asdict(PromptEnsemble()))):
        found.append("prompts")
    if results.get("class") is not None:
        found.append(f"class in the prompts ({results['class']}, published the category's name)")
    if results.get("class_names"):
        found.append("class names in the prompts (from a file, published the categories' names)")
    if table.entry(results["dataset"], results["shots"]) is None:
        known = ", ".join(f"{entry.dataset} {entry.shots}-shot" for entry in table.entries)
        found.append(f"data set and shots ({results['dataset']} {results['shots']}-shot, published {known})")
    return found


def matching_tables(results: Mapping[str, Any]) -> list[tuple[Table, Entry]]:
    """The tables made with the model, recipe, prompts, data set and shots of a run."""
    pairs = ((table, table.entry(results["dataset"], results["shots"])) for table in published_tables().values())
    return [(table, entry) for table, entry in pairs if entry is not None and not differences(table, results)]


def _table(name: str, table: Mapping[str, Any]) -> Table:
    entries = tuple(
        Entry(
            entry["dataset"],
            entry["shots"],
            _fractions(entry["mean"]),
            {category: _fractions(figures) for category, figures in entry.get("categories", {}).items()},
        )
        for entry in table["entries"]
    )
    return Table(name, table["title"], tuple(table["sources"]), table["model"], table["recipe"], entries)


def _fractions(percent: Mapping[str, float]) -> Figures:
    unknown = set(percent) - set(METRICS)
    if unknown:
        raise ValueError(f"{PUBLISHED_FILE}: unknown metrics {sorted(unknown)}")
    return {metric: round(figure / 100, 6) for metric, figure in percent.items()}
