"""A worker's part of a batch: the pictures of a shard through ``predict_many``, into rows and heat maps."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from winspect.calibration.judgement import Judgement
from winspect.cluster.inputs import OVERLAYS
from winspect.cluster.pictures import Row, sources_of
from winspect.cluster.shards import Part, Plan, encode, result_schema
from winspect.cluster.shared import Shared, check_same
from winspect.cluster.store import FolderStore
from winspect.errors import ClusterError, WinspectError
from winspect.methods.batch_method import BatchMethod
from winspect.methods.result import Result
from winspect.outputs.maps import overlay_of, short_stem
from winspect.outputs.rows import error_entry, row_of
from winspect.pictures.fingerprints import Copies
from winspect.pictures.given import Given
from winspect.pictures.heatmaps import png_of, save_png
from winspect.pictures.suspicions import joined
from winspect.system.files import make_folder

if TYPE_CHECKING:
    from winspect.cluster.pool import Worker
    from winspect.inspector.base import Predictor

logger = logging.getLogger(__name__)

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
        ClusterError: the model cannot be loaded, or is another one; or heat maps cannot be written.
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
    """A model with what all workers share. Raises ClusterError where another model made that.

    Args:
        advance: called after each picture.

    Attributes:
        paint_s: seconds spent on heat maps in the last call of :meth:`rows`.
    """

    def __init__(self, predictor: Predictor, shared: Shared, advance: Callable[[], object] = lambda: None) -> None:
        self.predictor, self.shared, self.inspection = predictor, shared, shared.inspection
        self.advance, self.paint_s = advance, 0.0
        self._copies = Copies(chain.from_iterable(state.samples for state in shared.states.values()))
        self._marks: dict[int, str | None] = {}
        for name, state in shared.states.items():
            predictor.take(name, state)
        if self.inspection.overlays is not None:
            self._store = FolderStore(self.inspection.overlays)
            if self._store.is_local:
                make_folder(Path(self._store.path(OVERLAYS)))
        predictor.prepare_engine(self.inspection.classes[0], maps=self.inspection.needs_maps)
        check_same(predictor, shared.identity)

    def rows(self, inputs: Sequence[Row]) -> pa.Table:
        """Score inputs, each a row of :meth:`winspect.cluster.inputs.Inputs.rows`; one row each, in order.

        A picture that fails is a row with its error.

        Raises:
            WinspectError, OSError: heat maps cannot be written.
        """
        schema = result_schema(arrays=self.inspection.arrays)
        tables, painting = [schema.empty_table()], deque[Future[float]]()
        self.paint_s = 0.0
        with ThreadPoolExecutor(_PAINTERS, thread_name_prefix="winspect-painter") as painters:

            def paint(*arguments: Any) -> None:
                painting.append(painters.submit(self._paint, *arguments))
                if len(painting) > _MOST_PAINTING:
                    self.paint_s += painting.popleft().result()

            rows = (self._row(row, result, paint) for row, result in zip(inputs, self._results(inputs), strict=True))
            while some := list(islice(rows, _ROWS_AT_A_TIME)):
                tables.append(pa.Table.from_pylist(some, schema=schema))
            self.paint_s += sum(painted.result() for painted in painting)
        return pa.concat_tables(tables).combine_chunks()

    def _results(self, inputs: Sequence[Row]) -> Iterator[Result | Exception]:
        """The result of each input, in order; several classes are sorted a few inputs at a time."""
        if isinstance(self.predictor.method, BatchMethod):
            yield from self._of_batches(inputs)
            return
        names = list(dict.fromkeys(row["class"] for row in inputs))
        if len(names) == 1:
            yield from self._of_class(names[0], inputs, self._sources(inputs))
            return
        for first in range(0, len(inputs), _MIXED_AT_A_TIME):
            some = inputs[first : first + _MIXED_AT_A_TIME]
            sources, results = self._sources(some), dict[int, Result | Exception]()
            for name in names:
                numbers = [number for number, row in enumerate(some) if row["class"] == name]
                mine = [some[number] for number in numbers]
                results.update(zip(numbers, self._of_class(name, mine, [sources[n] for n in numbers]), strict=True))
            yield from (results[number] for number in range(len(some)))

    def _of_batches(self, inputs: Sequence[Row]) -> list[Result | Exception]:
        """Results of inputs that are scored beside each other: those of a class are a batch, and stop together."""
        results = dict[int, Result | Exception]()
        for name in dict.fromkeys(row["class"] for row in inputs):
            numbers = [number for number, row in enumerate(inputs) if row["class"] == name]
            found: Sequence[Result | Exception]
            try:
                # Sources of this class alone, which hold no pictures of the others.
                found = list(self._predict(self._sources([inputs[number] for number in numbers]), name))
            except Exception as error:
                logger.exception("%d pictures of %r cannot be scored beside each other", len(numbers), name)
                found = [error] * len(numbers)
            results.update(zip(numbers, found, strict=True))
        return [results[number] for number in range(len(inputs))]

    def _of_class(
        self, name: str, inputs: Sequence[Row], sources: Sequence[str | Given]
    ) -> Iterator[Result | Exception]:
        """Results of one class; pictures that fail together are scored one by one."""
        at = 0
        while at < len(inputs):
            try:
                for result in self._predict(sources, name):
                    at += 1
                    yield result
            except Exception:
                logger.exception("pictures that failed together are scored one by one")
                for row in inputs[at : at + _ALONE_AT_A_TIME]:
                    at += 1
                    yield self._alone(row, name)
                sources = self._sources(inputs[at:])  # read again: some of these have been taken

    def _predict(self, sources: Sequence[str | Given], name: str) -> Iterator[Result]:
        overlays, maps = self.inspection.overlays is not None, self.inspection.needs_maps
        return self.predictor.predict_many(sources, name, keep_pictures=overlays, maps=maps)

    def _alone(self, row: Row, name: str) -> Result | Exception:
        try:
            return next(iter(self._predict(self._sources([row]), name)))
        except Exception as error:
            return error

    def _sources(self, inputs: Sequence[Row]) -> list[str | Given]:
        return sources_of(inputs, self._mark)

    def _mark(self, row: Row, picture: str | bytes) -> None:
        """Remember of a picture that is read whether it is a copy of a good sample."""
        self._marks[row["ordinal"]] = self._copies.warning(picture)

    def _row(self, row: Row, result: Result | Exception, paint: Callable[..., object]) -> dict[str, Any]:
        """A result as columns of a shard; its heat map is painted meanwhile."""
        self.advance()
        made = {**{name: row[name] for name in ("id", "path", "class")}, **self.shared.made_by}
        if isinstance(result, Exception):
            return made | {"error": error_entry(result)}
        if result.error is not None:
            return made | {"error": error_entry(result.error), "warning": result.warning}
        judgement = self.inspection.rule.decide(result)
        made = row_of(judgement) | made
        made["warning"] = joined(result.warning, self._marks.pop(row["ordinal"], None))
        if result.tile_maps is not None and result.size_wh is not None and self.inspection.arrays:
            made |= {"tile_maps": result.tile_maps.ravel(), "map_shape": list(result.tile_maps.shape)}
            made |= {"width": result.size_wh[0], "height": result.size_wh[1]}
            made["tile_boxes"] = np.ravel(result.tile_boxes)
        if self.inspection.overlays is not None:
            made["map"] = f"{OVERLAYS}/{row['ordinal']:08d}_{short_stem(result.path)}.png"
            paint(judgement, made["map"], row["class"])
        return made

    def _paint(self, judgement: Judgement, name: str, class_name: str) -> float:
        """Write a heat map over its picture, the same file whenever it is written; returns the seconds taken."""
        began = time.perf_counter()
        painted = overlay_of(judgement, self.shared.ranges.get(class_name))
        if self._store.is_local:
            save_png(painted, Path(self._store.path(name)))
        else:
            with self._store.fs.open_output_stream(self._store.path(name)) as file:  # appears whole, when it is closed
                file.write(png_of(painted))
        return time.perf_counter() - began
