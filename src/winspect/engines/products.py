"""The largest inner products as an OpenVINO graph: NumPy arrays in, NumPy arrays out. No torch.

Its float32 matrix product uses the vector units of processors on which torch's and NumPy's reach about a third of
their rate.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.engines.compiled import openvino_core

if TYPE_CHECKING:
    import openvino as ov


def runs_openvino() -> bool:
    """Whether this process has OpenVINO's runtime, which takes memory of its own, already."""
    return openvino_core.cache_info().currsize > 0


def openvino_largest(queries: np.ndarray, rows: np.ndarray, threads: int | None = None) -> np.ndarray:
    """The largest inner product of each query with rows, in float32; all products exist at a time.

    Args:
        queries: float32 (n, width), finite: what is no number may be passed over.
        rows: float32 (m, width), likewise.
        threads: of the CPU; None for OpenVINO's choice.

    Returns:
        float32 (n,).
    """
    # A request for each call: calls may come from several threads.
    return _graph(threads).create_infer_request().infer([queries, rows], share_inputs=True)[0]


@cache
def _graph(threads: int | None) -> ov.CompiledModel:
    import openvino as ov
    from openvino import opset13 as op

    queries, rows = (op.parameter([-1, -1], np.float32) for _ in range(2))
    largest = op.reduce_max(op.matmul(queries, rows, False, True), op.constant(np.array([1], np.int64)), False)
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return openvino_core().compile_model(ov.Model([largest], [queries, rows]), "CPU", options)
