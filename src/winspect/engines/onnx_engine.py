"""The ONNX Runtime engine: the tower as an ONNX graph, float32, on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from winspect.backbones.loading import Tower
from winspect.engines.compiled import Graph, OnnxGraph, onnx_options
from winspect.engines.compiled_engine import CompiledEngine
from winspect.engines.graph_cache import GraphCache
from winspect.engines.timing import OperatorTime, onnxruntime_times
from winspect.engines.tower_graph import GRAPH_VERSION, Layout, Node, build_tower
from winspect.engines.traced import OPSET, TRACE_VERSION, Trace, TracedTower, write_onnx_trace
from winspect.errors import MissingExtraError
from winspect.system.installation import install_command
from winspect.system.memory import page_out

_WEIGHTS_FILE, _SMALLEST_APART = "tower.weights", 1024


class OnnxOperators:
    """Collects a graph; see :class:`winspect.engines.tower_graph.Operators`. Weights go into a file beside it."""

    def __init__(self) -> None:
        self._onnx = _onnx()
        self.scope = ""
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.initializers: list[Any] = []
        self._columns: dict[str, int] = {}

    def save(self, folder: Path) -> None:
        """Write ``tower.onnx`` and its weights."""
        helper = self._onnx.helper
        graph = helper.make_graph(self.nodes, "image_tower", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= _SMALLEST_APART:
                # Not save_model's own option, which looks for a file of this name in the working directory.
                self._onnx.external_data_helper.set_external_data(tensor, _WEIGHTS_FILE)
        self._onnx.save_model(model, folder / "tower.onnx")

    def _node(self, kind: str, inputs: Sequence[str], outputs: int = 1, columns: int = 0, **attributes: Any) -> Any:
        names = [f"{kind.lower()}_{len(self.nodes)}_{index}" for index in range(outputs)]
        name = f"{self.scope}/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), names, name=name, **attributes))
        for name in names:
            self._columns[name] = columns or self._columns.get(inputs[0], 0)
        return names if outputs > 1 else names[0]

    def _constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def _numbers(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def input(self, name: str, shape: tuple[int, int]) -> Node:
        kind = self._onnx.TensorProto.FLOAT
        self.inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        self._columns[name] = shape[1]
        return name

    def output(self, name: str, x: Node) -> None:
        self.nodes.append(self._onnx.helper.make_node("Identity", [x], [name]))
        kind = self._onnx.TensorProto.FLOAT
        self.outputs.append(self._onnx.helper.make_tensor_value_info(name, kind, None))

    def linear(self, x: Node, weight: np.ndarray, bias: np.ndarray | None) -> Node:
        # A copy in the runtime's own order, transposed now rather than at every start.
        product = self._node("MatMul", [x, self._constant(np.ascontiguousarray(weight.T))], columns=len(weight))
        return product if bias is None else self._node("Add", [product, self._constant(bias)])

    def layer_norm(self, x: Node, weight: np.ndarray, bias: np.ndarray, eps: float) -> Node:
        return self._node("LayerNormalization", [x, self._constant(weight), self._constant(bias)], epsilon=eps)

    def activation(self, x: Node, kind: str) -> Node:
        if kind == "gelu":
            return self._node("Gelu", [x])
        steep = self._node("Mul", [x, self._constant(np.float32(1.702).reshape(()))])
        return self._node("Mul", [x, self._node("Sigmoid", [steep])])

    def add(self, x: Node, y: Node) -> Node:
        return self._node("Add", [x, y])

    def scale(self, x: Node, factors: np.ndarray) -> Node:
        return self._node("Mul", [x, self._constant(factors)])

    def take_rows(self, x: Node, rows: np.ndarray) -> Node:
        return self._node("Gather", [x, self._constant(rows)], axis=0)

    def split_rows(self, x: Node, lengths: Sequence[int]) -> list[Node]:
        if len(lengths) == 1:
            return [x]
        return self._node("Split", [x, self._numbers(*lengths)], outputs=len(lengths), axis=0)

    def split_columns(self, x: Node, parts: int) -> list[Node]:
        columns = self._columns[x] // parts
        return self._node("Split", [x], outputs=parts, columns=columns, axis=1, num_outputs=parts)

    def join_rows(self, parts: Sequence[Node]) -> Node:
        return parts[0] if len(parts) == 1 else self._node("Concat", parts, axis=0)

    def attention(self, queries: Node, keys: Node, values: Node, *, sequences: int, heads: int) -> Node:
        width = self._columns[queries]
        shape = self._numbers(sequences, -1, width)
        parts = [self._node("Reshape", [part, shape]) for part in (queries, keys, values)]
        # ONNX Runtime's own fused operator: short windows in single operators take it several times as long.
        mixed = self._node("MultiHeadAttention", parts, columns=width, domain="com.microsoft", num_heads=heads)
        return self._node("Reshape", [mixed, self._numbers(-1, width)], columns=width)


class OnnxEngine(CompiledEngine):
    """See :class:`~winspect.engines.compiled_engine.CompiledEngine`.

    Args:
        tower: in float32, on the CPU.
        cache: where graphs are kept; a graph of ONNX has its weights beside it.

    Raises:
        MissingExtraError: the onnx package, which writes graphs, is not installed.
    """

    name = "onnx"

    def __init__(
        self,
        tower: Tower,
        *,
        cache: GraphCache,
        batch_size: int | None = None,
        threads: int | None = None,
        image_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tower, precision="fp32", batch_size=batch_size, image_hw=image_hw)
        self._cache, self._threads = cache, threads or torch.get_num_threads()

    def _save(self, plan: Layout | Trace, folder: Path) -> None:
        if isinstance(plan, Trace):
            traced = TracedTower(self.tower, plan).eval()
            write_onnx_trace(traced, plan.pixels, traced.outputs, folder / "tower.onnx")
            return
        tower: Any = self.tower
        operators = OnnxOperators()
        build_tower(tower, plan, operators)
        operators.save(folder)

    def _build(self, plan: Layout | Trace) -> Graph:
        graph = OnnxGraph(self._session(plan, self._session_options()))
        page_out(self.tower.blocks.parameters())
        return graph

    def _session_options(self) -> Any:
        return onnx_options(self._threads)

    def _session(self, plan: Layout | Trace, options: Any) -> Any:
        if isinstance(plan, Trace):
            key = {"kind": "onnx traced", "graph": TRACE_VERSION, "trace": plan.key, "opset": OPSET}
        else:
            key = {"kind": "onnx", "graph": GRAPH_VERSION, "layout": plan.key, "opset": OPSET}
        path = self._cache.get(key, partial(self._save, plan)) / "tower.onnx"
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _timed(self, plan: Layout | Trace, batches: Sequence[np.ndarray]) -> list[OperatorTime]:
        with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._session(plan, options)
            for batch in [batches[0], *batches]:
                OnnxGraph(session)(batch)
            return onnxruntime_times(session.end_profiling(), warm_up=1)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.external_data_helper
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"engine onnx needs onnx to write its graphs: {install_command('onnx')}") from error
    return onnx
