"""Results of a batch: read back as they were, and what they came to in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from winspect.cluster.destination import Destination
from winspect.cluster.filesystems import open_input
from winspect.cluster.shards import Plan, result_schema
from winspect.cluster.store import RUN_FILE, FolderStore
from winspect.errors import OutputError, PictureError, SettingsError, SourceError
from winspect.methods.method import Method
from winspect.methods.registry import method_of
from winspect.methods.result import Result

_ARRAYS = ("tile_maps", "map_shape", "tile_boxes", "width", "height")
_NEEDED = ("id", "path", "class", "anomaly_score", "error")
_NEWER = ("warning",)  # not in the results of earlier releases
_ROWS_AT_A_TIME = 256
QUANTILES = {"min": 0.0, **{str(level): level for level in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)}, "max": 1.0}
"""The quantiles of a summary, by name."""
MOST_CLASSES = 100
"""With more classes than these a summary tells of all together only."""


def read_results(place: str, *, maps: bool = True) -> Iterator[Result]:
    """The results of a finished ``winspect batch``, in the order of its inputs; a few hundred are in memory at a time.

    A result is what ``predict`` gives: ``path`` (the input's id where a picture has no path), ``category_name``,
    ``anomaly_score`` (more is more anomalous, in the range of the run's recipe; None on error), ``error``, ``warning``
    and, where the run kept map arrays, ``tile_maps`` (float32 (tiles, rows, columns), in the same range),
    ``tile_boxes`` (x0, y0, x1, y1 in pixels) and ``size_wh``, so that ``anomaly_map`` gives the float32 (height, width)
    map at the picture's own size. Without map arrays ``anomaly_map`` is None. Verdicts, thresholds and p-values are
    columns of the same files, which any reader of Parquet reads: ``pandas.read_parquet(place)``.

    Args:
        place: the batch's folder or URI (``--out``).
        maps: read map arrays, where there are any; without them reading is quicker.

    Returns:
        A result for each input, read when it is asked for.

    Raises:
        SourceError: there are no results, they cannot be read, or are not all there yet: go on with ``--resume``.
    """
    try:
        store = FolderStore(place)
    except OutputError as error:
        raise SourceError(str(error)) from error
    try:
        run, there = store.read_json(RUN_FILE), store.sizes()
    except (OSError, ValueError) as error:
        raise SourceError(f"{store.name}: cannot be read ({error})") from error
    if run is None:
        raise SourceError(f"{store.name}: holds no results of winspect batch; name the folder or URI of its --out")
    try:
        plan, has_arrays = Plan.of(run), run["layout"]["arrays"]
    except (KeyError, TypeError) as error:
        raise SourceError(f"{store.name}/{RUN_FILE}: is not a batch's run ({error!r})") from error
    files = {name: number for name, number in plan.files().items() if name in there}
    if len(files) < plan.number:
        done = sum(len(plan.span(number)) for number in files.values())
        raise SourceError(f"{store.name}: holds {done} of {plan.inputs} results; run the batch again with --resume")
    columns = [*_NEEDED, *_NEWER, *(_ARRAYS if maps and has_arrays else ())]
    return _results(store, list(files), _score_range(run), columns)


def _score_range(run: Mapping[str, Any]) -> tuple[float, float]:
    """The range of a run's scores; of a recipe that is not known here, that of WinCLIP's."""
    try:
        return method_of(run["recipe"]).score_range
    except (KeyError, SettingsError):
        return Method.score_range


def _results(
    store: FolderStore, files: list[str], score_range: tuple[float, float], columns: list[str]
) -> Iterator[Result]:
    for name in files:
        try:
            with open_input(store.fs, store.path(name)) as file:
                parquet = pq.ParquetFile(file)
                there = [column for column in columns if column not in _NEWER or column in parquet.schema_arrow.names]
                for rows in parquet.iter_batches(_ROWS_AT_A_TIME, columns=there):
                    yield from as_results(rows, score_range)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{store.name}/{name}: cannot be read ({error}); run the batch with --resume") from error


def as_results(rows: pa.RecordBatch, score_range: tuple[float, float] = (0.0, 1.0)) -> Iterator[Result]:
    """The results that some rows were written from, in order; the range is that of the method."""
    plain = rows.select([name for name in rows.schema.names if name != "tile_maps"])
    for number, row in enumerate(plain.to_pylist()):
        path = row["path"] if row["path"] is not None else row["id"]
        error = None if row["error"] is None else _picture_error(path, row["error"])
        arrays: dict[str, Any] = {}
        if row.get("map_shape") is not None:
            # A copy: a view would keep the maps of all rows in memory.
            flat = np.array(rows["tile_maps"][number].values, np.float32)
            arrays["tile_maps"] = flat.reshape(row["map_shape"])
            arrays["tile_boxes"] = tuple(map(tuple, np.reshape(row["tile_boxes"], (-1, 4)).tolist()))
            arrays["size_wh"] = (row["width"], row["height"])
        options: dict[str, Any] = {"error": error, "warning": row.get("warning"), "score_range": score_range}
        yield Result(path, row["class"], row["anomaly_score"], **options, **arrays)


def _picture_error(path: str, error: dict[str, str]) -> PictureError:
    if error["type"] == PictureError.__name__:
        return PictureError(path, error["message"].removeprefix(f"{path}: "))
    return PictureError(path, f"{error['type']}: {error['message']}")


def summarise(destination: Destination) -> dict[str, Any]:
    """Counts, score quantiles and errors over all finished shards, those of earlier runs included.

    Of the shards only the columns that are counted are read; of a picture 16 bytes are kept: class, verdict, score.

    Returns:
        ``inputs`` of the run; of the finished shards ``judged`` and ``failed``, ``anomalous``, ``review`` and
        ``normal`` (null where nothing decided between them) and ``scores``: quantiles by name (:data:`QUANTILES`,
        linear between neighbours; more is more anomalous), null where nothing was judged. ``classes``: the same by
        class where there are several, at most :data:`MOST_CLASSES`. ``warned``: rows with a warning. ``shards`` and
        their ``bytes``. ``errors`` by type: their ``count``, and the first as ``example`` (id, path, message).

    Raises:
        OutputError: a shard cannot be read.
    """
    try:
        rows, fine = _dataset(destination), ds.field("error").is_null()
        scored = rows.to_table(["class", "verdict", "anomaly_score"], filter=fine).unify_dictionaries()
        warned = rows.count_rows(filter=ds.field("warning").is_valid())
        failed, errors = _failures(rows)
    except (OSError, ValueError) as error:
        raise OutputError(f"{destination.store.name}: cannot be read ({error}); go on with --resume") from error
    kinds, scores = scored["class"].combine_chunks(), scored["anomaly_score"].to_numpy()
    verdicts: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for group in scored.group_by(["class", "verdict"]).aggregate([([], "count_all")]).to_pylist():
        verdicts[group["class"]][group["verdict"]] = group["count_all"]
    names, codes, known = sorted({*verdicts, *failed}), kinds.indices.to_numpy(), kinds.dictionary.to_pylist()
    classes = {}
    if 1 < len(names) <= MOST_CLASSES:
        of_class = {name: scores[codes == (known.index(name) if name in known else -1)] for name in names}
        classes["classes"] = {name: _described(verdicts[name], failed[name], of_class[name]) for name in names}
    shards = destination.shards.values()
    return {
        "inputs": destination.plan.inputs,
        **_described(sum(verdicts.values(), Counter()), failed.total(), scores),
        "warned": warned,
        **classes,
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "errors": errors,
    }


def _dataset(destination: Destination) -> ds.Dataset:
    """The finished shards; class and verdict take four bytes a row."""
    store, shards = destination.store, destination.shards
    options = ds.ParquetReadOptions(dictionary_columns={"class", "verdict"})
    files = [store.path(shards[number].file) for number in sorted(shards)]
    schema = result_schema(arrays=False)
    for name in ("class", "verdict"):
        field = pa.field(name, pa.dictionary(pa.int32(), pa.string()))
        schema = schema.set(schema.get_field_index(name), field)
    return ds.dataset(files, schema=schema, filesystem=store.fs, format=ds.ParquetFileFormat(read_options=options))


def _failures(rows: ds.Dataset) -> tuple[Counter[str], dict[str, Any]]:
    """Failures by class; and by type of error, their number and the first as an example."""
    failed, errors = Counter[str](), dict[str, Any]()
    for batch in rows.to_batches(columns=["id", "path", "class", "error"], filter=ds.field("error").is_valid()):
        for row in batch.to_pylist():
            failed[row["class"]] += 1
            example = {"id": row["id"], "path": row["path"], "message": row["error"]["message"]}
            errors.setdefault(row["error"]["type"], {"count": 0, "example": example})["count"] += 1
    return failed, errors


def _described(verdicts: Counter[str | None], failed: int, scores: np.ndarray) -> dict[str, Any]:
    decided = any(verdict is not None for verdict in verdicts)
    levels = np.quantile(scores, list(QUANTILES.values())).tolist() if len(scores) else []
    return {
        "judged": verdicts.total(),
        "failed": failed,
        **{name: verdicts[name] if decided else None for name in ("anomalous", "review", "normal")},
        "scores": dict(zip(QUANTILES, levels, strict=True)) if levels else None,
    }
