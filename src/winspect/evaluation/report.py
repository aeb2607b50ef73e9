"""HTML report of an evaluation: figures, curves, score histograms, and the pictures that went most wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.datasets import Dataset, Item
from winspect.errors import ReferencesError, SettingsError
from winspect.evaluation.confusion import confusion
from winspect.evaluation.gallery import Gallery, Viewer, choose, make_gallery, read_maps, score_again
from winspect.evaluation.published import matching_tables, remarks
from winspect.evaluation.recipes import shots_in_words
from winspect.evaluation.results import METRICS, TITLES, class_of, percent
from winspect.evaluation.run import read_part
from winspect.evaluation.shots import relative_name
from winspect.methods.batch_method import BatchMethod
from winspect.methods.winclip.prompts import class_key
from winspect.outputs.charts import curve_chart, histogram_chart
from winspect.outputs.pages import write_page
from winspect.pictures.fingerprints import fingerprint
from winspect.pictures.heatmaps import UNIT_RANGE

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.inspector.winclip import WinCLIP

REPORT_FILE = "report.html"
PICTURES_PER_LIST = 4
"""Of the worst misses and of the worst false alarms, in each category."""
_MOST_LISTED = 20
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
    """What an evaluation keeps of each category for its first seed; see :func:`winspect.evaluation.run.read_part`."""
    return {name: read_part(folder, name, results["seed"]) for name in results["categories"]}


def write_evaluation_report(
    folder: Path,
    results: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    dataset: Dataset,
    model: WinCLIP | None,
    *,
    calibrations: Iterable[Calibration] = (),
) -> Path:
    """Write ``report.html`` into the folder of an evaluation: one file that needs nothing else.

    Heat maps come from the raw maps where the evaluation wrote them, else from scoring the few pictures again.

    Args:
        results: what ``results.json`` holds.
        parts: category -> what was kept of it for the first seed; see :func:`read_parts`.
        dataset: that was evaluated.
        model: that made the results. None to show no heat maps but those on disk.
        calibrations: thresholds of classes, for the verdicts of their categories. One that was made with something else
            is not used, and the page says why.

    Raises:
        SettingsError: the model is not the one that made the results.
        OutputError: the file cannot be written.
    """
    if model is not None:
        _check_same_model(model, results)
    items = {relative_name(item.path, dataset.root): item for item in dataset.items}
    source = _Source(folder, items, model, results, {class_key(each.class_name): each for each in calibrations})
    shots = shots_in_words(results)
    return write_page(
        folder / REPORT_FILE,
        "evaluation.html",
        title=f"{results['dataset']}, {shots}: {results['model']}",
        results=results,
        shots=shots,
        seeds=results.get("seeds") or [results["seed"]],
        sections=[_section(name, category, parts[name], source) for name, category in results["categories"].items()],
        titles=TITLES,
        percent=percent,
        notes=_notes(results),
        no_reason=_NO_REASON,
        most=_MOST_LISTED,
        published=[(table, entry, remarks(table, entry, results)) for table, entry in matching_tables(results)],
    )


def _check_same_model(model: WinCLIP, results: Mapping[str, Any]) -> None:
    identity = model.identity()
    for name, got in (("weights_sha256", identity.weights_sha256), ("recipe", identity.recipe.name)):
        expected = results.get(name)
        if expected != got:
            raise SettingsError(f"got a model with {name} {got}, need that of the results, {expected}; evaluate again")


def _notes(results: Mapping[str, Any]) -> list[str]:
    """The reasons of all figures that are undefined, each once, in the order of the table."""
    rows = [(category, category.get("reasons") or {}) for category in results["categories"].values()]
    rows.append((results["mean"], results.get("mean_reasons") or {}))
    undefined = (reasons.get(name) for figures, reasons in rows for name in METRICS if figures[name] is None)
    return list(dict.fromkeys(reason or _NO_REASON for reason in undefined))


@dataclass(frozen=True)
class _Source:
    """Source of the pictures and maps of a report."""

    folder: Path
    items: Mapping[str, Item]
    model: WinCLIP | None
    results: Mapping[str, Any]
    calibrations: Mapping[str, Calibration]

    def calibration(self, category: str, references: Sequence[str]) -> tuple[Calibration | None, str | None]:
        """The calibration of a category, if it is that of these scores; and why it is not."""
        if not self.calibrations or self.model is None:
            return None, None
        class_name = class_of(self.results, category)
        calibration = self.calibrations.get(class_key(class_name))
        if calibration is None:
            return None, None
        try:
            samples = [fingerprint(self.items[path].path) for path in references if path in self.items]
            calibration.check(self.model.identity().of_class(class_name, samples))
        except SettingsError as error:
            return None, str(error)
        return calibration, None

    def viewer(self, category: str, references: Sequence[str], files: Mapping[Path, Path | None]) -> Viewer:
        """Raw maps where every picture has one, else the model."""
        if self.model is None or (files and all(files.values())):
            return read_maps(files)
        if isinstance(self.model.identity().recipe, BatchMethod):
            raise ReferencesError("scores of a batch are not made again for a few pictures; use --raw-maps")
        lost = [path for path in references if path not in self.items]
        if lost:
            raise ReferencesError(f"the data set no longer has the reference {lost[0]}")
        return score_again(self.model, class_of(self.results, category), [self.items[path].path for path in references])

    def gallery(self, category: str, part: Mapping[str, Any]) -> tuple[Gallery, str | None]:
        """The pictures of a category; and why they have no heat maps, where that is so."""
        lists = choose(part["rows"], PICTURES_PER_LIST)
        rows = [choice.row for choices in lists for choice in choices if choice.row["path"] in self.items]
        files = {self.items[row["path"]].path: self._raw_map(row) for row in rows}
        try:
            viewer = self.viewer(category, part["references"], files)
            # A folder of an earlier release does not say its scale.
            score_range = part.get("heat_range", UNIT_RANGE)
            return make_gallery(*lists, self.items, viewer, score_range and tuple(score_range)), None
        except ReferencesError as error:
            # The figures stand; what cannot be made again is the maps.
            return make_gallery(*lists, self.items, read_maps(dict.fromkeys(files))), f"no heat maps: {error}"

    def _raw_map(self, row: Mapping[str, Any]) -> Path | None:
        file = self.folder / Path(row["map"]).with_suffix(".npz") if row.get("map") else None
        return file if file is not None and file.is_file() else None


def _section(name: str, category: Mapping[str, Any], part: Mapping[str, Any], source: _Source) -> dict[str, Any]:
    """One category of the page. ``failures``: each picture once, whatever the seed, without this machine's path."""
    failed = {failure["path"]: failure["message"] for failure in category.get("failed") or ()}
    gallery, problem = source.gallery(name, part)
    calibration, misfit = source.calibration(name, part["references"])
    return {
        "name": name,
        "category": category,
        "part": part,
        "failures": [
            {"path": path, "message": message.partition(f"{path}: ")[2] or message} for path, message in failed.items()
        ],
        "charts": _together([*(_curve(part, *curve) for curve in _CURVES), _histogram(part)]),
        "confusion": confusion(part["rows"], calibration),
        "calibration_problem": misfit,
        "gallery": gallery,
        "gallery_problem": problem,
    }


def _curve(part: Mapping[str, Any], curve: str, metric: str, title: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A chart, or why there is none."""
    figure, points = part["figures"][metric], part["curves"].get(curve)
    if figure is None or points is None:
        return {"title": title, "svg": None, "reason": part["reasons"].get(metric, _NO_REASON)}
    return {"svg": curve_chart(points, title=f"{title}, area {percent(figure)} %", **options)}


def _together(charts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The charts, those that are missing for the same reason as one."""
    missing: dict[str, list[str]] = {}
    for chart in charts:
        if chart["svg"] is None:
            missing.setdefault(chart["reason"], []).append(chart["title"])
    drawn = [chart for chart in charts if chart["svg"] is not None]
    return [*drawn, *({"title": ", ".join(titles), "svg": None, "reason": why} for why, titles in missing.items())]


def _histogram(part: Mapping[str, Any]) -> dict[str, Any]:
    normal, defective = (
        [row["score"] for row in part["rows"] if row["label"] == label and row["score"] is not None]
        for label in ("normal", "anomalous")
    )
    if not normal and not defective:
        return {"title": "Scores", "svg": None, "reason": "no picture of this category was judged"}
    return {"svg": histogram_chart(normal, defective)}
