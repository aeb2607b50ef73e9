"""The run: inputs through the pipeline to their destination, so that each input is there exactly once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from winspect.cluster.cluster import Cluster, check_nodes, check_ray, connect, on_worker, result_of
from winspect.cluster.destination import Destination, refuse_used
from winspect.cluster.filesystems import is_uri
from winspect.cluster.filling import Filling
from winspect.cluster.inputs import Inputs, find_inputs
from winspect.cluster.pipeline import Job, Overlays
from winspect.cluster.shared import Judging, Model, Shared, check_judging, make_shared, portable
from winspect.cluster.summary import check, summarise
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
    """Judge any number of pictures on a Ray cluster, or on this machine, into Parquet shards.

    Every input becomes one row, whatever happens: a picture that fails has an ``error`` there. What was finished when a
    run was stopped, or died, is kept: the same call with ``resume`` does the rest. The rows are those of the inputs, in
    their order, whatever the number of workers; the scores those of :meth:`winspect.WinCLIP.predict` within 1e-5.

    Args:
        sources: files, folders, globs, manifests and URIs: see :func:`winspect.cluster.inputs.find_inputs`.
        out: a folder or a URI; empty, but for ``resume``.
        class_name: what the part is called, for inputs that do not name it themselves; None is ``object``.
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` of a cluster; None for what ``RAY_ADDRESS`` says, else
            this machine alone.
        workers: how many judge, as in ``4``, or ``"2-8"`` for a pool that follows the work; see
            :func:`winspect.cluster.workers.plan_workers`, also for ``device``.
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
    inputs = find_inputs([fspath(one) for one in given], class_name, leave_out=place)
    judging = Judging(
        classes=inputs.classes,
        references=[os.path.abspath(path) for path in references],
        shots=shots,
        threshold=threshold,
        calibration=calibration,
        regions=regions,
        maps=maps != "none",
        stretch=stretch,
    )
    check_judging(judging)
    if calibration is not None and "bundle" not in model:
        model = calibration.model_options({"device": device, **model})
        device = model.pop("device", "auto")
    options = portable(model)
    overlays = None
    if maps in ("overlays", "both"):
        overlays = Overlays(place if is_uri(place) else os.path.abspath(place), keep_arrays=maps == "both")
    seen = _local_places(inputs, judging, options, overlays)
    with connect(address, dashboard=dashboard, verbose=verbose) as cluster:
        job = _begun(cluster, options, judging, workers, device, seen, shown=progress)
        filling = Filling(inputs, replace(job, overlays=overlays), cluster)
        with ExitStack() as stack:
            rows = None
            # An accelerator is taken until what is shared is made; on CPUs a new run starts beside that.
            if not resume and not job.workers.on_accelerator:
                rows = stack.enter_context(filling.start([range(len(inputs))]))
            shared = result_of(job.shared)
            destination = stack.enter_context(
                Destination.open(
                    place,
                    _description(shared, inputs, maps),
                    count=len(inputs),
                    shard_rows=shard_rows,
                    arrays=maps in ("arrays", "both"),
                    resume=resume,
                )
            )
            if rows is None and (missing := destination.missing()):
                rows = stack.enter_context(filling.start(missing))
            stages = filling.fill(destination, shared, rows, shown=progress)
            check(destination)
            summary = {**summarise(destination), **stages, "seconds": round(time.monotonic() - began, 2)}
            destination.close(summary)
    return summary


def _begun(
    cluster: Cluster,
    options: Mapping[str, Any],
    judging: Judging,
    wanted: int | str | None,
    device: str,
    places: Sequence[str],
    *,
    shown: bool,
) -> Job:
    """Share the cluster out, and have one worker make what all share."""
    if shown and cluster.dashboard_url:
        token = "; `ray get-auth-token` prints the token it asks for" if cluster.is_own else ""
        say(f"Ray's dashboard: {cluster.dashboard_url}{token}")
    check_nodes(cluster, places)
    workers = plan_workers(cluster, device, None if wanted is None else str(wanted))
    model = Model(options if "bundle" in options else {**options, "device": workers.device}, workers.threads)
    return Job(model, on_worker(make_shared, model, judging, **workers.options_beside()), workers)


def _local_places(inputs: Inputs, judging: Judging, options: Mapping[str, Any], overlays: Overlays | None) -> list[str]:
    """What every machine of a cluster must see."""
    first = inputs.table.slice(0, 1).to_pylist()[0]
    places = [first["file"] or first["path"], *judging.references]
    places += [options[name] for name in ("weights", "bundle") if os.path.isabs(options.get(name, ""))]
    places += [os.path.dirname(overlays.place)] if overlays and not is_uri(overlays.place) else []
    return [place for place in places if not is_uri(place)]


def _description(shared: Shared, inputs: Inputs, maps: str) -> dict[str, Any]:
    """What decides the rows, for ``run.json``."""
    judging = shared.judging
    calibration = judging.calibration and {
        "made": judging.calibration.date,
        "max_false_alarms": judging.calibration.max_false_alarms,
        "threshold": judging.calibration.threshold,
    }
    return {
        **shared.described,
        "inputs": inputs.sha256,
        "references": sorted({shown.sha256 or shown.path for state in shared.states.values() for shown in state.shown}),
        "threshold": judging.threshold,
        "calibration": calibration,
        "boxes": judging.regions and asdict(judging.regions),
        "maps": maps,
        "stretch": judging.stretch,
    }
