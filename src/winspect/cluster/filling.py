"""Rounds of the pipeline until all its rows are there: what is lost on the way is done again, in the end alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from winspect.cluster.cluster import Cluster
from winspect.cluster.inputs import Inputs
from winspect.cluster.pipeline import Job, Rows
from winspect.cluster.progress import Progress, Stages
from winspect.cluster.shared import Shared
from winspect.cluster.stages import JUDGED
from winspect.errors import ClusterError

logger = logging.getLogger(__name__)

_MOST_ROWS_PER_BLOCK = 512
_BLOCKS_PER_DECODER = 4
_LOST = {
    "type": "WorkerLost",
    "message": "the process that worked on this picture died each time it was tried, alone with it too (out of memory, "
    "or a crash of a library): look at the picture, and at Ray's logs",
}


class Sink(Protocol):
    """What is filled: a :class:`winspect.cluster.destination.Destination`, or the like.

    Attributes:
        schema: columns of :data:`winspect.cluster.stages.JUDGED` that it takes, besides ``ordinal``.
        rows_done, failed: rows that are there, and how many of them have an error.
    """

    schema: pa.Schema
    rows_done: int
    failed: int

    def add(self, rows: pa.Table) -> object:
        """Take rows, in any order; what is there already is dropped."""

    def lacking(self) -> np.ndarray:
        """int64: the ordinals that have not come yet, in order."""
        ...


class Filling:
    """The rounds of one run.

    Args:
        inputs: all of them, those that an earlier run has judged too.
        job: of the pipeline. cluster: where it runs.
    """

    def __init__(self, inputs: Inputs, job: Job, cluster: Cluster) -> None:
        self.inputs, self.job, self.is_client = inputs, job, cluster.is_client
        cpus = sum(node.cpus for node in cluster.nodes)
        self.decoders = max(1, int((cpus - job.workers.cpus) / job.workers.decoder_cpus))

    def start(self, ordinals: Sequence[range]) -> Rows:
        """Start the pipeline on these inputs, in blocks that keep all decoders busy."""
        rows = sum(map(len, ordinals)) // (self.decoders * _BLOCKS_PER_DECODER)
        return self._start(ordinals, min(max(rows, 1), _MOST_ROWS_PER_BLOCK), self.job)

    def _start(self, ordinals: Sequence[range], rows: int, job: Job) -> Rows:
        return Rows(list(self.inputs.blocks(ordinals, rows)), job, is_client=self.is_client)

    def fill(self, destination: Sink, shared: Shared, first: Rows | None, *, shown: bool = False) -> dict[str, Any]:
        """Judge what the destination lacks.

        Args:
            shared: what the workers share.
            first: the pipeline, running on what the destination lacks; None where it lacks nothing.
            shown: progress on stderr.

        Returns:
            What the stages took, and the pace, for the summary.

        Raises:
            ClusterError: the workers refuse, or none of them lives long enough to judge anything.
            OutputError: the destination cannot be written.
        """
        began, done, stages = time.monotonic(), destination.rows_done, Stages()
        with Progress(len(self.inputs), done=done, failed=destination.failed, shown=shown) as progress:

            def keep(rows: Iterable[pa.Table]) -> None:
                for table in rows:
                    _check_refusal(table)
                    started = time.perf_counter()
                    destination.add(table.select(["ordinal", *destination.schema.names]))
                    stages.add(table, time.perf_counter() - started)
                    progress.add(len(table), len(table) - table["error"].null_count)

            if first is not None:
                with first:
                    keep(first)
            lost = destination.lacking()
            if len(lost) and not stages.rows:
                raise ClusterError("no worker judged anything: each died at its first pictures; look at Ray's logs")
            if len(lost):
                logger.warning("%d pictures were lost with their workers, and are tried one by one", len(lost))
                with self._start(_ranges(lost), 1, replace(self.job, pictures_per_call=1)) as rows:
                    keep(rows)
            if len(lost := destination.lacking()):
                keep([_lost_rows(self.inputs, lost, shared)])
        seconds = time.monotonic() - began
        judged = destination.rows_done - done
        told = {"judged_now": judged, "pictures_per_s": round(judged / seconds, 2) if seconds else None}
        return {**told, "pipeline_seconds": round(seconds, 2), **stages.summary(seconds, self.decoders)}


def _check_refusal(table: pa.Table) -> None:
    refusals = table["refusal"].drop_null()
    if len(refusals):
        raise ClusterError(f"a worker refuses to work: {refusals[0].as_py()}")


def _ranges(ordinals: np.ndarray) -> list[range]:
    """Ascending numbers as runs.

    >>> _ranges(np.array([1, 2, 5]))
    [range(1, 3), range(5, 6)]
    """
    parts = np.split(ordinals, np.flatnonzero(np.diff(ordinals) != 1) + 1)
    return [range(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]


def _lost_rows(inputs: Inputs, lost: np.ndarray, shared: Shared) -> pa.Table:
    """Rows of errors for inputs that cannot be judged by any means."""
    rows = [
        row | shared.made_by | {"error": _LOST}
        for block in inputs.blocks(_ranges(lost), _MOST_ROWS_PER_BLOCK)
        for row in block.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=JUDGED)
