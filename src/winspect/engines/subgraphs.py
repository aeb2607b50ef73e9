"""The part of an OpenVINO graph that gives some of its outputs alone. No torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import openvino as ov
from openvino import opset13 as op


def without_windows(model: ov.Model, rows: int) -> ov.Model:
    """What a tower's graph with windows computes of the pictures alone: the same constants, the other rows left out.

    The pictures are the first part wherever rows are joined or split (:mod:`winspect.engines.tower_graph`).

    Args:
        model: of a layout with windows; it is taken apart.
        rows: tokens of all pictures.
    """
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Concat", "VariadicSplit"):
            node.output(0).replace(node.input_value(0))
        elif kind == "Gather" and (read := _constant(node.input_value(1))) is not None:
            kept_rows = op.constant(read[read < rows])
            node.input(1).replace_source_output(kept_rows.output(0))
    pictures = with_outputs(model, ("image", "patches"))
    pictures.validate_nodes_and_infer_types()
    return pictures


def with_outputs(model: ov.Model, names: Collection[str]) -> ov.Model:
    """The graph of some outputs, by name; what the others alone need is left out."""
    kept = [result for result in model.get_results() if {*names} & result.output(0).get_tensor().get_names()]
    return ov.Model(kept, model.get_parameters(), model.get_friendly_name())


def _constant(value: Any) -> Any:
    node = value.get_node()
    return (
        node.get_data() if node.get_type_name() == "Constant" and value.get_partial_shape().rank.get_length() else None
    )
