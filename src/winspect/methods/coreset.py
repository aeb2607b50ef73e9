"""A few vectors that stand for many: greedy farthest point. Arrays only."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from winspect.system.arrays import Array, like

_PROJECTED = 128


def farthest_points(vectors: Array, count: int, *, seed: int) -> np.ndarray:
    """Choose vectors one by one, each the farthest from those chosen before.

    Distances are exact Euclidean distances of a random projection to 128 dimensions (Johnson and Lindenstrauss), or of
    the vectors themselves where they have no more. The first vector is drawn.

    Args:
        vectors: float (n, width).
        count: 1 to n.
        seed: of the projection and of the first vector.

    Returns:
        int64 (count,), places in ascending order. The work grows with n * count.
    """
    random = np.random.default_rng(seed)
    points = _projected(vectors, random)
    xp = array_namespace(points)
    chosen = [int(random.integers(len(points)))]
    squares = xp.sum(points * points, axis=1)
    apart = xp.full_like(squares, xp.inf)
    while len(chosen) < count:
        latest = chosen[-1]
        apart = xp.minimum(apart, squares - 2 * (points @ points[latest]) + squares[latest])
        apart[latest] = -xp.inf  # rounding could leave a chosen point farther than a copy of it
        chosen.append(int(xp.argmax(apart)))
    return np.sort(np.array(chosen))


def _projected(vectors: Array, random: np.random.Generator) -> Array:
    width = vectors.shape[1]
    if width <= _PROJECTED:
        return vectors
    projection = random.standard_normal((width, _PROJECTED)) / np.sqrt(_PROJECTED)
    return vectors @ like(projection.astype(np.float32), vectors)
