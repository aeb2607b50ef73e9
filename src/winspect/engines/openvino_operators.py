"""The image tower in OpenVINO's operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from winspect.backbones.image_tower import ImageTower
from winspect.engines.tower_graph import Layout, Node, build_tower


class OpenVINOOperators:
    """Collects a graph; see :class:`winspect.engines.tower_graph.Operators`. Weights are shared with their arrays."""

    def __init__(self) -> None:
        self.scope = ""
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def model(self) -> ov.Model:
        """The graph as a model; its constants hold the weights' arrays."""
        return ov.Model(self.outputs, self.inputs, "image_tower")

    def _named(self, node: Any, kind: str) -> Any:
        node.set_friendly_name(f"{self.scope}/{kind}")
        return node

    def _constant(self, values: np.ndarray) -> Any:
        return op.constant(values, shared_memory=True)

    def input(self, name: str, shape: tuple[int, int]) -> Node:
        node = op.parameter(list(shape), np.float32, name=name)
        node.output(0).get_tensor().set_names({name})
        self.inputs.append(node)
        return node

    def output(self, name: str, x: Node) -> None:
        result = op.result(x)
        result.output(0).get_tensor().set_names({name})
        self.outputs.append(result)

    def linear(self, x: Node, weight: np.ndarray, bias: np.ndarray | None) -> Node:
        product = self._named(op.matmul(x, self._constant(weight), transpose_a=False, transpose_b=True), "matmul")
        return product if bias is None else self._named(op.add(product, self._constant(bias)), "bias")

    def layer_norm(self, x: Node, weight: np.ndarray, bias: np.ndarray, eps: float) -> Node:
        normed = op.mvn(x, _numbers(-1), normalize_variance=True, eps=eps, eps_mode="INSIDE_SQRT")
        self._named(normed, "mvn")
        scaled = self._named(op.multiply(normed, self._constant(weight[None])), "scale")
        return self._named(op.add(scaled, self._constant(bias[None])), "shift")

    def activation(self, x: Node, kind: str) -> Node:
        if kind == "gelu":
            return self._named(op.gelu(x, "erf"), "gelu")
        return op.multiply(x, op.sigmoid(op.multiply(x, op.constant(np.float32(1.702)))))

    def add(self, x: Node, y: Node) -> Node:
        return self._named(op.add(x, y), "residual")

    def scale(self, x: Node, factors: np.ndarray) -> Node:
        return op.multiply(x, self._constant(factors[None]))

    def take_rows(self, x: Node, rows: np.ndarray) -> Node:
        return op.gather(x, op.constant(rows), op.constant(np.int64(0)))

    def split_rows(self, x: Node, lengths: Sequence[int]) -> list[Node]:
        return (
            [x] if len(lengths) == 1 else op.variadic_split(x, op.constant(np.int64(0)), _numbers(*lengths)).outputs()
        )

    def split_columns(self, x: Node, parts: int) -> list[Node]:
        return op.split(x, op.constant(np.int64(1)), parts).outputs()

    def join_rows(self, parts: Sequence[Node]) -> Node:
        return parts[0] if len(parts) == 1 else op.concat(list(parts), 0)

    def attention(self, queries: Node, keys: Node, values: Node, *, sequences: int, heads: int) -> Node:
        def split_heads(rows: Node) -> Node:
            return op.transpose(op.reshape(rows, _numbers(sequences, -1, heads, width // heads), False), order)

        width = _columns(queries)
        order = _numbers(0, 2, 1, 3)
        mixed = op.scaled_dot_product_attention(split_heads(queries), split_heads(keys), split_heads(values))
        self._named(mixed, f"sequences{sequences}")
        joined = self._named(op.transpose(mixed, order), f"joined{sequences}")
        return op.reshape(joined, _numbers(-1, width), False)


def _columns(x: Node) -> int:
    return (x if isinstance(x, ov.Output) else x.output(0)).get_shape()[1]


def _numbers(*values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def openvino_model(tower: ImageTower, layout: Layout) -> ov.Model:
    """A float32 tower as an OpenVINO model; its weights are the tower's own memory, so the tower must stay alive."""
    operators = OpenVINOOperators()
    build_tower(tower, layout, operators)
    return operators.model()
