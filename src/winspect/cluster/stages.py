"""What runs on workers: decoding and judging. Arrow tables in and out; a picture that fails is a row with its error.

Between the two a picture is its tiles in 8 bits, a quarter of what the model reads: they cross the object store, and
perhaps the network.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from winspect.cluster.filesystems import pictures_of
from winspect.cluster.shards import result_schema
from winspect.cluster.shared import Model, Shared, differences
from winspect.errors import PictureError
from winspect.methods.result import Result
from winspect.pictures.decoding import Source
from winspect.pictures.fingerprints import Copies
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Prepared, Resized, resize_tiles

logger = logging.getLogger(__name__)

PICTURES_PER_TABLE = 16
"""Decoded together, and handed on: a few MB."""
PICTURES_PER_CALL = 64
"""Judged in one call of a worker, in as many passes of the model as that takes."""

ERROR = pa.struct([("type", pa.string()), ("message", pa.string())])
# The last three say where an embedded picture lies.
_NAMED = [("ordinal", pa.int64()), ("id", pa.string()), ("path", pa.string()), ("class", pa.string())]
_NAMED += [("file", pa.string()), ("row", pa.int64()), ("column", pa.string())]
_NAMES = [name for name, _ in _NAMED]
_SIZE = [("width", pa.int32()), ("height", pa.int32()), ("tile_boxes", pa.list_(pa.int32()))]
_DECODING = [("error", ERROR), ("warning", pa.string()), ("decode_s", pa.float32()), ("decoder", pa.string())]

DECODED = pa.schema([*_NAMED, *_SIZE, ("pixels", pa.large_binary()), *_DECODING])
"""A picture's tiles, uint8 (tiles, side, side, 3), or its error; and what decoding took, and where it ran."""


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


JUDGED = pa.schema(
    [
        *_NAMED[:1],
        *map(_plain, result_schema(arrays=True)),
        *_NAMED[4:],
        *_DECODING[2:],
        ("judge_s", pa.float32()),
        ("judge", pa.string()),
        ("paint_s", pa.float32()),
        ("painter", pa.string()),
        ("score_range", pa.list_(pa.float64())),
        ("refusal", pa.string()),
    ]
)
"""A result with its ordinal; what each stage took, and where it ran; and why a worker refuses to work, if it does."""


_NONE = Copies(())


def worker_name() -> str:
    """This process: its machine and its number."""
    return f"{platform.node()}:{os.getpid()}"


def error_entry(error: BaseException) -> dict[str, str]:
    """An error as it stands in a row."""
    return {"type": type(error).__name__, "message": str(error)}


def decode(block: pa.Table, *, shared: Shared) -> Iterator[pa.Table]:
    """Read, decode, cut and resize the pictures of a block of inputs; gives tables of :data:`DECODED`."""
    rows: list[dict[str, Any]] = []
    sources = pictures_of(block)
    copies = {name: Copies(state.shown) for name, state in shared.states.items()}
    for named in block.select(_NAMES).to_pylist():
        row, began = named, time.perf_counter()
        try:
            source = next(sources)
            row |= _tiles_entries(_resized(source, row["path"] or row["id"], shared))
            row["warning"] = joined(row["warning"], copies.get(row["class"], _NONE).warning(source))
        except Exception as error:
            row["error"] = error_entry(error)
        rows.append(row | {"decode_s": time.perf_counter() - began, "decoder": worker_name()})
        if len(rows) == PICTURES_PER_TABLE:
            yield pa.Table.from_pylist(rows, schema=DECODED)
            rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=DECODED)


def _resized(source: Source | PictureError, name: str, shared: Shared) -> Resized:
    if isinstance(source, PictureError):
        raise source
    try:
        return resize_tiles(source, shared.preprocess, shared.cut)
    except PictureError as error:
        raise PictureError(name, error.reason) from error  # what came as bytes has no name of its own


def _tiles_entries(resized: Resized) -> dict[str, Any]:
    width, height = resized.size_wh
    boxes = [edge for box in resized.boxes for edge in box]
    pixels = resized.pixels.tobytes()
    return {"width": width, "height": height, "tile_boxes": boxes, "pixels": pixels, "warning": resized.warning}


def boxes_of(row: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """``tile_boxes`` of a row, a tuple a tile."""
    flat = row["tile_boxes"]
    return [tuple(flat[start : start + 4]) for start in range(0, len(flat), 4)]


class Judge:
    """A worker with its model, which is loaded once. A call judges a table of :data:`DECODED`; gives :data:`JUDGED`.

    A model that cannot be loaded, or is not the one that made what is shared, is said in every row, as ``refusal``: an
    exception would only have the work given to the next worker.

    Args:
        shared: gives what is shared, once the model is loaded: another worker may be making it meanwhile.
    """

    def __init__(self, model: Model, shared: Callable[[], Shared]) -> None:
        self.refusal: str | None = None
        self._taken: str | None = None
        failure: Exception | None = None
        try:
            self.model = model.load()
        except Exception as error:
            failure = error
        self.shared = shared()
        self.judging = self.shared.judging
        try:
            if failure is not None:
                raise failure
            self._take(self.judging.classes[0])
            self.model.prepare_engine(self.judging.classes[0], maps=self.judging.needs_maps)
            if different := differences(self.shared.described, self.model.describe()):
                self.refusal = f"{worker_name()}: the model there is another one ({different})"
        except Exception as error:
            logger.exception("cannot load the model")
            self.refusal = f"{worker_name()}: the model cannot be loaded there: {error}"

    def __call__(self, table: pa.Table) -> pa.Table:
        began = time.perf_counter()
        rows = table.drop_columns(["pixels"]).to_pylist()
        if self.refusal is None:
            self._judge_classes(rows, table["pixels"])
        seconds = {"judge_s": (time.perf_counter() - began) / max(1, len(rows)), "judge": worker_name()}
        alike = {**self.shared.made_by, **seconds, "refusal": self.refusal}
        return pa.Table.from_pylist([row | alike for row in rows], schema=JUDGED)

    def _judge_classes(self, rows: list[dict[str, Any]], pixels: pa.ChunkedArray) -> None:
        """Add the results to the rows."""
        by_class: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            if row["error"] is None:
                by_class.setdefault(row["class"], []).append(number)
        for name, numbers in by_class.items():
            self._take(name)
            look = self.shared.ranges.get(name)
            for number, result in zip(numbers, self._results(rows, numbers, pixels, name), strict=True):
                rows[number] |= {**self._entries(result), "score_range": look and list(look)}

    def _take(self, name: str) -> None:
        """Know a class from now on. With several few-shot classes the good samples of one are in memory at a time."""
        if name == self._taken:
            return
        if self._taken is not None:
            self.model.forget(self._taken)
        self.model.take(name, self.shared.states[name])
        self._taken = name

    def _results(
        self, rows: list[dict[str, Any]], numbers: Sequence[int], pixels: pa.ChunkedArray, name: str
    ) -> list[Result | Exception]:
        def predict(numbers: Sequence[int]) -> list[Result]:
            items = (self._prepared(rows[number], pixels[number]) for number in numbers)
            return list(self.model.predict_stream(items, name, maps=self.judging.needs_maps))

        try:
            return list(predict(numbers))
        except Exception:
            logger.exception("pictures that failed together are judged one by one")
        alone: list[Result | Exception] = []
        for number in numbers:
            try:
                alone += predict([number])
            except Exception as error:
                alone.append(error)
        return alone

    def _prepared(self, row: dict[str, Any], pixels: pa.LargeBinaryScalar) -> Prepared:
        side = self.shared.preprocess.size
        tiles = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, side, side, 3)
        name, size_wh = row["path"] or row["id"], (row["width"], row["height"])
        resized = Resized(name, size_wh, boxes_of(row), tiles, warning=row["warning"])
        return resized.normalised(self.shared.preprocess)

    def _entries(self, result: Result | Exception) -> dict[str, Any]:
        from winspect.calibration import DecisionRule
        from winspect.outputs.rows import row_of

        if isinstance(result, Exception):
            return {"error": error_entry(result)}
        if result.error is not None:
            return {"error": error_entry(result.error)}
        judging = self.judging
        row = row_of(DecisionRule(judging.threshold, judging.calibration, judging.regions).decide(result))
        entries = {name: row.get(name) for name in ("anomaly_score", "verdict", "threshold", "p_value", "boxes")}
        if result.tile_maps is not None and self.judging.maps:
            entries |= {"tile_maps": result.tile_maps.ravel(), "map_shape": list(result.tile_maps.shape)}
        return entries
