"""Exact nearest neighbours among unit vectors, by matrix products in blocks. Arrays only.

Of unit vectors the nearest, by angle as by Euclidean distance, is the one with the largest inner product.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from winspect.engines.products import openvino_largest, runs_openvino
from winspect.system.arrays import Array, like, to_numpy

# A block of products (16 MB) is small enough to be read again from the processor's cache, and large enough for a
# matrix product to run at its full rate.
_ROWS, _COLUMNS = 1024, 4096


def largest_products(queries: Array, memory: Array) -> Array:
    """The largest inner product of each query with the vectors of a memory; no more than a block exists at a time.

    Args:
        queries: float (n, width).
        memory: float (m, width), m >= 1.

    Returns:
        (n,).
    """
    xp = array_namespace(queries, memory)
    rows = [_largest_of_rows(queries[start : start + _ROWS], memory) for start in range(0, len(queries), _ROWS)]
    return xp.concat(rows) if rows else queries[:, 0]


def _largest_of_rows(queries: Array, memory: Array) -> Array:
    xp = array_namespace(queries)
    largest = _largest_by_openvino if _suits_openvino(queries, memory) else _largest
    best = None
    for start in range(0, len(memory), _COLUMNS):
        found = largest(queries, memory[start : start + _COLUMNS])
        best = found if best is None else xp.maximum(best, found)
    return best


def _suits_openvino(queries: Array, memory: Array) -> bool:
    """Whether OpenVINO runs here, for float32 in main memory; what is not finite it may pass over."""
    xp = array_namespace(queries, memory)
    in_memory = isinstance(queries, np.ndarray) or queries.device.type == memory.device.type == "cpu"
    is_float32 = queries.dtype == memory.dtype == xp.float32
    return runs_openvino() and in_memory and is_float32 and bool(xp.all(xp.isfinite(queries)))


def _largest(queries: Array, rows: Array) -> Array:
    return array_namespace(queries).max(queries @ rows.T, axis=1)


def _largest_by_openvino(queries: Array, rows: Array) -> Array:
    threads = None if isinstance(queries, np.ndarray) else array_namespace(queries).get_num_threads()
    return like(openvino_largest(to_numpy(queries), to_numpy(rows), threads), queries)
