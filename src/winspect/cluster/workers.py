"""What a cluster's machines have: whether they can do the job, and how many workers they have room for."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from winspect._version import __version__
from winspect.cluster.cluster import Cluster, first_line
from winspect.errors import ClusterError, DeviceError, SettingsError
from winspect.system.installation import install_command

logger = logging.getLogger(__name__)

_MOST_DECODE_THREADS = 8
_CHECKED_S = 120.0


@dataclass(frozen=True)
class Workers:
    """How a cluster is shared out among workers.

    Attributes:
        device: that each of them sees, as :class:`winspect.WinCLIP` takes it.
        fewest, most: so many are started at once, and so many as there is work for.
        cpus, gpus, npus: what Ray sets aside for each.
        threads: of a worker's mathematics on a CPU; None where it runs elsewhere.
        decode_threads: that decode and resize for a worker.
    """

    device: str
    fewest: int
    most: int
    cpus: float
    gpus: float = 0
    npus: float = 0
    threads: int | None = None
    decode_threads: int = 1

    def options(self) -> dict[str, Any]:
        """What Ray sets aside for a worker, as Ray's options."""
        npus = {"resources": {"NPU": self.npus}} if self.npus else {}
        gpus = {"num_gpus": self.gpus} if self.gpus else {}
        return {"num_cpus": self.cpus, **gpus, **npus}


def plan_workers(
    cluster: Cluster, device: str = "auto", number: int | str | None = None, decode_threads: int | None = None
) -> Workers:
    """Share a cluster out.

    A GPU or an NPU has one worker, with its share of its machine's cores to decode. On CPUs a machine has one worker,
    which computes on all cores and decodes between, as ``predict`` does.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``npu``, for each worker; auto takes what the cluster has.
        number: ``N`` workers, or ``MIN-MAX``; None for one up to one per accelerator or machine.
        decode_threads: of each worker; None for one per core that it has, at most 8.

    Raises:
        DeviceError: the cluster has no such device.
        SettingsError: ``number`` is neither, or ``decode_threads`` less than 1.
    """
    kind = _kind(cluster, device)
    fewest, most = (1, 0) if number is None else _range(str(number))
    if decode_threads is not None and decode_threads < 1:
        raise SettingsError(f"decode threads: got {decode_threads}, need 1 or more")
    accelerator: dict[str, Any] = {}
    threads = None
    if kind == "cpu":
        cores = [node.cpus for node in cluster.nodes if node.cpus > 0] or [1.0]
        most = most or len(cores)
        cpus = min(cores) / math.ceil(most / len(cores))
        limit = os.environ.get("OMP_NUM_THREADS", "") if cluster.is_local else ""
        threads = int(limit) if limit.isdigit() and int(limit) else max(1, int(cpus))
    else:
        accelerator = {f"{kind}s": 1}
        counts = [(getattr(node, f"{kind}s"), node.cpus) for node in cluster.nodes]
        most = most or max(1, int(sum(devices for devices, _ in counts)))
        share = min(cores / devices for devices, cores in counts if devices)
        cpus = math.floor(share) if share >= 1 else share
    return Workers(
        {"gpu": "cuda", "npu": "npu:0"}.get(kind, "cpu" if device == "auto" else device),
        min(fewest, most),
        most,
        cpus=cpus,
        **accelerator,
        threads=threads,
        decode_threads=decode_threads or min(max(1, int(cpus)), _MOST_DECODE_THREADS),
    )


def _kind(cluster: Cluster, device: str) -> str:
    """``cpu``, or the kind of accelerator that computes: ``gpu`` or ``npu``."""
    known = {"gpu": any(node.gpus for node in cluster.nodes), "npu": any(node.npus for node in cluster.nodes)}
    if device == "auto":
        return next((kind for kind, there in known.items() if there), "cpu")
    if device == "cpu" or device.startswith("openvino:"):
        return "cpu"
    kind = {"cuda": "gpu", "npu": "npu", "npu:0": "npu"}.get(device)
    if kind is None:
        raise DeviceError(
            f"got the device {device!r}, need auto, cpu, cuda or npu: Ray gives each worker one of its own"
        )
    if not known[kind]:
        raise DeviceError(
            f"got the device {device!r}, but no machine of the cluster offers Ray a {kind.upper()}; use --device cpu"
        )
    return kind


def _range(number: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", number.strip())
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise SettingsError(f"got {number!r} workers: need a number from 1, or two, as in 2-8")
    return fewest, most


def check_nodes(cluster: Cluster, places: Sequence[str] = ()) -> None:
    """Refuse a cluster with a machine that cannot do the job; on a local cluster there is nothing to check.

    Args:
        places: local files and folders that every machine must see, as this one does.

    Raises:
        ClusterError: names every machine, and what it lacks: winspect, its extras, this release of it, or a place.
    """
    if cluster.is_local:
        return

    # Inside a function on purpose: so it travels by value, and needs no winspect where it arrives.
    def look(places: Sequence[str]) -> dict[str, Any]:
        import importlib.util
        import os

        missing = [name for name in ("torch", "open_clip", "pyarrow") if importlib.util.find_spec(name) is None]
        if importlib.util.find_spec("winspect") is None:
            return {"version": None, "missing": missing, "unseen": []}
        from winspect._version import __version__ as version

        return {"version": version, "missing": missing, "unseen": [p for p in places if not os.path.exists(p)]}

    task = ray.remote(num_cpus=0, max_retries=1)(look)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(list(places)): node
        for node in cluster.nodes
        if node.cpus or node.gpus or node.npus
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECKED_S)
    faults = [f"{asked[task].host}: no answer in {_CHECKED_S:.0f} s" for task in silent]
    gone = []  # died since they were listed: no worker will come to lie there
    for task in answered:
        host = asked[task].host
        try:
            faults += lacks(host, ray.get(task))
        except ray.exceptions.TaskUnschedulableError:
            gone.append(host)
        except ray.exceptions.RayError as error:
            faults.append(f"{host}: {first_line(error)}")
    if gone:
        logger.warning("machines of the cluster that have died are passed over: %s", ", ".join(gone))
    if len(gone) == len(asked):
        faults += [f"{host}: it has died" for host in gone]
    if faults:
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ClusterError(
            f"{len(faults)} of {len(asked)} machines of the cluster cannot do this job: {'; '.join(faults[:10])}{more}"
        )


def lacks(host: str, found: Mapping[str, Any]) -> list[str]:
    """What a machine lacks, in words, by what it found: its ``version``, what is ``missing``, ``unseen`` places."""
    fix = f"here it is {install_command('full', 'ray')}"
    if found["version"] is None:
        return [f"{host}: winspect is not installed there, {__version__} here: {fix}"]
    lacks = []
    if found["version"] != __version__:
        lacks.append(f"winspect {found['version']} there, {__version__} here: install the same release")
    if found["missing"]:
        lacks.append(f"{', '.join(found['missing'])} not installed there: {fix}")
    if found["unseen"]:
        lacks.append(f"{', '.join(found['unseen'])} not there: use shared storage, or a URI such as s3://")
    return [f"{host}: {' and '.join(lacks)}"] if lacks else []
