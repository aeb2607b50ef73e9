"""Whether a batch falls into two clusters that say nothing of each other.

Where about half of a batch shares a change, each picture finds its nearest patches among those like it, and the change
is in no score.
"""

from __future__ import annotations

import math

import numpy as np

FEWEST = 8
"""Pictures from which on clusters are looked for; in a smaller batch they come about by chance."""

SMALLEST_SHARE = 0.3
"""Share of a batch that the smaller of two clusters of similar size has at least."""

SEPARATION = 0.95
"""How often a picture of the same cluster is nearer than one of the other. Measured on 24 pictures of each of four
generated products, with the bundled model: good ones, some defective, or with drifting brightness reach 0.69 to 0.86,
halves of which one is blurred or has the same mark, at one place or at several, 0.99 to 1.00; ``benchmarks.halves``."""


def find_halves(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two clusters of similar size; None where a batch does not fall into such, or is smaller than :data:`FEWEST`.

    Args:
        apart: (N, N), how far pictures are from each other; its diagonal does not count.

    Returns:
        Numbers of the pictures of each, in order.
    """
    count = len(apart)
    if count < FEWEST:
        return None
    ranks = _ranks(apart + apart.T)
    order = np.argsort(_main_axis(ranks), kind="stable")
    sizes = np.arange(math.ceil(SMALLEST_SHARE * count), count - math.ceil(SMALLEST_SHARE * count) + 1)
    ordered = ranks[np.ix_(order, order)]
    separations = [_separation(ordered, int(size)) for size in sizes]
    best = int(np.argmax(separations))
    if separations[best] < SEPARATION:
        return None
    first, second = np.sort(order[: sizes[best]]), np.sort(order[sizes[best] :])
    return (first, second) if first[0] < second[0] else (second, first)


def _ranks(apart: np.ndarray) -> np.ndarray:
    """For each picture, how many others are nearer to it than another: rows of 0 to N - 2; 0 for itself."""
    distances = apart.astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    ranks = np.argsort(np.argsort(distances, axis=1, kind="stable"), axis=1).astype(np.float64)
    np.fill_diagonal(ranks, 0)
    return ranks


def _main_axis(ranks: np.ndarray) -> np.ndarray:
    """Places on the axis along which pictures differ most: classical scaling of the ranks."""
    alike = -(ranks + ranks.T)
    alike -= alike.mean(axis=0)
    alike -= alike.mean(axis=1, keepdims=True)
    return np.linalg.eigh((alike + alike.T) / 2)[1][:, -1]


def _separation(ranks: np.ndarray, size: int) -> float:
    """How often one of the same cluster is nearer than one of the other, 0 to 1: the mean of all pictures' AUROCs.

    Args:
        ranks: in the order of the clusters.
        size: of the first.
    """
    found = []
    for others, rows in ((slice(size, None), slice(size)), (slice(size), slice(size, None))):
        across = ranks[rows, others]
        same, other = len(across) - 1, across.shape[1]
        found.append((across.sum(axis=1) - other * (other - 1) / 2) / (same * other))
    return float(np.concatenate(found).mean())
