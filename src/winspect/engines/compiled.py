"""Compiled graphs, run by OpenVINO or ONNX Runtime: NumPy arrays in, NumPy arrays out. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.errors import OutputError

if TYPE_CHECKING:
    import onnxruntime
    import openvino as ov

Graph = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""A compiled graph of one input, float32: to its outputs by name, arrays of its own or views that the next call
overwrites."""

TOKENS, TOWER = "tokens.xml", "tower.xml"
"""Files of OpenVINO's graphs: pixels to tokens, and tokens, or pixels, to embeddings."""

OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""What OpenVINO calls a precision; int8 is in the graph itself, and this is for the rest of it."""


@cache
def openvino_core() -> ov.Core:
    """OpenVINO's runtime, one for the process and never given back.

    Its CPU plugin gives the thread that first compiles an alternate signal stack. Of two plugins in a process, the last
    to go puts back the stack of the first, whose memory is free by then: the next signal (Ctrl-C, SIGTERM) ends in a
    segmentation fault. Seen in OpenVINO 2026.4.
    """
    import openvino as ov

    return ov.Core()


def save_openvino(model: ov.Model, path: Path) -> None:
    """Write a model as ``path`` and its weights beside it, in the precision it has.

    Raises:
        OutputError: the files cannot be written.
    """
    import openvino as ov

    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # of a full disk OpenVINO says "iostream error"
        raise OutputError(f"{path}: cannot write ({error}): free some space, or check your rights there") from error


class OpenVINOGraph:
    """A compiled OpenVINO model with its one request; a call runs it. Not for two threads at once."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        from openvino import Tensor

        self._tensor = Tensor
        self.request = compiled.create_infer_request()
        self._names = [output.any_name for output in compiled.outputs]

    def __call__(self, values: np.ndarray) -> Mapping[str, np.ndarray]:
        self.request.set_input_tensor(self._tensor(values, shared_memory=True))
        self.request.infer()
        return {name: self.request.get_tensor(name).data for name in self._names}


class OnnxGraph:
    """An ONNX Runtime session; a call runs it."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self._input = session.get_inputs()[0].name
        self._names = [output.name for output in session.get_outputs()]

    def __call__(self, values: np.ndarray) -> Mapping[str, np.ndarray]:
        return dict(zip(self._names, self.session.run(self._names, {self._input: values}), strict=True))


def onnx_options(threads: int | None = None) -> Any:
    """Options of a session on the CPU; None for as many threads as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Otherwise the runtime keeps the largest memory it ever needed.
    options.enable_cpu_mem_arena = False
    return options
