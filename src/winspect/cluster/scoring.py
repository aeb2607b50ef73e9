"""A worker's part of a batch: the pictures of a shard through ``predict_many``, into rows and heat maps."""

from __future__ import annotations

import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import fs

from winspect.calibration.judgement import Judgement
from winspect.cluster.filesystems import local_path, open_place, pictures_of
from winspect.cluster.inputs import OVERLAYS
from winspect.cluster.shards import Part, Plan, encode, result_schema
from winspect.cluster.shared import Shared, check_same
from winspect.errors import ClusterError, PictureError, WinspectError
from winspect.methods.result import Result
from winspect.outputs.maps import overlay_of, short_stem
from winspect.outputs.rows import error_entry, row_of
from winspect.pictures.fingerprints import Copies
from winspect.pictures.given import Given
from winspect.pictures.heatmaps import save_png
from winspect.pictures.suspicions import joined
from winspect.system.files import make_folder

if TYPE_CHECKING:
    from winspect.cluster.pool import Worker
    from winspect.inspector.base import Predictor

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Source = str | Given

_ROWS_AT_A_TIME = 512
_MIXED_AT_A_TIME = 128
"""Pictures of several classes that are sorted by class at a time: those embedded in Parquet files are held."""
_ALONE_AT_A_TIME = 64
_PAINTERS, _MOST_PAINTING = 2, 8


@dataclass(frozen=True)
class Scored:
    """What a worker gives back of some inputs.

    Attributes:
        rows: of :func:`winspect.cluster.shards.result_schema`; or a whole shard of them, as its file's bytes.
        seconds: spent; ``paint_s``: of these, or beside them, on heat maps.
        worker: the process, by machine and number.
    """

    rows: Part | pa.Table
    seconds: float
    paint_s: float
    worker: str


def score(worker: Worker, shared: Any, inputs: Sequence[Row], plan: Plan | None = None, shard: int = 0) -> Scored:
    """Score inputs on a worker; with a plan they are a whole shard.

    Args:
        shared: gives a :class:`winspect.cluster.shared.Shared`; called once in a worker's life.

    Raises:
        ClusterError: the model cannot be loaded, is not the one that made what is shared, or heat maps cannot be
            written.
    """
    try:
        if worker.kept is None:
            worker.kept = Scorer(worker.predictor, shared(), worker.advance)
        began = time.perf_counter()
        rows = worker.kept.rows(inputs)
    except (WinspectError, OSError) as error:
        raise ClusterError(str(error)) from error
    part = rows if plan is None else encode(plan, shard, rows)
    return Scored(part, time.perf_counter() - began, worker.kept.paint_s, worker.name)


class Scorer:
    """A model with what all workers share.

    Args:
        advance: called after each picture.

    Attributes:
        paint_s: seconds spent on heat maps in the last call of :meth:`rows`.

    Raises:
        ClusterError: the model is another than the one that made what is shared.
        WinspectError: the folder of heat maps cannot be opened, or written.
    """

    def __init__(self, predictor: Predictor, shared: Shared, advance: Callable[[], object] = lambda: None) -> None:
        self.predictor, self.shared, self.inspection = predictor, shared, shared.inspection
        self.advance, self.paint_s = advance, 0.0
        self._copies = Copies(chain.from_iterable(state.samples for state in shared.states.values()))
        self._marks: dict[int, str | None] = {}
        for name, state in shared.states.items():
            predictor.take(name, state)
        if self.inspection.overlays is not None:
            self._place = open_place(self.inspection.overlays)
            if isinstance(self._place[0], fs.LocalFileSystem):
                make_folder(Path(self._place[1]) / OVERLAYS)
        predictor.prepare_engine(self.inspection.classes[0], maps=self.inspection.needs_maps)
        check_same(predictor, shared.identity)

    def rows(self, inputs: Sequence[Row]) -> pa.Table:
        """Score inputs, each a row of :meth:`winspect.cluster.inputs.Inputs.rows`; one row each, in order.

        A picture that fails is a row with its error.

        Raises:
            WinspectError, OSError: heat maps cannot be written.
        """
        self.paint_s = 0.0
        schema = result_schema(arrays=self.inspection.arrays)
        with ThreadPoolExecutor(_PAINTERS, thread_name_prefix="winspect-painter") as painters:
            rows = self._finished(zip(inputs, self._results(inputs), strict=True), painters)
            tables = [schema.empty_table()]
            while some := list(islice(rows, _ROWS_AT_A_TIME)):
                tables.append(pa.Table.from_pylist(some, schema=schema))
        return pa.concat_tables(tables).combine_chunks()

    def _results(self, inputs: Sequence[Row]) -> Iterator[Result | Exception]:
        """The result of each input, in order; several classes are sorted a few inputs at a time."""
        names = list(dict.fromkeys(row["class"] for row in inputs))
        if len(names) == 1:
            yield from self._of_class(names[0], inputs)
            return
        for first in range(0, len(inputs), _MIXED_AT_A_TIME):
            some = inputs[first : first + _MIXED_AT_A_TIME]
            sources, results = self._sources(some), dict[int, Result | Exception]()
            for name in names:
                numbers = [number for number, row in enumerate(some) if row["class"] == name]
                mine = [some[number] for number in numbers]
                results.update(zip(numbers, self._of_class(name, mine, [sources[n] for n in numbers]), strict=True))
            yield from (results[number] for number in range(len(some)))

    def _of_class(
        self, name: str, inputs: Sequence[Row], sources: Sequence[Source] | None = None
    ) -> Iterator[Result | Exception]:
        """Results of one class; pictures that fail together are scored one by one.

        Args:
            sources: the inputs' pictures, where they are open already.
        """
        at = 0
        while at < len(inputs):
            try:
                left = self._sources(inputs[at:]) if sources is None else sources[at:]
                for result in self._predict(left, name):
                    at += 1
                    yield self._counted(result)
            except Exception:
                logger.exception("pictures that failed together are scored one by one")
                for row in inputs[at : at + _ALONE_AT_A_TIME]:
                    at += 1
                    yield self._counted(self._alone(row, name))
                sources = None  # read those behind again

    def _predict(self, sources: Sequence[Source], name: str) -> Iterator[Result]:
        overlays, maps = self.inspection.overlays is not None, self.inspection.needs_maps
        return self.predictor.predict_many(sources, name, keep_pictures=overlays, maps=maps)

    def _alone(self, row: Row, name: str) -> Result | Exception:
        try:
            return next(iter(self._predict(self._sources([row]), name)))
        except Exception as error:
            return error

    def _counted(self, result: Result | Exception) -> Result | Exception:
        self.advance()
        return result

    def _sources(self, inputs: Sequence[Row]) -> list[Source]:
        """The pictures of some inputs as ``predict_many`` takes them: local files by path, others read when decoded."""
        shelf, sources = _Shelf(inputs, self._copies, self._marks), list[Source]()
        for number, row in enumerate(inputs):
            name = row["path"] or row["id"]
            is_file = row["file"] is None and local_path(name) == name
            sources.append(name if is_file else _Shelved(name, (shelf, number)))
        return sources

    def _finished(
        self, results: Iterable[tuple[Row, Result | Exception]], painters: ThreadPoolExecutor
    ) -> Iterator[dict[str, Any]]:
        """Rows whose heat maps are written, a few of them at a time beside the model."""
        waiting: deque[tuple[dict[str, Any], Future[float] | None]] = deque()
        for row, result in results:
            made, painted = {**{name: row[name] for name in ("id", "path", "class")}, **self.shared.made_by}, None
            if isinstance(result, Exception):
                made["error"] = error_entry(result)
            elif result.error is not None:
                made |= {"error": error_entry(result.error), "warning": result.warning}
            else:
                judgement = self.inspection.rule.decide(result)
                made |= self._entries(judgement, row)
                if self.inspection.overlays is not None:
                    made["map"] = f"{OVERLAYS}/{row['ordinal']:08d}_{short_stem(result.path)}.png"
                    painted = painters.submit(self._paint, judgement, made["map"], row["class"])
            waiting.append((made, painted))
            if len(waiting) > _MOST_PAINTING:
                yield self._written(*waiting.popleft())
        yield from (self._written(*entry) for entry in waiting)

    def _written(self, row: dict[str, Any], painted: Future[float] | None) -> dict[str, Any]:
        if painted is not None:
            self.paint_s += painted.result()
        return row

    def _entries(self, judgement: Judgement, row: Row) -> dict[str, Any]:
        """A judgement as columns of a shard."""
        result, entries = judgement.result, row_of(judgement)
        for name in ("path", "class", "map"):  # the inputs' own
            del entries[name]
        entries["warning"] = joined(result.warning, self._marks.pop(row["ordinal"], None))
        if result.tile_maps is not None and result.size_wh is not None and self.inspection.arrays:
            entries |= {"tile_maps": result.tile_maps.ravel(), "map_shape": list(result.tile_maps.shape)}
            entries |= {"width": result.size_wh[0], "height": result.size_wh[1]}
            entries["tile_boxes"] = np.ravel(result.tile_boxes)
        return entries

    def _paint(self, judgement: Judgement, name: str, class_name: str) -> float:
        """Write a heat map over its picture, the same file whenever it is written; returns the seconds taken."""
        began = time.perf_counter()
        painted = overlay_of(judgement, self.shared.ranges.get(class_name))
        filesystem, folder = self._place
        if isinstance(filesystem, fs.LocalFileSystem):
            save_png(painted, Path(folder) / name)
        else:
            content = io.BytesIO()
            Image.fromarray(painted).save(content, format="PNG", compress_level=1)
            with filesystem.open_output_stream(f"{folder}/{name}") as file:  # appears whole, when it is closed
                file.write(content.getvalue())
        return time.perf_counter() - began


class _Shelf:
    """Pictures that are not local files, read in order, a few ahead, whoever asks for which."""

    def __init__(self, inputs: Sequence[Row], copies: Copies, marks: dict[int, str | None]) -> None:
        self._inputs, self._pictures = inputs, enumerate(pictures_of(inputs))
        self._copies, self._marks = copies, marks
        self._read: dict[int, str | bytes | PictureError] = {}
        self._lock = Lock()

    def take(self, number: int) -> str | bytes | PictureError:
        """The picture with this number; once. A copy of a good sample is marked."""
        with self._lock:
            while number not in self._read:
                at, picture = next(self._pictures)
                self._read[at] = picture
            picture = self._read.pop(number)
        if not isinstance(picture, PictureError):
            self._marks[self._inputs[number]["ordinal"]] = self._copies.warning(picture)
        return picture


class _Shelved(Given):
    """A picture on a :class:`_Shelf`: ``picture`` is the shelf and its number there."""

    def source(self) -> Any:
        """Read it, in the thread that decodes it."""
        shelf, number = self.picture
        picture = shelf.take(number)
        if isinstance(picture, PictureError):
            raise picture
        return picture
