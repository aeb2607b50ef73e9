"""What a judging worker takes of a cluster, and how many there are."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from winspect.cluster.cluster import Cluster
from winspect.errors import DeviceError, SettingsError


@dataclass(frozen=True)
class Workers:
    """The pool of judging workers.

    Attributes:
        device: that each of them sees, as :class:`winspect.WinCLIP` takes it.
        fewest, most: the pool's size follows the work between the two.
        cpus, gpus, npus: what Ray sets aside for each; ``decoder_cpus``: for each decoding task.
        threads: of a worker's mathematics on a CPU; None where it runs elsewhere.
    """

    device: str
    fewest: int
    most: int
    cpus: float
    gpus: float = 0
    npus: float = 0
    decoder_cpus: float = 1
    threads: int | None = None

    def options(self) -> dict[str, Any]:
        """For Ray, of a judging worker."""
        npus = {"resources": {"NPU": self.npus}} if self.npus else {}
        gpus = {"num_gpus": self.gpus} if self.gpus else {}
        return {"num_cpus": self.cpus, **gpus, **npus}

    @property
    def on_accelerator(self) -> bool:
        """Whether each has a device of its own."""
        return bool(self.gpus or self.npus)

    def options_beside(self) -> dict[str, Any]:
        """For Ray, of what is done once, before: beside the first worker, where they need not take turns."""
        return self.options() if self.on_accelerator else {"num_cpus": 0}


def plan_workers(cluster: Cluster, device: str = "auto", wanted: str | None = None) -> Workers:
    """Share a cluster out.

    A GPU or an NPU has one worker, and one core beside it. On CPUs a machine has one worker, which computes on all
    cores, as ``predict`` does; Ray sets all but one core aside for it, so that one decodes. (A core set aside is a
    number in Ray's books, not a wall: the two share the machine as decoding threads and engine do in ``predict``.)

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``npu``, for each worker; auto takes what the cluster has.
        wanted: ``N`` workers, or ``MIN-MAX``; None for one up to one per accelerator or machine.

    Raises:
        DeviceError: the cluster has no such device.
        SettingsError: ``wanted`` is neither.
    """
    kind = _kind(cluster, device)
    fewest, most = _range(wanted)
    if kind != "cpu":
        have = sum(node.gpus if kind == "cuda" else node.npus for node in cluster.nodes)
        most = most or max(1, int(have))
        one = {"gpus": 1} if kind == "cuda" else {"npus": 1}
        return Workers("cuda" if kind == "cuda" else "npu:0", min(fewest, most), most, cpus=1, **one)
    machines = [node for node in cluster.nodes if node.cpus > 0]
    most = most or max(1, len(machines))
    cores = min((node.cpus for node in machines), default=1.0)
    each = math.ceil(most / max(1, len(machines)))
    # Less than half: else two workers fit on one small machine, and another has none.
    decoder = min(1.0, 0.4 * cores)
    threads = os.environ.get("OMP_NUM_THREADS", "") if cluster.is_own else ""
    return Workers(
        "cpu" if device == "auto" else device,
        min(fewest, most),
        most,
        cpus=(cores - decoder) / each,
        decoder_cpus=decoder,
        threads=int(threads) if threads.isdigit() and int(threads) else max(1, int(cores) // each),
    )


def _kind(cluster: Cluster, device: str) -> str:
    known = {"cuda": any(node.gpus for node in cluster.nodes), "npu": any(node.npus for node in cluster.nodes)}
    if device == "auto":
        return next((kind for kind, there in known.items() if there), "cpu")
    if device == "cpu" or device.startswith("openvino:"):
        return "cpu"
    kind = "npu" if device == "npu:0" else device
    if kind not in known:
        raise DeviceError(
            f"got the device {device!r}, need auto, cpu, cuda or npu: Ray gives each worker one of its own"
        )
    if not known[kind]:
        what = "NPU" if kind == "npu" else "GPU"
        raise DeviceError(
            f"got the device {device!r}, but no machine of the cluster offers Ray a {what}; use --device cpu"
        )
    return kind


def _range(wanted: str | None) -> tuple[int, int]:
    """Fewest and most; 0 for most is open."""
    if wanted is None:
        return 1, 0
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", wanted.strip())
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise SettingsError(f"got {wanted!r} workers: need a number from 1, or two, as in 2-8")
    return fewest, most
