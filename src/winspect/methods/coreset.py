"""A few vectors that stand for many: greedy farthest point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from array_api_compat import array_namespace

from winspect.system.arrays import Array, like, to_numpy

_PROJECTED = 128
_GROUP = 2**15  # rows: the work of a coreset grows with their square


def farthest_points(vectors: Array, count: int, *, seed: int) -> np.ndarray:
    """Choose vectors one by one, each the farthest from those chosen before.

    Distances are exact Euclidean distances of a random projection to 128 dimensions (Johnson and Lindenstrauss), or of
    the vectors themselves where they have no more. The first vector is drawn.

    Args:
        vectors: float (n, width).
        count: 1 to n.
        seed: of the projection and of the first vector.

    Returns:
        int64 (count,), places in ascending order. The work grows with n * count; it is done in main memory.
    """
    random = np.random.default_rng(seed)
    points = to_numpy(_projected(vectors, random))
    chosen = [int(random.integers(len(points)))]
    squares = (points * points).sum(axis=1)
    apart = np.full_like(squares, np.inf)
    while len(chosen) < count:
        latest = chosen[-1]
        np.minimum(apart, squares - 2 * (points @ points[latest]) + squares[latest], out=apart)
        apart[latest] = -np.inf  # rounding could leave a chosen point farther than a copy of it
        chosen.append(int(apart.argmax()))
    return np.sort(np.array(chosen))


def thinned(samples: Sequence[Array], count: int, *, seed: int) -> tuple[Array, np.ndarray]:
    """The vectors of good samples that are thinned together: all of them, or the :func:`farthest_points` where fewer.

    Args:
        samples: of each its vectors, float (rows, width).
        count: rows to keep, 1 to all.
        seed: of the choice.

    Returns:
        Vectors (count, width), a sample's together, and how many are each sample's, int64.
    """
    vectors = array_namespace(*samples).concat(list(samples))
    places = np.arange(len(vectors))
    if count < len(vectors):
        places = farthest_points(vectors, count, seed=seed)
        vectors = vectors[like(places, vectors)]
    ends = np.searchsorted(places, np.cumsum([len(sample) for sample in samples]))
    return vectors, np.diff(ends, prepend=0)


def groups(counts: Sequence[int] | np.ndarray) -> Iterator[slice]:
    """Samples, by their numbers of rows, that are thinned together: about 32768 rows each."""
    start = rows = 0
    for number, count in enumerate(counts):
        if rows and rows + count > _GROUP:
            yield slice(start, number)
            start, rows = number, 0
        rows += count
    yield slice(start, len(counts))


def _projected(vectors: Array, random: np.random.Generator) -> Array:
    width = vectors.shape[1]
    if width <= _PROJECTED:
        return vectors
    projection = random.standard_normal((width, _PROJECTED)) / np.sqrt(_PROJECTED)
    return vectors @ like(projection.astype(np.float32), vectors)
