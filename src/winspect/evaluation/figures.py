"""The table of an evaluation's figures, as a page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from winspect.evaluation.published import matching_tables, remarks
from winspect.evaluation.results import METRICS

_METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_aupr": "image AUPR",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "pixel_aupro": "pixel AUPRO",
    "pixel_f1_max": "pixel F1-max",
}


@dataclass(frozen=True)
class Cell:
    """A figure in percent, with its deviation over seeds; or why there is none, as the number of a note."""

    figure: str | None
    deviation: str | None = None
    note: int | None = None


@dataclass(frozen=True)
class Row:
    """One category. ``number`` is its section's; ``n_failed`` counts pictures, whatever the number of seeds."""

    name: str
    number: int
    n_normal: int
    n_anomalous: int
    n_failed: int
    alarm: str | None
    cells: list[Cell]


@dataclass
class Table:
    """The figures of all categories.

    Attributes:
        notes: reasons for what is undefined; the first is note 1.
        published: title of a published table and its means, where they may be compared.
        remarks: what to know of these.
    """

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    mean: list[Cell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    published: list[tuple[str, list[str]]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def cells(
        self, figures: Mapping[str, Any], deviations: Mapping[str, Any], reasons: Mapping[str, str]
    ) -> list[Cell]:
        return [self._cell(figures[metric], deviations.get(metric), reasons.get(metric)) for metric in METRICS]

    def _cell(self, figure: float | None, deviation: float | None, reason: str | None) -> Cell:
        if figure is not None:
            return Cell(percent(figure), None if deviation is None else percent(deviation))
        reason = reason or "no reason was recorded"
        if reason not in self.notes:
            self.notes.append(reason)
        return Cell(None, note=self.notes.index(reason) + 1)


def percent(fraction: float) -> str:
    """A fraction in percent, with two decimals, as published tables give it."""
    return f"{100 * fraction:.2f}"


def make_table(results: Mapping[str, Any]) -> Table:
    """The table of a run, with the published means of every table that it may be put beside."""
    table = Table([_METRIC_NAMES[metric] for metric in METRICS])
    for number, (name, category) in enumerate(results["categories"].items(), start=1):
        cells = table.cells(category, category.get("std") or {}, category.get("reasons") or {})
        counts = category["n_normal"], category["n_anomalous"], len(unique_failures(category))
        table.rows.append(Row(name, number, *counts, category.get("alarm"), cells))
    table.mean = table.cells(results["mean"], results.get("std") or {}, results.get("mean_reasons") or {})
    for published, entry in matching_tables(results):
        figures = [percent(entry.mean[metric]) if metric in entry.mean else "" for metric in METRICS]
        table.published.append((published.title, figures))
        table.remarks += [f"{published.title}: {remark}" for remark in remarks(published, entry, results)]
    return table


def unique_failures(category: Mapping[str, Any]) -> dict[str, str]:
    """Each picture that failed, whatever the seed: its path in the data set, and why, without this machine's path."""
    pairs = ((failure["path"], failure["message"]) for failure in category.get("failed") or ())
    return {path: message.partition(f"{path}: ")[2] or message for path, message in pairs}
