"""One category: judge its pictures, and make its figures and curves."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
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
from winspect.files import make_folder, replacing
from winspect.heatmaps import heat_overlay, save_png
from winspect.metrics import Ranking, rank_scores
from winspect.results import map_spread

if TYPE_CHECKING:
    from winspect.predictor import WinCLIP
    from winspect.results import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapWriter:
    """Where the maps of one category go, if anywhere.

    Attributes:
        folder: the results' folder; ``inside``: the category's folder in it.
    """

    folder: Path
    inside: str
    overlays: bool = False
    raw_maps: bool = False

    def write(self, number: int, result: Result) -> str | None:
        """Write what was asked for; returns the file's name below `folder`, or None."""
        if not (self.overlays or self.raw_maps) or result.anomaly_map is None:
            return None
        make_folder(self.folder / self.inside)
        stem = f"{self.inside}/{number:05d}"
        if self.raw_maps:
            with replacing(self.folder / f"{stem}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, anomaly_map=result.anomaly_map)
        if self.overlays and result.picture_rgb is not None:
            save_png(heat_overlay(result.picture_rgb, result.anomaly_map), self.folder / f"{stem}.png")
            return f"{stem}.png"
        return f"{stem}.npz"


@dataclass
class _Judged:
    """What is kept of a category's pictures while they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)


def judge_category(
    model: WinCLIP,
    drawn: Draw,
    *,
    root: Path,
    class_name: str,
    writer: MapWriter,
    advance: Callable[[], object],
) -> dict[str, Any]:
    """Judge the pictures of one category for one seed.

    Args:
        root: of the data set; pictures are named from there.
        class_name: for the prompts.
        advance: called after each picture.

    Returns:
        All that is kept of it, as JSON: figures, the reasons for those that are null, alarm, references, pictures that
        failed, a row per picture, curves, and seconds.
    """
    began = time.perf_counter()
    references = [relative_name(item.path, root) for item in drawn.references]
    truth = PixelTruth(drawn.tested, model.preprocess.size, root)
    judged, alarm, stopped = _Judged(), None, None
    try:
        if drawn.references:
            model.reference([item.path for item in drawn.references], class_name)
        alarm = embedding_alarm(model, [item.path for item in drawn.tested])
        _judge(model, drawn.tested, class_name, root, writer, judged, truth, advance)
    except ReferencesError as error:
        if not isinstance(error.__cause__, PictureError):
            raise
        stopped = str(error)  # this category has no figures; the others go on
        judged.failed.append(_failure(relative_name(Path(error.__cause__.path), root), error))
    finally:
        if drawn.references:
            model.forget(class_name)
    alarm = alarm or map_alarm(judged.spreads)
    measuring = time.perf_counter()
    figures, curves = _measure(judged, truth)
    reasons = _reasons(judged, truth, figures)
    if alarm is not None:
        _silence(figures, reasons, alarm, few_shot=bool(drawn.references))
        curves["pixel_roc"] = curves["pro"] = None
    return {
        "schema": SCHEMA,
        "n_normal": judged.labels.count(False),
        "n_anomalous": judged.labels.count(True),
        "figures": figures,
        "reasons": dict.fromkeys(METRICS, stopped) if stopped else reasons,
        "alarm": alarm,
        "references": references,
        "failed": judged.failed,
        "rows": judged.rows,
        "curves": curves,
        "seconds": round(time.perf_counter() - began, 3),
        "metrics_seconds": round(time.perf_counter() - measuring, 3),
    }


def _judge(
    model: WinCLIP,
    items: tuple[Item, ...],
    class_name: str,
    root: Path,
    writer: MapWriter,
    judged: _Judged,
    truth: PixelTruth,
    advance: Callable[[], object],
) -> None:
    from winspect.outcome import ConstantMapWarning

    stream = model.predict_many([item.path for item in items], class_name, keep_pictures=writer.overlays)
    # Constant maps are what the alarm is for; a warning per batch would only repeat it.
    with warnings.catch_warnings(), closing(stream) as results:  # type: ignore[type-var]
        warnings.simplefilter("ignore", ConstantMapWarning)
        for number, (item, result) in enumerate(zip(items, results, strict=True)):
            path = relative_name(item.path, root)
            judged.rows.append(
                {
                    "path": path,
                    "label": item.label,
                    "defect_type": item.defect_type,
                    "score": result.anomaly_score,
                    "map": writer.write(number, result),
                }
            )
            if result.error is not None:
                judged.failed.append(_failure(path, result.error))
                logger.warning("failed: %s", result.error)
            if result.anomaly_score is not None and result.tile_maps is not None:
                judged.scores.append(result.anomaly_score)
                judged.labels.append(item.is_anomalous)
                judged.spreads.append(map_spread(result.tile_maps))
                truth.add(item, result)
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
