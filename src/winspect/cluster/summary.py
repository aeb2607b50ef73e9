"""What a run came to: counts, scores, errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from winspect.cluster.destination import Destination
from winspect.cluster.shards import result_schema
from winspect.errors import OutputError

QUANTILES = {"min": 0.0, **{str(level): level for level in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)}, "max": 1.0}
"""The quantiles of a summary, by name."""
MOST_CLASSES = 100
"""With more classes than these a summary tells of all together only."""


def summarise(destination: Destination) -> dict[str, Any]:
    """Counts, score quantiles and errors over all finished shards, those of earlier runs included.

    Of the shards only the columns that are counted are read; of a picture 16 bytes are kept: class, verdict, score.

    Returns:
        ``inputs`` of the run; of the finished shards ``judged`` and ``failed``, ``anomalous`` and ``normal`` (null
        where nothing decided between them) and ``scores``: quantiles by name (:data:`QUANTILES`, linear between
        neighbours; 1 is most anomalous), null where nothing was judged. ``classes``: the same by class where there
        are several, at most :data:`MOST_CLASSES`. ``warned``: rows with a warning. ``shards`` and their ``bytes``.
        ``errors`` by type: their ``count``, and the first as ``example`` (id, path, message).

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
        **{name: verdicts[name] if decided else None for name in ("anomalous", "normal")},
        "scores": dict(zip(QUANTILES, levels, strict=True)) if levels else None,
    }
