"""``winspect batch`` as a function: inputs to a destination, shard by shard, each input there exactly once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from winspect.calibration import DecisionRule
from winspect.cluster.cluster import check_nodes, check_ray, connect
from winspect.cluster.destination import Destination, refuse_used
from winspect.cluster.filesystems import is_uri
from winspect.cluster.filling import Unit, fill
from winspect.cluster.inputs import Inputs, find_inputs
from winspect.cluster.pool import Pool, Worker
from winspect.cluster.shared import Inspection, Shared, check_inspection, make_shared, portable
from winspect.cluster.summary import summarise
from winspect.cluster.workers import plan_workers
from winspect.errors import SettingsError
from winspect.system.terminal import say

if TYPE_CHECKING:
    from winspect.calibration import Calibration, RegionRule

MAPS = ("none", "arrays", "overlays", "both")
"""What is kept of maps: nothing; the patch grid's arrays, in the shards; heat maps over pictures, as files; both."""


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
    check_ray()
    if maps not in MAPS:
        raise SettingsError(f"maps: got {maps!r}, need one of {', '.join(MAPS)}")
    began = time.monotonic()
    place = fspath(out)
    refuse_used(place, resume=resume)
    given = [sources] if isinstance(sources, str | PathLike) else sources
    inputs = find_inputs([fspath(source) for source in given], class_name, leave_out=place)
    inspection = Inspection(
        classes=inputs.classes,
        references=[os.path.abspath(path) for path in references],
        shots=shots,
        rule=DecisionRule(threshold, calibration, regions),
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
        planned = plan_workers(cluster, device, None if workers is None else str(workers), decode_threads)
        with Pool[Unit](planned, options) as pool:
            shared = pool.ask(prepare, inspection)
            with Destination.open(
                place,
                _description(shared, inputs, maps),
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


def prepare(worker: Worker, inspection: Inspection) -> Shared:
    """On a worker: make what all of them share."""
    return make_shared(worker.predictor, inspection)


def _local_places(inputs: Inputs, inspection: Inspection, options: Mapping[str, Any]) -> list[str]:
    """Files and folders that every machine of a cluster must see."""
    first = inputs.rows(range(1))[0]
    places = [first["file"] or first["path"], *inspection.references]
    places += [options[name] for name in ("weights", "bundle") if os.path.isabs(options.get(name, ""))]
    overlays = inspection.overlays
    places += [os.path.dirname(overlays)] if overlays is not None and not is_uri(overlays) else []
    return [place for place in places if not is_uri(place)]


def _description(shared: Shared, inputs: Inputs, maps: str) -> dict[str, Any]:
    """What decides the rows, for ``run.json``."""
    inspection, rule = shared.inspection, shared.inspection.rule
    samples = [sample for state in shared.states.values() for sample in state.samples]
    calibration = rule.calibration and {
        "made": rule.calibration.date,
        "max_false_alarms": rule.calibration.max_false_alarms,
        "threshold": rule.calibration.threshold,
    }
    return {
        **shared.identity.document(),
        "inputs": inputs.sha256,
        "references": sorted({sample.sha256 or sample.path for sample in samples}),
        "threshold": rule.threshold,
        "calibration": calibration,
        "boxes": rule.regions and asdict(rule.regions),
        "maps": maps,
        "stretch": inspection.stretch,
    }
