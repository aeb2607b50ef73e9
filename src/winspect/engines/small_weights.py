"""Weights of an OpenVINO model in three bytes each instead of four, for files; compiled, they are float32 again."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as ops

_LEAST = 2**14
"""Values of a constant from which on it is worth it."""


def shrink_weights(model: ov.Model) -> None:
    """Replace each large float32 constant by the sum of a float16 one and what is left, in steps of an int8.

    The sum differs from the constant by about a millionth of its largest value (a float16 alone by a 4000th of each),
    and the plugin adds it up once, when it compiles.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32:
            continue
        values = node.data
        if values.size < _LEAST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        coarse = values.astype(np.float16)
        rest = values - coarse.astype(np.float32)
        step = np.float32(max(float(np.abs(rest).max()), 1e-30) / 127)
        fine = np.rint(rest / step).astype(np.int8)
        scaled = ops.multiply(ops.convert(ops.constant(fine), "f32"), ops.constant(step))
        node.output(0).replace(ops.add(ops.convert(ops.constant(coarse), "f32"), scaled).output(0))
