"""One category: score its pictures, and make its figures and curves, wherever they were scored."""

from __future__ import annotations

import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from winspect.calibration.judgement import DecisionRule
from winspect.datasets import Item
from winspect.errors import PictureError, ReferencesError, SourceError
from winspect.evaluation.alarms import embedding_alarm, map_alarm
from winspect.evaluation.pixels import PixelTruth
from winspect.evaluation.results import METRICS, PIXEL_METRICS, SCHEMA
from winspect.evaluation.shots import Draw, relative_name
from winspect.methods.identity import Identity
from winspect.methods.result import ConstantMapWarning, Result, map_spread
from winspect.metrics import rank_scores
from winspect.outputs.maps import MapFiles
from winspect.outputs.rows import error_entry
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range
from winspect.system.files import MAPS_FOLDER, make_folder

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

logger = logging.getLogger(__name__)


def part_stem(category: str, seed: int) -> str:
    """A file name for a category, whatever it is called."""
    return f"{quote(category, safe=' ')}-seed{seed}"


@dataclass(frozen=True)
class Part:
    """One category for one seed.

    Attributes:
        root: of the data set; pictures are named from there.
        class_name: for the prompts.
        maps: writes its maps, if any; ``stretch``: their colours to each picture, with nothing drawn on them.
        pixel_grid: of its masks; see :class:`winspect.evaluation.pixels.PixelTruth`.
    """

    root: Path
    category: str
    seed: int
    drawn: Draw
    class_name: str
    maps: MapFiles
    stretch: bool
    pixel_grid: str

    @property
    def map_stem(self) -> str:
        """Folder of its maps, below that of the results."""
        return f"{MAPS_FOLDER}/{part_stem(self.category, self.seed)}"


Keep = Callable[[Part, dict[str, Any]], None]
"""Takes a part with all that is kept of it; see :func:`score_part`."""


@dataclass(frozen=True)
class Described:
    """The model of an evaluation.

    Attributes:
        identity: what decides its scores.
        side: of what it sees, in pixels.
        machine: of :func:`winspect.system.machine.describe_machine`, where it runs.
    """

    identity: Identity
    side: int
    machine: Mapping[str, Any]


class PartScorer(ABC):
    """Scores the parts of an evaluation, here or elsewhere: :meth:`prepare`, then :meth:`score`, once."""

    @abstractmethod
    def prepare(self, parts: Sequence[Part]) -> Described:
        """Get ready for these parts."""

    @abstractmethod
    def score(self, keep: Keep, advance: Callable[[], object]) -> None:
        """Score the parts, in any order; each is kept as soon as it is whole.

        Args:
            advance: called after each picture.
        """


class Measuring:
    """Figures of a part, from results in the order of its pictures.

    Args:
        side: of what the model sees, in pixels.

    Attributes:
        score_range: of the colours of its heat maps.
    """

    def __init__(self, part: Part, *, side: int) -> None:
        self._began = time.perf_counter()
        self._part, self._truth = part, PixelTruth(part.drawn.tested, side, part.root, part.pixel_grid)
        self._rows: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._spreads: list[float] = []
        self._stopped: str | None = None
        self.score_range: ScoreRange | None = UNIT_RANGE

    def add(self, item: Item, result: Result) -> None:
        """Take the next picture's result, and write its maps."""
        if self._part.stretch:
            result = replace(result, heat_range=None)
        self.score_range = self.score_range or result.heat_range  # a batch knows what is usual once it was scored
        path, map_file = self._name(item.path), self._write_maps(result)
        row = {"path": path, "label": item.label, "defect_type": item.defect_type, "score": result.anomaly_score}
        self._rows.append({**row, "map": map_file, "warning": result.warning})
        if result.warning is not None:
            logger.warning("warning: %s: %s", result.path, result.warning)
        if result.error is not None:
            self._failed.append({"path": path, **error_entry(result.error)})
            logger.info("failed: %s", result.error)  # the results name it; the command line says so at the end
        if result.tile_maps is not None:
            self._spreads.append(map_spread(result.tile_maps, result.score_range))
            self._truth.add(item, result)

    def stop(self, error: ReferencesError, reference: str) -> None:
        """There will be no figures: this reference cannot be used."""
        self._stopped = str(error)
        self._failed.append({"path": self._name(Path(reference)), **error_entry(error)})

    def finish(self, alarm: str | None) -> dict[str, Any]:
        """All that is kept of the part; see :func:`score_part`.

        Args:
            alarm: of :func:`winspect.evaluation.alarms.embedding_alarm`.
        """
        alarm, measuring, drawn = alarm or map_alarm(self._spreads), time.perf_counter(), self._part.drawn
        scored = [row for row in self._rows if row["score"] is not None]
        defective = np.array([row["label"] == "anomalous" for row in scored], bool)
        images, pixels = rank_scores([row["score"] for row in scored], defective), self._truth.rank()
        measured = {
            "image_auroc": images.auroc(),
            "image_aupr": images.aupr(),
            "image_f1_max": images.f1_max(),
            "pixel_auroc": pixels.auroc(),
            "pixel_aupr": pixels.aupr(),
            "pixel_aupro": pixels.aupro(),
            "pixel_f1_max": pixels.f1_max(),
        }
        curves = {"image_roc": images.roc_curve(), "pixel_roc": pixels.roc_curve(), "pro": pixels.pro_curve()}
        reasons = self._reasons(defective)
        if alarm is not None:
            # Broken maps give neither pixel figures nor few-shot image scores, which hold a map's maximum.
            broken = METRICS if drawn.references else PIXEL_METRICS
            measured |= dict.fromkeys(broken)
            reasons |= dict.fromkeys(broken, f"alarm: {alarm}")
            curves |= {"pixel_roc": None, "pro": None}
        return {
            "schema": SCHEMA,
            "n_normal": int((~defective).sum()),
            "n_anomalous": int(defective.sum()),
            "figures": {name: None if figure is None else float(figure) for name, figure in measured.items()},
            "reasons": {name: self._stopped or reasons[name] for name in METRICS if measured[name] is None},
            "alarm": alarm,
            "heat_range": self.score_range and list(self.score_range),
            "references": [self._name(item.path) for item in drawn.references],
            "copies": [{"path": self._name(item.path), "of": self._name(Path(of))} for item, of in drawn.copies],
            "failed": self._failed,
            "mask_faults": self._truth.faults,
            "rows": self._rows,
            "curves": {name: curve and [axis.tolist() for axis in curve] for name, curve in curves.items()},
            "seconds": round(time.perf_counter() - self._began, 3),
            "metrics_seconds": round(time.perf_counter() - measuring, 3),
        }

    def _name(self, path: Path) -> str:
        return relative_name(path, self._part.root)

    def _write_maps(self, result: Result) -> str | None:
        """The file that the row names, or None."""
        part, judgement = self._part, DecisionRule().decide(result)
        stem = f"{part.map_stem}/{len(self._rows):05d}"
        file = part.maps.map_name(judgement, stem)
        if file is not None:
            make_folder((part.maps.folder / stem).parent)
            part.maps.write(judgement, stem, None if part.stretch else self.score_range)
        return file

    def _reasons(self, defective: np.ndarray) -> dict[str, str]:
        """Of each metric, why it is null where it is."""
        image = "no picture of this category was judged"
        if len(defective):
            image = f"only {'defective' if defective.any() else 'normal'} pictures were judged; need both"
        both = defective.any() and not defective.all()
        pixel = self._truth.reason or ("the masks leave no defective or no good pixel" if both else image)
        return {name: pixel if name in PIXEL_METRICS else image for name in METRICS}


def score_part(model: WinCLIP, part: Part, advance: Callable[[], object]) -> dict[str, Any]:
    """Score the pictures of one category for one seed.

    Args:
        advance: called after each picture.

    Returns:
        All that is kept of it, as JSON: figures, the reasons for those that are null, alarm, references, pictures that
        failed, a row per picture, curves, and seconds.
    """
    measuring, alarm = Measuring(part, side=model.preprocess.size), None
    paths = [item.path for item in part.drawn.tested]
    try:
        if part.drawn.references:
            model.reference([item.path for item in part.drawn.references], part.class_name)
        measuring.score_range = run_range(model.good_levels(part.class_name), limits=model.method.score_range)
        alarm = embedding_alarm(model, paths)
        with results_of(model, paths, part.class_name, keep_pictures=part.maps.overlays) as results:
            for item, result in zip(part.drawn.tested, results, strict=True):
                measuring.add(item, result)
                advance()
    except ReferencesError as error:
        if not isinstance(error.__cause__, PictureError):
            raise
        measuring.stop(error, error.__cause__.path)  # this category has no figures; the others go on
    except SourceError as error:
        for item in part.drawn.tested:  # too few to be compared with each other
            measuring.add(item, Result(str(item.path), part.class_name, error=PictureError(str(item.path), str(error))))
            advance()
    finally:
        if part.drawn.references:
            model.forget(part.class_name)
    return measuring.finish(alarm)


@contextmanager
def results_of(
    model: WinCLIP, paths: Sequence[Path], class_name: str, *, keep_pictures: bool
) -> Iterator[Iterator[Result]]:
    """Results of pictures, in order, without a warning per batch of constant maps: the alarm names them once."""
    stream = model.predict_many(paths, class_name, keep_pictures=keep_pictures)
    with warnings.catch_warnings(), closing(stream) as results:  # type: ignore[type-var]
        warnings.simplefilter("ignore", ConstantMapWarning)
        yield results
