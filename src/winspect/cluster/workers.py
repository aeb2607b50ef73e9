"""How many workers a cluster has room for, and what each takes of it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from winspect.cluster.cluster import Cluster
from winspect.errors import DeviceError, SettingsError

_MOST_DECODE_THREADS = 8


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
