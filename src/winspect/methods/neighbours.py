"""Exact nearest neighbours among unit vectors, by matrix products in blocks. Arrays only.

Of unit vectors the nearest, by angle as by Euclidean distance, is the one with the largest inner product.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from winspect.system.arrays import Array

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
    best = None
    for start in range(0, len(memory), _COLUMNS):
        found = xp.max(queries @ memory[start : start + _COLUMNS].T, axis=1)
        best = found if best is None else xp.maximum(best, found)
    return best
