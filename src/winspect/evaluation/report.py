"""HTML report of an evaluation: figures, curves, score histograms, and the pictures that went most wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        table=_table(results),
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


def _table(results: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of all categories in percent, with the published means of every table that may stand beside them.

    A cell has its ``figure`` and ``deviation`` over seeds; an undefined one the number of a note that gives the reason.
    """
    notes: list[str] = []

    def cell(figure: float | None, deviation: float | None, reason: str) -> dict[str, Any]:
        if figure is not None:
            return {"figure": percent(figure), "deviation": None if deviation is None else percent(deviation)}
        if reason not in notes:
            notes.append(reason)
        return {"figure": None, "note": notes.index(reason) + 1}

    def cells(figures: Mapping[str, Any], std: Mapping[str, Any], reasons: Mapping[str, str]) -> list[dict[str, Any]]:
        return [cell(figures[name], std.get(name), reasons.get(name) or _NO_REASON) for name in METRICS]

    rows = [
        {
            "name": name,
            "number": number,
            "n_normal": category["n_normal"],
            "n_anomalous": category["n_anomalous"],
            "n_failed": len(_unique_failures(category)),
            "alarm": category.get("alarm"),
            "cells": cells(category, category.get("std") or {}, category.get("reasons") or {}),
        }
        for number, (name, category) in enumerate(results["categories"].items(), start=1)
    ]
    mean = cells(results["mean"], results.get("std") or {}, results.get("mean_reasons") or {})
    published = matching_tables(results)
    return {
        "columns": list(TITLES.values()),
        "rows": rows,
        "mean": mean,
        "notes": notes,
        "published": [
            (table.title, [percent(entry.mean[name]) if name in entry.mean else "" for name in METRICS])
            for table, entry in published
        ],
        "remarks": [
            f"{table.title}: {remark}" for table, entry in published for remark in remarks(table, entry, results)
        ],
    }


def _unique_failures(category: Mapping[str, Any]) -> dict[str, str]:
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


def _section(
    number: int, name: str, category: Mapping[str, Any], part: Mapping[str, Any], source: _Source, pictures: int
) -> dict[str, Any]:
    """One category of the page. ``gallery_problem``: why its pictures have no heat maps."""
    gallery, problem = _gallery(name, part, source, pictures)
    failures, mask_faults = list(_unique_failures(category).items()), list(category.get("mask_faults") or ())
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


def _curve(part: Mapping[str, Any], curve: str, metric: str, title: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A chart, or why there is none."""
    figure, points = part["figures"][metric], part["curves"].get(curve)
    if figure is None or points is None:
        return {"title": title, "svg": None, "reason": part["reasons"].get(metric, _NO_REASON)}
    title = f"{title}, area {percent(figure)} %"
    return {"title": title, "svg": curve_chart(points, title=title, **options)}


def _histogram(part: Mapping[str, Any]) -> dict[str, Any]:
    scores: dict[str, list[float]] = {"normal": [], "anomalous": []}
    for row in part["rows"]:
        if row["score"] is not None and math.isfinite(row["score"]):
            scores[row["label"]].append(row["score"])
    if not any(scores.values()):
        return {"title": "Scores", "svg": None, "reason": "no picture of this category was judged"}
    return {"title": "Scores", "svg": histogram_chart(scores["normal"], scores["anomalous"])}
