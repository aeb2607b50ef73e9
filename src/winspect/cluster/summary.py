"""What a run came to: counts, scores, errors; and the proof that every input has its row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winspect.cluster.destination import Destination
from winspect.cluster.shards import read_columns, read_shards
from winspect.errors import OutputError

QUANTILES = {"min": 0.0, **{str(level): level for level in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)}, "max": 1.0}
"""The quantiles of a summary, by name."""
MOST_CLASSES = 100
"""With more classes than these a summary tells of all together only."""


def summarise(destination: Destination) -> dict[str, Any]:
    """Counts, score quantiles and errors over all finished shards, those of earlier runs included.

    Shard after shard is read, and of it only the columns that are counted; of a picture its score alone is kept,
    8 bytes.

    Returns:
        ``inputs`` of the run; of the finished shards ``judged`` and ``failed``, ``anomalous`` and ``normal`` (null
        where nothing decided between them) and ``scores``: quantiles by name (:data:`QUANTILES`, linear between
        neighbours; 1 is most anomalous), null where nothing was judged. ``classes``: the same by class where there
        are several, at most :data:`MOST_CLASSES`. ``warned``: rows with a warning. ``shards`` and their ``bytes``.
        ``errors`` by type: their ``count``, and the first as ``example`` (id, path, message).

    Raises:
        OutputError: a shard cannot be read.
    """
    judged, failed, warned, errors = _counts(destination)
    names = sorted({*judged, *failed})
    by_class = 1 < len(names) <= MOST_CLASSES
    scores = _scores(destination, judged, by_class=by_class)
    classes = {name: _described(judged.get(name, Counter()), failed[name], scores.get(name)) for name in names}
    shards = destination.shards.values()
    return {
        "inputs": destination.plan.inputs,
        **_described(sum(judged.values(), Counter()), failed.total(), scores[None]),
        "warned": warned,
        **({"classes": classes} if by_class else {}),
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "errors": errors,
    }


def check(destination: Destination) -> None:
    """Prove by the footers of the files that are there that every input has exactly one row.

    Raises:
        OutputError: a shard is missing, damaged or not of this run, or there is a Parquet file too many.
    """
    store, plan = destination.store, destination.plan
    try:
        found = read_shards(store, plan)
    except OSError as error:
        raise OutputError(f"{store.name}: cannot be listed ({error})") from error
    wrong = [f"{name} {fault}" for name, fault in found.items() if isinstance(fault, ValueError)]
    wrong += [f"{name} is not there" for name in plan.files() if name not in found]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise OutputError(
            f"{store.name}: not every input has exactly one row: {'; '.join(wrong[:3])}{more}; "
            "move away what does not belong there, and run again with --resume"
        )


def _counts(destination: Destination) -> tuple[dict[str, Counter[str | None]], Counter[str], int, dict[str, Any]]:
    """By class: judged pictures by verdict, and failures. The pictures with a warning. And the errors by type."""
    judged: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    failed: Counter[str] = Counter()
    warned = 0
    errors: dict[str, Any] = {}
    for number in sorted(destination.shards):
        shard = destination.shards[number]
        rows = read_columns(destination.store, shard, ["class", "verdict", "error.type", "warning"])
        warned += len(rows) - rows["warning"].null_count
        if shard.failed:
            failures = read_columns(destination.store, shard, ["id", "path", "class", "error"])
            for failure in failures.filter(failures["error"].is_valid()).to_pylist():
                failed[failure["class"]] += 1
                kind, message = failure["error"]["type"], failure["error"]["message"]
                example = {"id": failure["id"], "path": failure["path"], "message": message}
                errors.setdefault(kind, {"count": 0, "example": example})["count"] += 1
            rows = rows.filter(rows["error"].is_null())
        for group in rows.group_by(["class", "verdict"]).aggregate([([], "count_all")]).to_pylist():
            judged[group["class"]][group["verdict"]] += group["count_all"]
    return dict(judged), failed, warned, errors


def _scores(
    destination: Destination, judged: Mapping[str, Counter[str | None]], *, by_class: bool
) -> dict[str | None, dict[str, float] | None]:
    """Score quantiles by class, and of all under None: one array holds the scores, a class after the other."""
    names = sorted(judged) if by_class else []
    counts = [judged[name].total() for name in names] or [sum(number.total() for number in judged.values())]
    ends = np.cumsum(counts)
    free = ends - counts
    scores = np.empty(ends[-1], np.float64)
    for number in sorted(destination.shards):
        rows = read_columns(destination.store, destination.shards[number], [*(["class"] * by_class), "anomaly_score"])
        rows = rows.filter(rows["anomaly_score"].is_valid())
        values = rows["anomaly_score"].to_numpy()
        codes = pc.index_in(rows["class"], pa.array(names)).to_numpy() if names else np.zeros(len(values), np.int32)
        for code in np.unique(codes):
            mine = values[codes == code]
            scores[free[code] : free[code] + len(mine)] = mine
            free[code] += len(mine)
    quantiles: dict[str | None, dict[str, float] | None] = {
        name: _quantiles(scores[end - count : end]) for name, count, end in zip(names, counts, ends, strict=False)
    }
    return {**quantiles, None: _quantiles(scores)}


def _quantiles(scores: np.ndarray) -> dict[str, float] | None:
    """The scores' order is changed: a copy could be as large as all else."""
    if not len(scores):
        return None
    levels = np.quantile(scores, list(QUANTILES.values()), overwrite_input=True)
    return dict(zip(QUANTILES, levels.tolist(), strict=True))


def _described(verdicts: Counter[str | None], failed: int, scores: dict[str, float] | None) -> dict[str, Any]:
    decided = any(verdict is not None for verdict in verdicts)
    return {
        "judged": verdicts.total(),
        "failed": failed,
        **{name: verdicts[name] if decided else None for name in ("anomalous", "normal")},
        "scores": scores,
    }
