"""A whole evaluation: category after category, each kept as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.datasets import Dataset
from winspect.errors import OutputError, SettingsError
from winspect.evaluation.category import Described, Keep, Part, PartScorer, part_stem, score_part
from winspect.evaluation.class_names import names_for
from winspect.evaluation.pixels import GRIDS, named_faults
from winspect.evaluation.recipes import check_shots
from winspect.evaluation.results import (
    RESULTS_FILE,
    SCHEMA,
    SCORE_COLUMNS,
    SCORES_FILE,
    TIMING_FILE,
    assemble,
    score_rows,
)
from winspect.evaluation.shots import draw, relative_name
from winspect.methods.identity import brief, differences
from winspect.methods.winclip.prompts import check_class_name
from winspect.outputs.maps import MapFiles
from winspect.outputs.rows import write_table
from winspect.system.files import make_folder, write_json
from winspect.system.machine import describe_machine
from winspect.system.opening import read_text
from winspect.system.run_folder import begin, locked, read_identity
from winspect.weights.cache import hash_file

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

logger = logging.getLogger(__name__)

SETTINGS_FILE, PARTS_FOLDER = "evaluation.json", "categories"


def evaluate(
    model: WinCLIP | PartScorer,
    dataset: Dataset,
    out: str | os.PathLike[str],
    *,
    class_name: str | None = None,
    class_names: Mapping[str, str] | None = None,
    shots: int = 0,
    seeds: Sequence[int] = (0,),
    pixel_grid: str = GRIDS[0],
    overlays: bool = False,
    raw_maps: bool = False,
    stretch: bool = False,
    fresh: bool = False,
    progress: bool = False,
    report: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Score a data set and write ``results.json``, ``scores.csv`` and ``timing.json``.

    Memory holds the scores and small maps of one category. Each category is written as it is done, and the same call
    goes on behind those that are there; what it writes is then, byte for byte, what an uninterrupted run writes.

    Args:
        model: references that it was shown are dropped. Or a cluster: see
            :func:`winspect.cluster.evaluating.cluster_model`.
        dataset: opened with the categories to evaluate.
        out: folder for the results.
        class_name: for the prompts, in place of the category's name; for a data set of one category only.
        class_names: category -> name for the prompts, as :func:`winspect.evaluation.class_names.read_class_names`
            gives it; categories that it does not name keep theirs.
        shots: reference pictures per category; 0 for zero-shot. See :func:`winspect.evaluation.shots.draw`.
        seeds: of the draws; several give means and standard deviations. Zero-shot draws nothing: its seed is 0.
        pixel_grid: ``regions`` (masks keep every region, and are checked) or ``published`` (masks as published code
            takes them); see :class:`winspect.evaluation.pixels.PixelTruth`.
        overlays, raw_maps: also write heat maps over the pictures (.png), and float maps (.npz).
        stretch: the colours of heat maps to each picture; else one scale for a category.
        fresh: start again, whatever is in ``out``.
        progress: a bar on stderr.
        report: called with the results while no other run can write to ``out``.

    Returns:
        What ``results.json`` holds.

    Raises:
        SettingsError: a setting is out of range, or the model's method takes no good samples, and there are shots.
        ReferencesError: a category has fewer normal pictures than ``shots``; or the method needs good samples.
        ClassNameError: a category's name cannot be put into a prompt.
        OutputError: ``out`` cannot be written, holds an evaluation with other settings (says which), or another run is
            writing there.
    """
    named = names_for(dataset.categories, class_names)
    _check(dataset, class_name, named, shots, seeds)
    if pixel_grid not in GRIDS:
        raise SettingsError(f"got the pixel grid {pixel_grid!r}, need one of {', '.join(GRIDS)}")
    seeds = list(seeds) if shots else [0]
    maps = MapFiles(Path(out), overlays=overlays, raw_maps=raw_maps)
    parts = [
        Part(
            root=dataset.root,
            category=name,
            seed=seed,
            drawn=draw(dataset, name, shots=shots, seed=seed),
            class_name=class_name or named.get(name, name),
            maps=maps,
            stretch=stretch,
            pixel_grid=pixel_grid,
        )
        for name in dataset.categories
        for seed in seeds
    ]
    asked = {"class": class_name, "class_names": named or None, "shots": shots, "seeds": seeds}
    asked |= {"pixel_grid": pixel_grid, "overlays": overlays, "raw_maps": raw_maps}
    with locked(Path(out)) as folder:
        results = _evaluate(model, dataset, parts, PartFiles(folder, fresh=fresh), asked, progress=progress)
        if report is not None:
            report(results)
    return results


def _evaluate(
    model: WinCLIP | PartScorer,
    dataset: Dataset,
    parts: Sequence[Part],
    files: PartFiles,
    asked: Mapping[str, Any],
    *,
    progress: bool,
) -> dict[str, Any]:
    """Score the parts that are not done, in a folder that nobody else writes."""
    left = [part for part in parts if not files.is_done(part.category, part.seed)]
    scorer = model if isinstance(model, PartScorer) else _Local(model)
    described = scorer.prepare(left)
    check_shots(described.identity.recipe, asked["shots"])
    document = described.identity.document()
    settings = {
        **document,
        # The recipe's name stands apart from its settings.
        "recipe": document["recipe"]["name"],
        "recipe_settings": document["recipe"],
        "dataset": dataset.name,
        "data": {"pictures": len(dataset.items), "sha256": fingerprint(dataset), "references": _hash(parts)},
        **asked,
        "pixel_side": described.side,
    }
    files.begin(settings, list(dataset.categories))

    def keep(part: Part, figures: Mapping[str, Any]) -> None:
        if figures["alarm"]:
            logger.warning("ALARM: %s: %s", part.category, figures["alarm"])
        if figures["mask_faults"]:
            count, named = len(figures["mask_faults"]), named_faults(figures["mask_faults"])
            logger.info("%s: %d masks with a fault: %s", part.category, count, named)
        files.write(part.category, part.seed, figures)

    from tqdm import tqdm

    total, to_do = (sum(len(part.drawn.tested) for part in some) for some in (parts, left))
    shown = None if progress else True  # None: no bar where stderr is not a terminal
    with tqdm(total=total, initial=total - to_do, unit="picture", file=sys.stderr, leave=False, disable=shown) as bar:
        scorer.score(keep, bar.update)
    return files.finish(described.machine)


class _Local(PartScorer):
    """Scores with a model in this process, part after part."""

    def __init__(self, model: WinCLIP) -> None:
        self.model = model

    def prepare(self, parts: Sequence[Part]) -> Described:
        self.parts, identity = parts, self.model.identity()
        return Described(identity, self.model.preprocess.size, describe_machine(identity.device))

    def score(self, keep: Keep, advance: Callable[[], object]) -> None:
        for part in self.parts:
            keep(part, score_part(self.model, part, advance))


def _check(
    dataset: Dataset, class_name: str | None, class_names: Mapping[str, str], shots: int, seeds: Sequence[int]
) -> None:
    if shots < 0:
        raise SettingsError(f"shots: got {shots}, need a whole number from 0")
    if not seeds or len(set(seeds)) != len(seeds):
        raise SettingsError(f"seeds: got {list(seeds)}, need one or several different whole numbers")
    if len(seeds) > 1 and not shots:
        raise SettingsError(f"got {len(seeds)} seeds for zero-shot, which draws nothing; give one seed, or some shots")
    if class_name is not None and len(dataset.categories) != 1:
        raise SettingsError(
            f"got the class {class_name!r} for {len(dataset.categories)} categories; need one category: "
            f"{', '.join(dataset.categories)}"
        )
    if class_name is not None and class_names:
        raise SettingsError(f"got the class {class_name!r} and a file of class names: give one of them")
    for name in dataset.categories:
        check_class_name(class_name or class_names.get(name, name))


def part_path(folder: Path, category: str, seed: int) -> Path:
    """Where an evaluation in a folder keeps one category for one seed."""
    return folder / PARTS_FOLDER / f"{part_stem(category, seed)}.json"


def read_part(folder: Path, category: str, seed: int) -> dict[str, Any]:
    """What an evaluation keeps of one category for one seed: rows, curves, figures.

    Raises:
        OutputError: it is not there or cannot be read.
    """
    path = part_path(folder, category, seed)
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); delete it and evaluate again") from error


def fingerprint(dataset: Dataset) -> str:
    """A hash of the names, splits, labels and masks of all pictures: whether two runs saw the same data."""
    digest = hashlib.sha256()
    for item in dataset.items:
        mask = "" if item.mask is None else relative_name(item.mask, dataset.root)
        fields = (relative_name(item.path, dataset.root), item.category, item.split, item.label, item.defect_type, mask)
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()


def _hash(parts: Sequence[Part]) -> str | None:
    """Of the contents of all references, in the order drawn; None for zero-shot."""
    digests = [hash_file(item.path) if item.path.is_file() else "" for part in parts for item in part.drawn.references]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


class PartFiles:
    """The categories that are done, each in a file of its own, written atomically."""

    def __init__(self, folder: Path, *, fresh: bool) -> None:
        self.folder, self.parts = folder, folder / PARTS_FOLDER
        self.earlier = None if fresh else read_identity(folder / SETTINGS_FILE, fix="use --fresh")

    def begin(self, settings: Mapping[str, Any], categories: Sequence[str]) -> None:
        """Go on with what is there, or start.

        Raises:
            OutputError: it was made with other settings.
        """
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.categories, self.seeds = categories, settings["seeds"]
        run = {"schema": SCHEMA, **self.settings, "categories": list(categories)}
        if self.earlier is not None and (different := differences(self.earlier, run)):
            words = "; ".join(each.in_words("{name}: {first} there, {second} asked for", brief) for each in different)
            raise OutputError(
                f"{self.folder}: holds an evaluation with other settings ({words}); choose another --out, or start "
                "again: --fresh"
            )
        files = [self.folder / name for name in (RESULTS_FILE, SCORES_FILE, TIMING_FILE)]
        left_over = [] if self.earlier is not None else [*files, *self.parts.glob("*.json")]
        begin(self.folder / SETTINGS_FILE, run, remove=left_over)
        make_folder(self.parts)

    def is_done(self, category: str, seed: int) -> bool:
        """Whether an earlier run did it."""
        return self.earlier is not None and part_path(self.folder, category, seed).exists()

    def write(self, category: str, seed: int, part: Mapping[str, Any]) -> None:
        write_json(part_path(self.folder, category, seed), part, allow_nan=False)

    def finish(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """Put the parts together: the files of the whole run."""
        parts = {name: [read_part(self.folder, name, seed) for seed in self.seeds] for name in self.categories}
        write_table(self.folder / SCORES_FILE, SCORE_COLUMNS, score_rows(parts, self.seeds))
        seconds = {
            part_stem(name, seed): {key: part[key] for key in ("seconds", "metrics_seconds")}
            for name, name_parts in parts.items()
            for seed, part in zip(self.seeds, name_parts, strict=True)
        }
        write_json(self.folder / TIMING_FILE, {"schema": SCHEMA, "categories": seconds}, allow_nan=False)
        results = assemble(self.settings, parts, machine)
        write_json(self.folder / RESULTS_FILE, results, allow_nan=False)
        return results
