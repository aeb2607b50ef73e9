"""Units of work until every shard is there: shards, and one picture at a time of a shard that took workers down."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import ray

from winspect.cluster.destination import Destination
from winspect.cluster.inputs import Inputs
from winspect.cluster.pool import Lost, Pool
from winspect.cluster.progress import Progress, Stages
from winspect.cluster.scoring import score
from winspect.cluster.shards import encode, result_schema
from winspect.cluster.shared import Shared

logger = logging.getLogger(__name__)

_LOST = {
    "type": "WorkerLost",
    "message": "the process that worked on this picture died each time it was tried, alone with it too (out of memory, "
    "or a crash of a library): look at the picture, and at Ray's logs",
}


class Unit(NamedTuple):
    """What a worker is given: a shard, or one picture of it, by ordinal."""

    shard: int
    ordinal: int | None = None


def fill(
    destination: Destination, inputs: Inputs, pool: Pool[Unit], shared: Shared, *, progress: bool = False
) -> dict[str, Any]:
    """Score what the destination lacks.

    Args:
        progress: show it on stderr.

    Returns:
        What the stages took, and the pace, for the summary.

    Raises:
        ClusterError: a worker refuses to work, or none of them lives long enough to score anything.
        OutputError: the destination cannot be written.
    """
    began, stages, plan, now = time.monotonic(), Stages(), destination.plan, 0
    units = deque(Unit(number) for number in destination.missing())
    apart: dict[int, dict[int, pa.Table]] = {}  # the rows of shards that are tried picture by picture
    fetch = partial(ray.get, ray.put(shared)) if units else None

    def call(unit: Unit) -> Sequence[Any]:
        if unit.ordinal is None:
            return score, fetch, inputs.rows(plan.span(unit.shard)), plan, unit.shard
        return score, fetch, inputs.rows(range(unit.ordinal, unit.ordinal + 1))

    with Progress(len(inputs), done=destination.rows_done, failed=destination.failed, visible=progress) as bar:
        for unit, outcome in pool.run(units, call, bar.show) if units else ():
            is_lost, span, finished = isinstance(outcome, Lost), plan.span(unit.shard), time.perf_counter()
            if is_lost and unit.ordinal is None:
                logger.warning("the worker on shard %d died twice: its pictures are tried one by one", unit.shard)
                apart[unit.shard] = {}
                units.extend(Unit(unit.shard, ordinal) for ordinal in span)
                continue
            part = None if is_lost else outcome.rows
            if unit.ordinal is not None:
                rows = apart[unit.shard]
                rows[unit.ordinal] = _lost_row(inputs, unit.ordinal, shared) if is_lost else outcome.rows
                part = None
                if len(rows) == len(span):
                    part = encode(plan, unit.shard, pa.concat_tables(rows[at] for at in span))
                    del apart[unit.shard]
            if part is not None:
                destination.add(part)
                now += part.shard.rows
                bar.add(part.shard.rows, part.shard.failed)
            if not is_lost:
                count = len(span) if unit.ordinal is None else 1
                spent = {"judge": outcome.seconds, "paint": outcome.paint_s, "write": time.perf_counter() - finished}
                stages.add(count, outcome.worker, **spent)
    seconds = time.monotonic() - began
    pace = round(now / seconds, 2) if seconds else None
    return {"judged_now": now, "pictures_per_s": pace, "pipeline_seconds": round(seconds, 2), **stages.summary(seconds)}


def _lost_row(inputs: Inputs, ordinal: int, shared: Shared) -> pa.Table:
    """The row of an input that cannot be scored by any means."""
    (row,) = inputs.rows(range(ordinal, ordinal + 1))
    schema = result_schema(arrays=shared.inspection.arrays)
    return pa.Table.from_pylist([row | shared.made_by | {"error": _LOST}], schema=schema)
