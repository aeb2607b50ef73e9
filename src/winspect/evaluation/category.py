"""One category: judge its pictures, and make its figures and curves, wherever they were judged."""

from __future__ import annotations

import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.datasets import Item
from winspect.errors import PictureError, ReferencesError
from winspect.evaluation.alarms import embedding_alarm, map_alarm
from winspect.evaluation.pixels import PixelTruth
from winspect.evaluation.results import IMAGE_METRICS, METRICS, PIXEL_METRICS, SCHEMA
from winspect.evaluation.shots import Draw, relative_name
from winspect.methods.result import map_spread
from winspect.metrics import Ranking, rank_scores
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, annotated_overlay, run_range, save_png
from winspect.system.files import make_folder, replacing

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapWriter:
    """Where the maps of one category go, if anywhere.

    Attributes:
        folder: the results' folder; ``inside``: the category's folder in it.
        stretch: the colours of heat maps to each picture, with nothing drawn on them.
    """

    folder: Path
    inside: str
    overlays: bool = False
    raw_maps: bool = False
    stretch: bool = False

    def write(self, number: int, result: Result, score_range: ScoreRange = UNIT_RANGE) -> str | None:
        """Write what was asked for; returns the file's name below `folder`, or None."""
        if not (self.overlays or self.raw_maps) or result.anomaly_map is None:
            return None
        make_folder(self.folder / self.inside)
        stem = f"{self.inside}/{number:05d}"
        if self.raw_maps:
            with replacing(self.folder / f"{stem}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, anomaly_map=result.anomaly_map)
        if self.overlays and result.picture_rgb is not None:
            look = None if self.stretch else score_range
            painted = annotated_overlay(result.picture_rgb, result.anomaly_map, look, score=result.anomaly_score)
            save_png(painted, self.folder / f"{stem}.png")
            return f"{stem}.png"
        return f"{stem}.npz" if self.raw_maps else None


@dataclass(frozen=True)
class Part:
    """One category for one seed.

    Attributes:
        class_name: for the prompts.
        writer: of its maps.
        pixel_grid: of its masks; see :class:`winspect.evaluation.pixels.PixelTruth`.
    """

    category: str
    seed: int
    drawn: Draw
    class_name: str
    writer: MapWriter
    pixel_grid: str


Keep = Callable[[Part, dict[str, Any]], None]
"""Takes a part with all that is kept of it; see :func:`judge_category`."""


@dataclass(frozen=True)
class Described:
    """What judges.

    Attributes:
        model: of :meth:`winspect.inspector.base.Predictor.describe`.
        side: of what it sees, in pixels.
        machine: of :func:`winspect.system.machine.describe_machine`, where it runs.
    """

    model: Mapping[str, Any]
    side: int
    machine: Mapping[str, Any]


class Judges(ABC):
    """Who judges the parts of an evaluation, and measures each: :meth:`prepare`, then :meth:`judge`, once."""

    @abstractmethod
    def prepare(self, parts: Sequence[Part], root: Path) -> Described:
        """Get ready for these parts.

        Args:
            root: of the data set.
        """

    @abstractmethod
    def judge(self, keep: Keep, advance: Callable[[], object]) -> None:
        """Judge the parts, in any order; each is kept as soon as it is whole.

        Args:
            advance: called after each picture.
        """


@dataclass
class _Judged:
    """What is kept of a category's pictures while they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)


class Measuring:
    """A part's figures, from results in the order of its pictures. ``score_range`` is that of its heat maps' colours.

    Args:
        drawn: the part's pictures.
        side: of what the model sees, in pixels.
        root: of the data set; pictures are named from there.
        pixel_grid: of masks; see :class:`winspect.evaluation.pixels.PixelTruth`.
    """

    def __init__(self, drawn: Draw, *, side: int, root: Path, writer: MapWriter, pixel_grid: str) -> None:
        self._began = time.perf_counter()
        self._drawn, self._root, self._writer = drawn, root, writer
        self._judged, self._truth = _Judged(), PixelTruth(drawn.tested, side, root, pixel_grid)
        self._stopped: str | None = None
        self.score_range = UNIT_RANGE

    def add(self, item: Item, result: Result) -> None:
        """Take the next picture's result, and write its maps."""
        judged, path = self._judged, relative_name(item.path, self._root)
        map_file = self._writer.write(len(judged.rows), result, self.score_range)
        named = {"path": path, "label": item.label, "defect_type": item.defect_type}
        judged.rows.append({**named, "score": result.anomaly_score, "map": map_file, "warning": result.warning})
        if result.warning is not None:
            logger.warning("warning: %s: %s", result.path, result.warning)
        if result.error is not None:
            judged.failed.append(_failure(path, result.error))
            logger.info("failed: %s", result.error)  # the results name it; the command line says so at the end
        if result.anomaly_score is not None and result.tile_maps is not None:
            judged.scores.append(result.anomaly_score)
            judged.labels.append(item.is_anomalous)
            judged.spreads.append(map_spread(result.tile_maps))
            self._truth.add(item, result)

    def stop(self, error: ReferencesError, reference: str) -> None:
        """There will be no figures: this reference cannot be used."""
        self._stopped = str(error)
        self._judged.failed.append(_failure(relative_name(Path(reference), self._root), error))

    def finish(self, alarm: str | None, *, elsewhere_s: float = 0.0) -> dict[str, Any]:
        """All that is kept of the part; see :func:`judge_category`.

        Args:
            alarm: of :func:`winspect.evaluation.alarms.embedding_alarm`.
            elsewhere_s: the work on its pictures before this was made.
        """
        judged, truth = self._judged, self._truth
        alarm = alarm or map_alarm(judged.spreads)
        measuring = time.perf_counter()
        figures, curves = _measure(judged, truth)
        reasons = _reasons(judged, truth, figures)
        if alarm is not None:
            _silence(figures, reasons, alarm, few_shot=bool(self._drawn.references))
            curves["pixel_roc"] = curves["pro"] = None
        return {
            "schema": SCHEMA,
            "n_normal": judged.labels.count(False),
            "n_anomalous": judged.labels.count(True),
            "figures": figures,
            "reasons": dict.fromkeys(METRICS, self._stopped) if self._stopped else reasons,
            "alarm": alarm,
            "heat_range": list(self.score_range),
            "references": [relative_name(item.path, self._root) for item in self._drawn.references],
            "copies": [
                {"path": relative_name(item.path, self._root), "of": relative_name(Path(original), self._root)}
                for item, original in self._drawn.copies
            ],
            "failed": judged.failed,
            "mask_faults": truth.faults,
            "rows": judged.rows,
            "curves": curves,
            "seconds": round(elsewhere_s + time.perf_counter() - self._began, 3),
            "metrics_seconds": round(time.perf_counter() - measuring, 3),
        }


def judge_category(
    model: WinCLIP,
    drawn: Draw,
    *,
    root: Path,
    class_name: str,
    writer: MapWriter,
    pixel_grid: str,
    advance: Callable[[], object],
) -> dict[str, Any]:
    """Judge the pictures of one category for one seed.

    Args:
        root: of the data set; pictures are named from there.
        class_name: for the prompts.
        pixel_grid: of masks; see :class:`winspect.evaluation.pixels.PixelTruth`.
        advance: called after each picture.

    Returns:
        All that is kept of it, as JSON: figures, the reasons for those that are null, alarm, references, pictures that
        failed, a row per picture, curves, and seconds.
    """
    side, alarm = model.preprocess.size, None
    measuring = Measuring(drawn, side=side, root=root, writer=writer, pixel_grid=pixel_grid)
    try:
        if drawn.references:
            model.reference([item.path for item in drawn.references], class_name)
        measuring.score_range = run_range(model.good_levels(class_name))
        alarm = embedding_alarm(model, [item.path for item in drawn.tested])
        _judge(model, drawn.tested, class_name, writer.overlays, measuring, advance)
    except ReferencesError as error:
        if not isinstance(error.__cause__, PictureError):
            raise
        measuring.stop(error, error.__cause__.path)  # this category has no figures; the others go on
    finally:
        if drawn.references:
            model.forget(class_name)
    return measuring.finish(alarm)


def _judge(
    model: WinCLIP,
    items: tuple[Item, ...],
    class_name: str,
    keep_pictures: bool,
    measuring: Measuring,
    advance: Callable[[], object],
) -> None:
    from winspect.inspector.outcome import ConstantMapWarning

    stream = model.predict_many([item.path for item in items], class_name, keep_pictures=keep_pictures)
    # Constant maps are what the alarm is for; a warning per batch would only repeat it.
    with warnings.catch_warnings(), closing(stream) as results:  # type: ignore[type-var]
        warnings.simplefilter("ignore", ConstantMapWarning)
        for item, result in zip(items, results, strict=True):
            measuring.add(item, result)
            advance()


def _failure(path: str, error: Exception) -> dict[str, Any]:
    return {"path": path, "type": type(error).__name__, "message": str(error)}


def _measure(judged: _Judged, truth: PixelTruth) -> tuple[dict[str, float | None], dict[str, Any]]:
    images, pixels = rank_scores(judged.scores, np.array(judged.labels, bool)), truth.rank()
    figures = {
        "image_auroc": images.auroc(),
        "image_aupr": images.aupr(),
        "image_f1_max": images.f1_max(),
        "pixel_auroc": pixels.auroc(),
        "pixel_aupr": pixels.aupr(),
        "pixel_aupro": pixels.aupro(),
        "pixel_f1_max": pixels.f1_max(),
    }
    curves = {"image_roc": _points(images.roc_curve()), **_pixel_curves(pixels)}
    return {name: None if figure is None else float(figure) for name, figure in figures.items()}, curves


def _pixel_curves(pixels: Ranking) -> dict[str, Any]:
    return {"pixel_roc": _points(pixels.roc_curve()), "pro": _points(pixels.pro_curve())}


def _points(curve: tuple[np.ndarray, np.ndarray] | None) -> list[list[float]] | None:
    return None if curve is None else [axis.tolist() for axis in curve]


def _reasons(judged: _Judged, truth: PixelTruth, figures: dict[str, float | None]) -> dict[str, str]:
    """Why each figure is null that is."""
    kinds = set(judged.labels)
    if not judged.labels:
        one_class = "no picture of this category was judged"
    else:
        one_class = f"only {'defective' if True in kinds else 'normal'} pictures were judged; need both"
    pixel = truth.reason or (one_class if len(kinds) < 2 else "the masks leave no defective or no good pixel")
    return {name: pixel if name in PIXEL_METRICS else one_class for name in METRICS if figures[name] is None}


def _silence(figures: dict[str, float | None], reasons: dict[str, str], alarm: str, *, few_shot: bool) -> None:
    """Take back what a broken map would give: pixel figures, and few-shot image scores, which hold a map's maximum."""
    for name in (*PIXEL_METRICS, *(IMAGE_METRICS if few_shot else ())):
        figures[name], reasons[name] = None, f"alarm: {alarm}"
