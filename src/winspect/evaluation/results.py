"""``results.json`` and the scores beside it: contents, assembly from categories, reading."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from winspect.errors import UsageError
from winspect.methods.identity import written_by
from winspect.system.opening import open_text, read_text
from winspect.system.terminal import cell, text_of_cell

SCHEMA = 1
RESULTS_FILE, SCORES_FILE, TIMING_FILE = "results.json", "scores.csv", "timing.json"
RECIPES_FILE = "recipes.json"
"""Of an evaluation of several recipes, each of which has its results in a folder of its name."""
TITLES = {
    "image_auroc": "image AUROC",
    "image_aupr": "image AUPR",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "pixel_aupro": "pixel AUPRO",
    "pixel_f1_max": "pixel F1-max",
}
"""Metrics, as people read them."""
METRICS = tuple(TITLES)
IMAGE_METRICS, PIXEL_METRICS = METRICS[:3], METRICS[3:]
SCORE_COLUMNS = ("path", "category", "label", "defect_type", "score", "seed", "map", "warning")

_KEYS = {
    **dict.fromkeys(("dataset", "recipe", "model", "engine", "precision", "device", "scores"), str),
    **dict.fromkeys(("shots", "seed"), int),
    **dict.fromkeys(("categories", "mean"), dict),
}

# Entries that a reader looks for, above the figures; the other settings, which are long, come below them.
_FIRST = ("dataset", "recipe", "model", "weights", "weights_sha256", "engine", "precision", "device", "shots", "seeds")


@dataclass(frozen=True)
class Score:
    """One picture of one run.

    Attributes:
        path: below the data set's root. ``label``: "normal" or "anomalous".
        score: more is more anomalous; None when the picture could not be scored.
    """

    path: str
    category: str
    label: str
    score: float | None
    seed: int

    @property
    def key(self) -> tuple[int, str, str]:
        """Key of the same picture in another run."""
        return self.seed, self.category, self.path


@dataclass(frozen=True)
class Run:
    """A results file that was read and checked.

    Attributes:
        path: of the file. ``results``: what it holds.
    """

    path: Path
    results: Mapping[str, Any]

    @cached_property
    def scores(self) -> list[Score]:
        """The per-image scores beside it, in the order of the file.

        Raises:
            UsageError: the file is missing or damaged.
        """
        path = self.path.parent / self.results["scores"]
        names = {cell(name): name for name in self.results["categories"]}
        try:
            with open_text(path, newline="") as file:
                return [_score(row, names) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: cannot read the scores ({error}); run winspect evaluate again") from error


def _score(row: dict[str, str], names: Mapping[str, str]) -> Score:
    score = float(row["score"]) if row["score"] else None
    category = names.get(row["category"], row["category"])
    return Score(text_of_cell(row["path"]), category, row["label"], score, int(row["seed"]))


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read the results of an evaluation.

    Args:
        path: a ``results.json``, or the folder it is in.

    Raises:
        UsageError: it is not there, not JSON, of another schema, or a key is missing or of the wrong kind.
    """
    file = Path(path) / RESULTS_FILE if Path(path).is_dir() else Path(path)
    try:
        results = json.loads(read_text(file))
    except FileNotFoundError as error:
        if (file.parent / RECIPES_FILE).is_file():
            each = ", ".join(str(found.parent) for found in sorted(file.parent.glob(f"*/{RESULTS_FILE}")))
            raise UsageError(f"{file.parent}: holds the results of several recipes; name one of {each}") from error
        raise UsageError(f"{file}: no such results; winspect evaluate --out writes them when it is done") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot read results ({error}); need the {RESULTS_FILE} of an evaluation") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        got = results.get("schema") if isinstance(results, dict) else type(results).__name__
        releases = written_by(results) if isinstance(results, dict) else ""
        raise UsageError(
            f"{file}: got results of schema {got!r}, need {SCHEMA}; evaluate again with this release{releases}"
        )
    for key, kind in _KEYS.items():
        if not isinstance(results.get(key), kind) or isinstance(results[key], bool):
            raise UsageError(f"{file}: {key} is {results.get(key)!r}, need {kind.__name__}; evaluate again")
    for name, figures in (*results["categories"].items(), ("mean", results["mean"])):
        _check_figures(f"{file}: {name}", figures)
    return Run(file, results)


def percent(fraction: float) -> str:
    """A fraction in percent, with two decimals, as published tables give it."""
    return f"{100 * fraction:.2f}"


def class_of(results: Mapping[str, Any], category: str) -> str:
    """A category's name in the prompts of a run."""
    return results.get("class") or (results.get("class_names") or {}).get(category, category)


def _check_figures(where: str, figures: object) -> None:
    if not isinstance(figures, dict):
        raise UsageError(f"{where}: got {figures!r}, need figures; evaluate again")
    for metric in METRICS:
        figure = figures.get(metric)
        is_number = isinstance(figure, int | float) and not isinstance(figure, bool)
        if figure is not None and not (is_number and math.isfinite(figure) and 0 <= figure <= 1):
            raise UsageError(f"{where}: {metric} is {figure!r}, need a fraction from 0 to 1 or null; evaluate again")


def assemble(
    settings: Mapping[str, Any], parts: Mapping[str, Sequence[Mapping[str, Any]]], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``results.json`` holds, from the parts of every category, one per seed.

    With several seeds a figure is the mean over seeds, ``std`` the sample standard deviation, and ``by_seed`` holds the
    figures themselves. A category's figure is null when any seed's is, the mean null when any category's is: a mean
    over fewer would pass for one over all.

    Args:
        machine: that scored; see :func:`winspect.system.machine.describe_machine`.
    """
    seeds = settings["seeds"]
    categories = {name: _category(dict(zip(seeds, of_seeds, strict=True))) for name, of_seeds in parts.items()}
    by_seed = [_means([of_seeds[number]["figures"] for of_seeds in parts.values()]) for number in range(len(seeds))]
    return {
        "schema": SCHEMA,
        **{key: settings[key] for key in _FIRST},
        "seed": seeds[0],
        "machine": dict(machine),
        "categories": categories,
        "mean": _means(by_seed),
        "mean_reasons": _mean_reasons(categories),
        "scores": SCORES_FILE,
        **{key: value for key, value in settings.items() if key not in _FIRST},
        **({"std": _deviations(by_seed)} if len(seeds) > 1 else {}),
    }


def _category(parts: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """One category, from what is kept of it for each seed."""
    first, *others = parts.values()
    figures = [part["figures"] for part in parts.values()]
    reasons: dict[str, str] = {}
    for part in (first, *others):
        reasons = part["reasons"] | reasons  # the first seed's reason stands
    category = {
        "n_normal": first["n_normal"],
        "n_anomalous": first["n_anomalous"],
        **_means(figures),
        "reasons": reasons,
        "alarm": next((part["alarm"] for part in parts.values() if part["alarm"]), None),
        "n_failed": len({failure["path"] for part in parts.values() for failure in part["failed"]}),
        "failed": [{**failure, "seed": seed} for seed, part in parts.items() for failure in part["failed"]],
        "copies": [{**copy, "seed": seed} for seed, part in parts.items() for copy in part.get("copies", ())],
        "n_warned": len({row["path"] for part in parts.values() for row in part["rows"] if row.get("warning")}),
        "mask_faults": next((part["mask_faults"] for part in parts.values() if part["mask_faults"]), []),
        "references": {str(seed): part["references"] for seed, part in parts.items()},
    }
    if others:
        category["std"] = _deviations(figures)
        category["by_seed"] = {str(seed): part["figures"] for seed, part in parts.items()}
    return category


def _means(several: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every metric; None where it is not known everywhere."""
    known = {metric: _known(several, metric) for metric in METRICS}
    return {metric: math.fsum(figures) / len(figures) if figures else None for metric, figures in known.items()}


def _deviations(several: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The sample standard deviation of every metric over two or more; None where it is not known everywhere."""
    known = {metric: _known(several, metric) for metric in METRICS}
    return {metric: statistics.stdev(figures) if figures else None for metric, figures in known.items()}


def _known(several: Sequence[Mapping[str, float | None]], metric: str) -> list[float]:
    """A metric's figures if all are known, else none."""
    known = [figure for figures in several if (figure := figures[metric]) is not None]
    return known if len(known) == len(several) else []


def _mean_reasons(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    undefined = {metric: [name for name in categories if categories[name][metric] is None] for metric in METRICS}
    return {metric: f"undefined for {', '.join(names)}" for metric, names in undefined.items() if names}


def score_rows(parts: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """The lines of the scores file: entries of `SCORE_COLUMNS`, and others."""
    for category, name_parts in parts.items():
        for seed, part in zip(seeds, name_parts, strict=True):
            yield from ({**row, "category": category, "seed": seed} for row in part["rows"])
