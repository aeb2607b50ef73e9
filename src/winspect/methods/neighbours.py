"""Exact nearest neighbours among unit vectors, by matrix products in blocks. Arrays only.

Of unit vectors the nearest, by angle as by Euclidean distance, is the one with the largest inner product.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from winspect.system.arrays import Array, smallest

# A block of products (16 MB) is small enough to be read again from the processor's cache, and large enough for a
# matrix product to run at its full rate.
_ROWS, _COLUMNS = 1024, 4096


def largest_products(queries: Array, memory: Array, count: int = 1) -> Array:
    """The largest inner products of each query with the vectors of a memory; no more than a block exists at a time.

    Args:
        queries: float (n, width).
        memory: float (m, width), m >= 1.
        count: how many of each query's; all m where there are fewer.

    Returns:
        (n, count), the largest first.
    """
    xp = array_namespace(queries, memory)
    rows = [_largest_of_rows(queries[start : start + _ROWS], memory, count) for start in range(0, len(queries), _ROWS)]
    found = xp.concat(rows) if rows else queries[:, :0]
    return found if count == 1 else xp.flip(xp.sort(found, axis=1), axis=1)


def _largest_of_rows(queries: Array, memory: Array, count: int) -> Array:
    concat = array_namespace(queries).concat
    best = queries[:, :0]
    for start in range(0, len(memory), _COLUMNS):
        products = queries @ memory[start : start + _COLUMNS].T
        best = _largest(concat([best, _largest(products, count)], axis=1), count)
    return best


def _largest(values: Array, count: int) -> Array:
    """The ``count`` largest values of each row, in any order."""
    if values.shape[1] <= count:
        return values
    if count == 1:
        return array_namespace(values).max(values, axis=1, keepdims=True)
    return -smallest(-values, count)
