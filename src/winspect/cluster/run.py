"""``winspect batch`` as a function: inputs to a destination, shard by shard, each input there exactly once."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from winspect.calibration import DecisionRule, Rules, Verdicts
from winspect.cluster.cluster import connect
from winspect.cluster.destination import Destination, refuse_used
from winspect.cluster.filesystems import is_uri
from winspect.cluster.inputs import Inputs, find_inputs
from winspect.cluster.pool import Lost, Pool
from winspect.cluster.progress import Progress, stages_of
from winspect.cluster.results import summarise
from winspect.cluster.scoring import score
from winspect.cluster.shards import encode, result_schema, rows_per_shard
from winspect.cluster.shared import Inspection, Shared, check_inspection, make_shared, portable
from winspect.cluster.workers import check_nodes, plan_workers
from winspect.errors import SettingsError, SourceError
from winspect.methods.batch_method import BatchMethod
from winspect.methods.method import Method
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.calibration import Calibration, RegionRule
    from winspect.calibration.judgement import ProductRevision

logger = logging.getLogger(__name__)

MAPS = ("none", "arrays", "overlays", "both")
"""What is kept of maps: nothing; the patch grid's arrays, in the shards; heat maps over pictures, as files; both."""

_LOST = {
    "type": "WorkerLost",
    "message": "the process that worked on this picture died each time it was tried, alone with it too (out of memory, "
    "or a crash of a library): look at the picture, and at Ray's logs",
}
_LOST_BATCH = {
    "type": "WorkerLost",
    "message": "the process that scored this picture beside the others of its shard died twice (out of memory, or a "
    "crash of a library): choose smaller --shard-rows, and look at Ray's logs",
}


class Unit(NamedTuple):
    """What a worker is given: a shard, or one picture of it, by ordinal."""

    shard: int
    ordinal: int | None = None


def batch(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    class_name: str | None = None,
    address: str | None = None,
    workers: int | str | None = None,
    decode_threads: int | None = None,
    device: str = "auto",
    references: Sequence[str | PathLike[str]] = (),
    shots: int | None = None,
    threshold: float | None = None,
    regions: RegionRule | None = None,
    calibration: Calibration | None = None,
    product: ProductRevision | None = None,
    verdicts: Verdicts | None = None,
    rules: Rules | None = None,
    maps: str = "none",
    stretch: bool = False,
    shard_rows: int | None = None,
    resume: bool = False,
    progress: bool = False,
    dashboard: bool = False,
    verbose: bool = False,
    **model: Any,
) -> dict[str, Any]:
    """Score any number of pictures on a Ray cluster, or on this machine, into Parquet shards.

    Every input becomes one row, whatever happens: a picture that fails has an ``error`` there. What was finished when a
    run was stopped, or died, is kept: the same call with ``resume`` does the rest. The rows are those of the inputs, in
    their order, whatever the number of workers; the scores those of :meth:`winspect.WinCLIP.predict` within 1e-5.

    Args:
        sources: files, folders, globs, manifests and URIs: see :func:`winspect.cluster.inputs.find_inputs`.
        out: a folder or a URI; empty, but for ``resume``.
        class_name: what the part is called, for inputs that do not name it themselves; None is ``object``.
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` of a cluster; None for what ``RAY_ADDRESS`` says, else
            this machine alone.
        workers: how many score, as in ``4``, or ``"2-8"`` for a pool that follows the work; see
            :func:`winspect.cluster.workers.plan_workers`, also for ``device``.
        decode_threads: that decode and resize for each worker; None for one per core that it has, at most 8.
        references, shots: good samples, for few-shot scores; of inputs of one class.
        threshold: scores from here on are anomalous; ``calibration`` decides where it is None.
        regions: which defects get boxes, which needs maps; None for none.
        product: whose verdicts these are; its name and revision are in every row.
        verdicts: where ``review`` begins, and the scale of lengths. rules: on defects, which need ``regions``.
        maps: one of :data:`MAPS`. stretch: the colours of heat maps to each picture, with nothing drawn on them.
        shard_rows: inputs per shard; None for a thousandth of all, 256 to 10,000.
        resume: go on with the run in ``out``.
        progress: a bar, or a line a minute, on stderr.
        dashboard: on this machine alone, start Ray's dashboard too, which takes some seconds; a cluster has its own.
        verbose: let Ray's own messages through.
        **model: options of :class:`winspect.WinCLIP`; or ``bundle``, the folder of an edge bundle, alone.

    Returns:
        The summary, as in ``_winspect/summary.json``: counts, score quantiles, what each stage took.

    Raises:
        UsageError: something is wrong with the call, the inputs, the destination or the cluster: see
            :mod:`winspect.errors`. Finished shards are kept.
        WeightsError: the model cannot be loaded.
    """
    if maps not in MAPS:
        raise SettingsError(f"maps: got {maps!r}, need one of {', '.join(MAPS)}")
    began = time.monotonic()
    place = fspath(out)
    refuse_used(place, resume=resume)
    inputs = find_inputs(sources, class_name, leave_out=place)
    inspection = Inspection(
        classes=inputs.classes,
        references=[os.path.abspath(path) for path in references],
        shots=shots,
        rule=DecisionRule(
            threshold,
            calibration,
            regions,
            verdicts=verdicts or Verdicts(),
            rules=rules or Rules(),
            roi=model.get("roi"),
            product=product,
        ),
        arrays=maps in ("arrays", "both"),
        overlays=(place if is_uri(place) else os.path.abspath(place)) if maps in ("overlays", "both") else None,
        stretch=stretch,
    )
    check_inspection(inspection)
    if calibration is not None and "bundle" not in model:
        model = calibration.model_options({"device": device, **model})
        device = model.pop("device", "auto")
    options = portable(model)
    with connect(address, dashboard=dashboard, verbose=verbose) as cluster:
        if progress and cluster.dashboard_url:
            token = "; `ray get-auth-token` prints the token it asks for" if cluster.is_local else ""
            say(f"Ray's dashboard: {cluster.dashboard_url}{token}")
        check_nodes(cluster, _local_places(inputs, inspection, options))
        planned = plan_workers(cluster, device, workers, decode_threads)
        with Pool[Unit](planned, options) as pool:
            shared = pool.ask(lambda worker: make_shared(worker.predictor, inspection))
            if not resume:
                rows = shard_rows or rows_per_shard(len(inputs), planned.most)
                check_shards(shared.identity.recipe, inputs, rows)
            with Destination.open(
                place,
                _description(shared, inputs.sha256, maps),
                count=len(inputs),
                shard_rows=shard_rows,
                workers=planned.most,
                arrays=inspection.arrays,
                resume=resume,
            ) as destination:
                stages = fill(destination, inputs, pool, shared, progress=progress)
                destination.check()
                summary = {**summarise(destination), **stages, "seconds": round(time.monotonic() - began, 2)}
                destination.close(summary)
    return summary


def check_shards(method: Method, inputs: Inputs, shard_rows: int) -> None:
    """Refuse shards too small for a method that scores the pictures of a class in a shard beside each other.

    Raises:
        SettingsError: says where the fewest are.
    """
    if not isinstance(method, BatchMethod):
        return
    classes = inputs.table.column("class").unify_dictionaries().chunks
    names = classes[0].dictionary
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in classes])
    batches, counts = np.unique(np.arange(len(inputs)) // shard_rows * len(names) + numbers, return_counts=True)
    shard, number = divmod(int(batches[counts.argmin()]), len(names))
    try:
        method.batch(int(counts.min()))
    except (SourceError, SettingsError) as error:
        raise SettingsError(
            f"shard {shard} of {len(inputs)} inputs, {shard_rows} in each, has {counts.min()} of class "
            f"{names[number].as_py()!r}, and is scored as one batch: {error}; choose other --shard-rows, put inputs of "
            "a class one after the other, or give more pictures"
        ) from error


def fill(
    destination: Destination, inputs: Inputs, pool: Pool[Unit], shared: Shared, *, progress: bool = False
) -> dict[str, Any]:
    """Score what the destination lacks; returns what the stages took, and the pace, for the summary.

    Raises:
        ClusterError: a worker refuses to work, or none of them lives long enough to score anything.
        OutputError: the destination cannot be written.
    """
    began, plan, now = time.monotonic(), destination.plan, 0
    judge_s, paint_s, write_s, scored, workers = 0.0, 0.0, 0.0, 0, set[str]()
    units = deque(Unit(number) for number in destination.missing())
    apart: dict[int, dict[int, pa.Table]] = {}  # the rows of shards that are tried picture by picture
    fetch = pool.share(shared) if units else None

    def call(unit: Unit) -> Sequence[Any]:
        if unit.ordinal is None:
            return score, fetch, inputs.rows(plan.span(unit.shard)), plan, unit.shard
        return score, fetch, inputs.rows(range(unit.ordinal, unit.ordinal + 1))

    with Progress(len(inputs), done=destination.rows_done, failed=destination.failed, visible=progress) as bar:
        for unit, outcome in pool.run(units, call, bar.show) if units else ():
            is_lost, span, finished = isinstance(outcome, Lost), plan.span(unit.shard), time.perf_counter()
            if is_lost and unit.ordinal is None:
                if isinstance(shared.identity.recipe, BatchMethod):
                    lost = [_lost_row(inputs, ordinal, shared, _LOST_BATCH) for ordinal in span]
                    destination.add(encode(plan, unit.shard, pa.concat_tables(lost)))
                    bar.add(len(span), len(span))
                    continue
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
                scored += len(span) if unit.ordinal is None else 1
                workers.add(outcome.worker)
                judge_s, paint_s = judge_s + outcome.seconds, paint_s + outcome.paint_s
                write_s += time.perf_counter() - finished
    seconds = time.monotonic() - began
    pace = round(now / seconds, 2) if seconds else None
    spent_s = {"judge": judge_s, "paint": paint_s, "write": write_s}
    stages = stages_of(spent_s, rows=scored, workers=len(workers), wall_s=seconds)
    return {"judged_now": now, "pictures_per_s": pace, "pipeline_seconds": round(seconds, 2), **stages}


def _lost_row(inputs: Inputs, ordinal: int, shared: Shared, reason: Mapping[str, str] = _LOST) -> pa.Table:
    """The row of an input that cannot be scored by any means."""
    (row,) = inputs.rows(range(ordinal, ordinal + 1))
    schema = result_schema(arrays=shared.inspection.arrays)
    return pa.Table.from_pylist([row | shared.made_by | {"error": reason}], schema=schema)


def _local_places(inputs: Inputs, inspection: Inspection, options: Mapping[str, Any]) -> list[str]:
    """Files and folders that every machine of a cluster must see."""
    first = inputs.rows(range(1))[0]
    places = [first["file"] or first["path"], *inspection.references]
    places += [options[name] for name in ("weights", "bundle") if os.path.isabs(options.get(name, ""))]
    overlays = inspection.overlays
    places += [os.path.dirname(overlays)] if overlays is not None and not is_uri(overlays) else []
    return [place for place in places if not is_uri(place)]


def _description(shared: Shared, inputs_sha256: str, maps: str) -> dict[str, Any]:
    """What decides the rows, for ``run.json``."""
    samples = [sample for state in shared.states.values() for sample in state.samples]
    decisions = shared.inspection.rule.document()
    if decisions["calibration"] is not None:
        del decisions["calibration"]["pixel_threshold"]  # which earlier releases did not write
    return {
        **shared.identity.document(),
        "inputs": inputs_sha256,
        "references": sorted({sample.sha256 or sample.path for sample in samples}),
        **decisions,
        "maps": maps,
        "stretch": shared.inspection.stretch,
    }
