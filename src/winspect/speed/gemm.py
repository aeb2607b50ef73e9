"""The machine's rate of matrix products, by engine and precision, at the sizes of the model's layers.

Each product is a chain of linear layers without bias, width -> hidden -> width, over so many rows, as in the MLPs
that hold two thirds of a tower's weights. It runs in the engine the model would run in, so that the rate is the best
that engine can give, not a data sheet's.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from winspect.speed.plans import OPENVINO

logger = logging.getLogger(__name__)

LAYERS = 4
"""Linear layers of a chain: enough that handing over the input does not count."""
_WARM_UP = 2
_SEED = 0
_SPREAD = 0.02

Run = Callable[[], Any]
"""Runs a chain once; returns its output (rows, width), which the next run may overwrite."""


class Gemm:
    """One chain, ready to run.

    Args:
        engine, precision: see :data:`BUILDERS`.
        rows, width, hidden: sizes of the matrices.
        device: torch's name of it, or ``openvino:`` and OpenVINO's.

    Attributes:
        names: engine, precision and sizes, and ``error``: why it cannot run here, else None.
        run: runs it once. Missing where there is an error.
    """

    def __init__(self, engine: str, precision: str, *, rows: int, width: int, hidden: int, device: str) -> None:
        sizes = {"rows": rows, "width": width, "hidden": hidden}
        self.names: dict[str, Any] = {"engine": engine, "precision": precision, **sizes, "error": None}
        self._flops = 2 * rows * width * hidden * LAYERS
        random = np.random.default_rng(_SEED)
        shapes = [(width, hidden), (hidden, width)] * (LAYERS // 2)
        weights = [random.normal(0, _SPREAD, shape).astype(np.float32) for shape in shapes]
        tokens = random.normal(0, 1, (rows, width)).astype(np.float32)
        try:
            self.run = BUILDERS[engine, precision](tokens, weights, device)
            for _ in range(_WARM_UP):
                self.run()
        except Exception as error:  # a library says in its own way that it cannot
            self.names["error"] = f"{type(error).__name__}: {error}"
            logger.warning("no matrix products with engine %s in %s: %s", engine, precision, error)

    def rates(self, repetitions: int, *, clock: Callable[[], float] = time.perf_counter) -> list[float]:
        """GFLOP/s, repetition by repetition; none where it cannot run."""
        found: list[float] = []
        while self.names["error"] is None and len(found) < repetitions:
            began = clock()
            self.run()
            found.append(self._flops / (clock() - began) / 1e9)
        return found


def open_gemms(engines: Sequence[str], precisions: Sequence[str], layer: dict[str, Any], *, device: str) -> list[Gemm]:
    """A chain for every engine, precision and number of rows that can be had on the device.

    Args:
        engines: those that are installed.
        precisions: those asked for; where an engine lacks one, it is left out.
        layer: ``width`` and ``hidden`` of the model's MLPs, and ``rows``, several numbers of tokens.
        device: torch's name of it, or ``openvino:`` and OpenVINO's. Beside the CPU, each has one engine.
    """
    alone = "openvino" if device.startswith(OPENVINO) else "torch"
    usable = [engine for engine in engines if device == "cpu" or engine == alone]
    pairs = [(engine, precision) for engine in usable for precision in precisions if (engine, precision) in BUILDERS]
    return [Gemm(*pair, **{**layer, "rows": rows}, device=device) for pair in pairs for rows in layer["rows"]]


def _torch(precision: str, tokens: np.ndarray, weights: Sequence[np.ndarray], device: str) -> Run:
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    x = torch.from_numpy(tokens).to(device, dtype)
    layers = [torch.from_numpy(weight.T.copy()).to(device, dtype) for weight in weights]
    # A GPU is handed its work and goes on by itself.
    wait = None if device == "cpu" else getattr(torch, torch.device(device).type).synchronize

    @torch.inference_mode()
    def run() -> Any:
        y = x
        for layer in layers:
            y = torch.nn.functional.linear(y, layer)
        if wait is not None:
            wait()
        return y

    return run


def _openvino(precision: str, tokens: np.ndarray, weights: Sequence[np.ndarray], device: str) -> Run:
    import openvino as ov
    import torch
    from openvino import opset13 as op

    from winspect.engines.compiled import openvino_core

    def quantised(x: Any, limit: float, levels: int) -> Any:
        # Rounded to so many levels in -limit..limit: what OpenVINO takes as the order to compute in int8.
        low, high = op.constant(np.float32(-limit)), op.constant(np.float32(limit))
        return op.fake_quantize(x, low, high, low, high, levels)

    x = y = op.parameter(list(tokens.shape), np.float32)
    for weight in weights:
        constant = op.constant(weight)
        if precision == "int8":
            y, constant = quantised(y, 3.0, 256), quantised(constant, 4 * _SPREAD, 255)
        y = op.matmul(y, constant, transpose_a=False, transpose_b=False)
    openvino_device = device.removeprefix(OPENVINO) if device.startswith(OPENVINO) else "CPU"
    hint = "bf16" if precision == "bf16" else "f32"
    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if openvino_device == "CPU":
        hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    request = openvino_core().compile_model(ov.Model([y], [x]), openvino_device, hints).create_infer_request()

    def run() -> Any:
        request.set_input_tensor(ov.Tensor(tokens, shared_memory=True))
        return request.infer(share_outputs=True)[0]

    return run


def _onnx(tokens: np.ndarray, weights: Sequence[np.ndarray], device: str) -> Run:
    import onnxruntime
    import torch

    from winspect.engines.compiled import onnx_options
    from winspect.engines.onnx_engine import OnnxOperators

    operators = OnnxOperators()
    y = operators.input("x", (tokens.shape[0], tokens.shape[1]))
    for weight in weights:
        y = operators.linear(y, weight.T, None)
    operators.output("y", y)
    options = onnx_options(torch.get_num_threads())
    with tempfile.TemporaryDirectory(prefix="winspect-", ignore_cleanup_errors=True) as folder:
        operators.save(Path(folder))
        path = f"{folder}/tower.onnx"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": tokens})[0]


BUILDERS: dict[tuple[str, str], Callable[[np.ndarray, Sequence[np.ndarray], str], Run]] = {
    **{("torch", precision): partial(_torch, precision) for precision in ("fp32", "bf16", "fp16")},
    **{("openvino", precision): partial(_openvino, precision) for precision in ("fp32", "bf16", "int8")},
    ("onnx", "fp32"): _onnx,
}
"""What builds a chain in an engine and a precision: from tokens (rows, width), weights and torch's device to a run."""
