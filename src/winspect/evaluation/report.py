"""HTML report of an evaluation: figures, curves, score histograms, and the pictures that went most wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from winspect.datasets import Dataset, Item
from winspect.errors import OutputError, ReferencesError, SettingsError
from winspect.evaluation.gallery import Choice, Gallery, Viewer, choose, make_gallery, read_maps, score_again
from winspect.evaluation.published import matching_tables, remarks
from winspect.evaluation.results import METRICS, TITLES, class_of, percent
from winspect.evaluation.run import part_path
from winspect.evaluation.shots import relative_name
from winspect.outputs.charts import curve_chart, histogram_chart
from winspect.outputs.pages import write_page
from winspect.pictures.heatmaps import UNIT_RANGE
from winspect.system.opening import read_text

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

REPORT_FILE = "report.html"
PICTURES_PER_LIST = 4
"""Of the worst misses and of the worst false alarms, in each category."""
_MOST_FAILURES = 20
_NO_REASON = "no reason was recorded"
_RATES = {"x_label": "false positive rate", "y_label": "true positive rate", "chance": True}
_CURVES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("image_roc", "image_auroc", "Image ROC", _RATES),
    ("pixel_roc", "pixel_auroc", "Pixel ROC", _RATES),
    (
        "pro",
        "pixel_aupro",
        "PRO to FPR 0.3",
        {"x_label": "false positive rate", "y_label": "per-region overlap", "x_max": 0.3},
    ),
)
"""Curve, the metric that is the area under it, title, and options of its chart."""


def read_parts(folder: Path, results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an evaluation keeps of each category for its first seed: rows, curves, figures.

    Raises:
        OutputError: a category's file is not there or cannot be read.
    """
    parts = {}
    for name in results["categories"]:
        path = part_path(folder, name, results["seed"])
        try:
            parts[name] = json.loads(read_text(path))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); evaluate again") from error
    return parts


def write_evaluation_report(
    folder: Path,
    results: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    dataset: Dataset,
    model: WinCLIP | None,
    *,
    pictures: int = PICTURES_PER_LIST,
) -> Path:
    """Write ``report.html`` into the folder of an evaluation: one file that needs nothing else.

    Heat maps come from the raw maps where the evaluation wrote them, else from scoring the few pictures again.

    Args:
        results: what ``results.json`` holds.
        parts: category -> what was kept of it for the first seed; see :func:`read_parts`.
        dataset: that was evaluated.
        model: that made the results. None to show no heat maps but those on disk.
        pictures: in each of the two lists of a category, at most.

    Raises:
        SettingsError: the model is not the one that made the results.
        OutputError: the file cannot be written.
    """
    if model is not None:
        _check_same_model(model, results)
    items = {relative_name(item.path, dataset.root): item for item in dataset.items}
    source = _Source(folder, items, model, results)
    seeds = _seeds(results)
    sections = [
        _section(number, name, category, parts[name], source, pictures)
        for number, (name, category) in enumerate(results["categories"].items(), start=1)
    ]
    return write_page(
        folder / REPORT_FILE,
        "evaluation.html",
        title=f"{results['dataset']}, {_shots_text(results)}: {results['model']}",
        settings=_settings(results),
        table=make_table(results),
        sections=sections,
        seed=results["seed"] if len(seeds) > 1 else None,
        several_seeds=seeds if len(seeds) > 1 else None,
    )


def _check_same_model(model: WinCLIP, results: Mapping[str, Any]) -> None:
    identity = model.identity()
    for name, got in (("weights_sha256", identity.weights_sha256), ("recipe", identity.recipe.name)):
        expected = results.get(name)
        if expected != got:
            raise SettingsError(f"got a model with {name} {got}, need that of the results, {expected}; evaluate again")


def _seeds(results: Mapping[str, Any]) -> list[int]:
    return list(results.get("seeds") or [results["seed"]])


def _shots_text(results: Mapping[str, Any]) -> str:
    return f"{results['shots']}-shot" if results["shots"] else "zero-shot"


def _settings(results: Mapping[str, Any]) -> dict[str, str]:
    """What was run, in words; in the order shown."""
    data, machine = results.get("data") or {}, results.get("machine") or {}
    weights = ", ".join(str(results[key]) for key in ("weights", "weights_sha256") if results.get(key))
    recipe = ", ".join(
        f"{name} {_plain(value)}" for name, value in (results.get("recipe_settings") or {}).items() if name != "name"
    )
    names = "; ".join(f"{category}: {name}" for category, name in (results.get("class_names") or {}).items())
    side, grid = results.get("pixel_side"), results.get("pixel_grid", "published")
    texts = {
        "Data set": results["dataset"] + (f", {data['pictures']} pictures, sha256 {data['sha256']}" if data else ""),
        "Model": results["model"],
        "Weights": weights,
        "Recipe": results["recipe"] + (f" ({recipe})" if recipe else ""),
        "Class in prompts": results.get("class") or names or "each category's name",
        "Shots": _shots_text(results),
        "Seeds": ", ".join(map(str, _seeds(results))) if results["shots"] else "",
        "Precision": f"{results['precision']} on {results['device']}, engine {results['engine']}",
        "Machine": ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None),
        "Pixel figures": f"{side}x{side}, grid {grid}" if side else "",
        "Release": f"winspect {results['winspect']}" if results.get("winspect") else "",
    }
    return {name: text for name, text in texts.items() if text}


def _plain(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@dataclass(frozen=True)
class Cell:
    """A figure in percent, with its deviation over seeds; or why there is none, as the number of a note."""

    figure: str | None
    deviation: str | None = None
    note: int | None = None


@dataclass(frozen=True)
class Row:
    """A category. ``number`` is its section's; ``n_failed`` counts pictures, whatever the number of seeds."""

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
        reason = reason or _NO_REASON
        if reason not in self.notes:
            self.notes.append(reason)
        return Cell(None, note=self.notes.index(reason) + 1)


def make_table(results: Mapping[str, Any]) -> Table:
    """The table of a run, with the published means of every table that it may be put beside."""
    table = Table(list(TITLES.values()))
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


@dataclass(frozen=True)
class _Source:
    """Source of a category's pictures and maps."""

    folder: Path
    items: Mapping[str, Item]
    model: WinCLIP | None
    results: Mapping[str, Any]

    def viewer(self, category: str, references: Sequence[str], choices: Sequence[Choice]) -> Viewer:
        """Raw maps where every picture has one, else the model."""
        files = {}
        for choice in choices:
            item = self.items.get(choice.row["path"])
            if item is not None:
                files[item.path] = self._raw_map(choice.row)
        if self.model is None or (files and all(files.values())):
            return read_maps(files)
        lost = [path for path in references if path not in self.items]
        if lost:
            raise ReferencesError(f"the data set no longer has the reference {lost[0]}")
        return score_again(self.model, class_of(self.results, category), [self.items[path].path for path in references])

    def _raw_map(self, row: Mapping[str, Any]) -> Path | None:
        file = self.folder / Path(row["map"]).with_suffix(".npz") if row.get("map") else None
        return file if file is not None and file.is_file() else None


@dataclass(frozen=True)
class Chart:
    """A chart, or why there is none."""

    title: str
    svg: Markup | None
    reason: str = ""


def _section(
    number: int,
    name: str,
    category: Mapping[str, Any],
    part: Mapping[str, Any],
    source: _Source,
    pictures: int,
) -> dict[str, Any]:
    """One category of the page. ``gallery_problem``: why its pictures have no heat maps."""
    gallery, problem = _gallery(name, part, source, pictures)
    failures, mask_faults = list(unique_failures(category).items()), list(category.get("mask_faults") or ())
    return {
        "name": name,
        "number": number,
        "counts": f"{category['n_normal']} normal and {category['n_anomalous']} defective pictures",
        "alarm": category.get("alarm"),
        "references": list(part["references"]),
        "failures": failures[:_MOST_FAILURES],
        "more_failures": len(failures[_MOST_FAILURES:]),
        "copies": list(part.get("copies") or ()),
        "mask_faults": mask_faults[:_MOST_FAILURES],
        "more_mask_faults": len(mask_faults[_MOST_FAILURES:]),
        "charts": [*(_curve(part, *curve) for curve in _CURVES), _histogram(part)],
        "gallery": gallery,
        "gallery_problem": problem,
    }


def _gallery(name: str, part: Mapping[str, Any], source: _Source, pictures: int) -> tuple[Gallery, str | None]:
    misses, false_alarms = choose(part["rows"], pictures)
    chosen = [*misses, *false_alarms]
    try:
        viewer = source.viewer(name, part["references"], chosen)
        # A folder of an earlier release does not say its scale.
        score_range = tuple(part.get("heat_range") or UNIT_RANGE)
        return make_gallery(misses, false_alarms, source.items, viewer, score_range), None
    except ReferencesError as error:
        # The figures stand; what cannot be made again is the maps.
        paths = [source.items[choice.row["path"]].path for choice in chosen if choice.row["path"] in source.items]
        gallery = make_gallery(misses, false_alarms, source.items, read_maps(dict.fromkeys(paths)))
        return gallery, f"no heat maps: {error}"


def _curve(part: Mapping[str, Any], curve: str, metric: str, title: str, options: Mapping[str, Any]) -> Chart:
    figure, points = part["figures"][metric], part["curves"].get(curve)
    if figure is None or points is None:
        return Chart(title, None, part["reasons"].get(metric, _NO_REASON))
    title = f"{title}, area {percent(figure)} %"
    return Chart(title, curve_chart(points, title=title, **options))


def _histogram(part: Mapping[str, Any]) -> Chart:
    scores: dict[str, list[float]] = {"normal": [], "anomalous": []}
    for row in part["rows"]:
        if row["score"] is not None and math.isfinite(row["score"]):
            scores[row["label"]].append(row["score"])
    if not any(scores.values()):
        return Chart("Scores", None, "no picture of this category was judged")
    return Chart("Scores", histogram_chart(scores["normal"], scores["anomalous"]))
