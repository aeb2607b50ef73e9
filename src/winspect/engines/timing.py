"""How long each operator of a pass took, as the engines' own profilers say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from winspect.errors import EngineError

_MICRO = 1e-6
_KINETO_LOG_LEVEL = "KINETO_LOG_LEVEL"


@dataclass(frozen=True)
class OperatorTime:
    """One operator of one pass, or all operators of one kind where the engine does not tell them apart.

    Attributes:
        name: as the engine has it, such as ``block3/mlp/c_fc`` or ``aten::addmm``.
        kind: the engine's name of its type, such as ``FullyConnected``.
        seconds: its own time, without what it waited for.
        fused: names of operators of the graph that the engine has merged into it; empty where it does not say.
    """

    name: str
    kind: str
    seconds: float
    fused: tuple[str, ...] = ()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def torch_times(run: Callable[[], object], device: torch.device) -> list[OperatorTime]:
    """Run something once and return its operators' own times, by operator: the CPU's, or the device's for CUDA.

    Ascend's profiler writes files for its own viewer; there each operator is waited for and timed by itself, which
    adds the waiting to each.
    """
    if device.type not in ("cpu", "cuda"):
        with _OneByOne(device) as timed:
            run()
        return [OperatorTime(name, name, seconds) for name, seconds in timed.seconds.items()]
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with _quiet(), profile(activities=activities, acc_events=True) as traced:
        run()
        synchronize(device)
    # A GPU's kernels are listed beside the operators that started them: only operators are counted.
    events = [event for event in traced.key_averages() if event.device_type == torch.autograd.DeviceType.CPU]
    return _own_times(events, "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's profiler from writing to stderr: lines of its own, and errors about GPUs that are not there."""
    if _KINETO_LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_KINETO_LOG_LEVEL] = "99"
    try:
        yield
    finally:
        del os.environ[_KINETO_LOG_LEVEL]


def _own_times(events: Iterable[Any], attribute: str) -> list[OperatorTime]:
    seconds = [(event.key, getattr(event, attribute) * _MICRO) for event in events]
    return [OperatorTime(name, name, spent) for name, spent in seconds if spent > 0]


class _OneByOne(TorchDispatchMode):
    """Waits for each operator and adds up its seconds by name."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seconds: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        synchronize(self.device)
        began = perf_counter()
        result = func(*args, **(kwargs or {}))
        synchronize(self.device)
        name = f"{func.namespace}::{func._opname}"
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - began
        return result


def openvino_times(
    info: Iterable[Any],
    fused: Mapping[str, tuple[str, ...]] | None = None,
    *,
    passes: int = 1,
    earlier: Iterable[Any] = (),
    earlier_passes: int = 0,
) -> list[OperatorTime]:
    """The operators of the last ``passes`` inferences together, from OpenVINO's ``InferRequest.profiling_info``.

    OpenVINO gives each operator's mean over all inferences since the model was compiled (measured with 2026.4), the
    slow first one among them: what ran before is taken off.

    Args:
        info: objects with ``node_name``, ``node_type`` and ``real_time``, a timedelta.
        fused: see :func:`openvino_fused`.
        earlier: the same from before these inferences; ``earlier_passes``: how many there had been by then.

    Raises:
        EngineError: nothing was timed: the model was compiled without ``PERF_COUNT``.
    """
    names = fused or {}
    before = {node.node_name: node.real_time.total_seconds() * earlier_passes for node in earlier}
    times = []
    for node in info:
        whole = node.real_time.total_seconds() * (earlier_passes + passes)
        seconds = whole - before.get(node.node_name, 0.0)
        if seconds > 0:  # constants, and what was merged into others, took no time
            times.append(OperatorTime(node.node_name, node.node_type, seconds, names.get(node.node_name, ())))
    if not times:
        raise EngineError("OpenVINO has timed no operator: compile the model with PERF_COUNT and run it first")
    return times


def openvino_fused(compiled: Any) -> dict[str, tuple[str, ...]]:
    """Which of the graph's operators each operator of a compiled OpenVINO model stands for, by its name."""
    originals = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        information = node.get_rt_info()
        if "originalLayersNames" in information:
            names = information["originalLayersNames"].astype(str).split(",")
            originals[node.get_friendly_name()] = tuple(name for name in names if name)
    return originals


def onnxruntime_times(path: str | Path, *, warm_up: int = 0) -> list[OperatorTime]:
    """The operators of an ONNX Runtime session's profile: all its runs together but for the first ones.

    Args:
        path: what ``InferenceSession.end_profiling`` has written.
        warm_up: runs at the beginning that do not count.

    Raises:
        EngineError: the file cannot be read, or no run was timed.
    """
    try:
        events = json.loads(Path(path).read_text(encoding="utf-8"))
        ends = sorted(event["ts"] + event["dur"] for event in events if event["name"] == "model_run")
        begin = ends[warm_up - 1] if warm_up else 0
        seconds: dict[tuple[str, str], float] = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
                key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
                seconds[key] = seconds.get(key, 0.0) + event["dur"] * _MICRO
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{path}: not a whole profile of ONNX Runtime ({type(error).__name__}: {error})") from error
    if not seconds:
        raise EngineError(f"{path}: ONNX Runtime has timed no operator: run the session before its profile ends")
    return [OperatorTime(name, kind, spent) for (name, kind), spent in seconds.items()]
