"""Distances of a picture's stem maps to those of good samples, as logarithms. Arrays only.

A patch's distance is one minus its largest cosine with a patch of the good samples. A picture's is the mean of its
largest half percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace

from winspect.methods.coreset import groups, thinned
from winspect.methods.dropping import kept
from winspect.methods.neighbours import largest_products
from winspect.system.arrays import Array, like, mean_of_largest

SMALLEST = 1e-3
"""The least distance: pictures that differ in nothing but how their file was compressed are closer."""
TOP_SHARE = 0.005

_SMALLEST_LOOK = 1e-4
_BESIDE = 2
_SEED = 0


def memory_of(samples: Sequence[Array], most: int) -> tuple[Array, np.ndarray]:
    """The memory of good samples' patches, thinned where they are too many.

    Args:
        samples: of each its unit vectors, float32 (rows, width).
        most: rows to keep; of more, those that :func:`~winspect.methods.coreset.farthest_points` chooses among about
            32768 at a time.

    Returns:
        The memory, unit vectors (rows, width); and how many are each sample's.
    """
    xp = array_namespace(samples[0])
    counts = np.array([len(vectors) for vectors in samples])
    kept, rows = [], []
    for group in groups(counts):
        count = sum(counts[group])
        fewer = max(1, round(most * count / sum(counts))) if sum(counts) > most else count
        vectors, kept_rows = thinned(samples[group], fewer, seed=_SEED)
        kept.append(vectors)
        rows.append(kept_rows)
    return xp.concat(kept), np.concatenate(rows)


def nearest(vectors: Array, memory: Array) -> Array:
    """Distance of each unit vector, float32 (n, width), to the nearest of a memory: (n,), at least :data:`SMALLEST`."""
    return array_namespace(vectors).clip(1 - largest_products(vectors, memory), min=SMALLEST)


def largest_log(distances: Array) -> float:
    """The logarithm of the mean of the largest half percent of a picture's distances (n,)."""
    return float(np.log(mean_of_largest(distances, TOP_SHARE)))


def crowding(vectors: Array, grid_hw: tuple[int, int], inside: np.ndarray | None = None) -> float:
    """How far a picture's patches are from each other, as :func:`largest_log` of their distances to the nearest.

    Patches at most two rows and columns apart do not count: they show the same spot.

    Args:
        vectors: unit vectors, float32 (rows * columns, width).
        grid_hw: rows and columns.
        inside: bool (rows, columns), the patches that count; None for all.
    """
    xp = array_namespace(vectors)
    cosines = vectors @ vectors.T
    if inside is not None:
        cosines[:, like(~inside.ravel(), vectors)] = -xp.inf
    rows, columns = (like(part, vectors) for part in _beside(grid_hw))
    cosines[rows, columns] = -xp.inf
    found = kept(1 - xp.max(cosines, axis=1), inside)
    return largest_log(xp.clip(xp.where(xp.isinf(found), xp.zeros_like(found), found), min=SMALLEST))


def _beside(grid_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of patches of a grid that show the same spot."""
    height, width = grid_hw
    row, column = np.divmod(np.arange(height * width), width)
    pairs = []
    for down in range(-_BESIDE, _BESIDE + 1):
        for right in range(-_BESIDE, _BESIDE + 1):
            inside = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            here = np.flatnonzero(inside)
            pairs.append((here, here + down * width + right))
    first, second = zip(*pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)


def look_logs(looks: Array, known: Array) -> Array:
    """Log distance of each look (n, 2 * channels) to the nearest known one (m, 2 * channels): (n,)."""
    xp = array_namespace(looks)
    # Difference by difference: a picture that is a good sample itself is at 0, not at a product's rounding.
    apart = xp.linalg.vector_norm(looks[:, None] - known[None], axis=2) / known.shape[1] ** 0.5
    return xp.log(xp.clip(xp.min(apart, axis=1), min=_SMALLEST_LOOK))
