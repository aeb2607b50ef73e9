"""Nearest patches between all pairs of pictures, by matrix products in blocks.

Source: MuSc (arXiv 2401.16753), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from array_api_compat import array_namespace

from winspect.system.arrays import Array, merge, to_numpy

# A block of products (16 MB) is read again from the processor's cache.
_PRODUCTS = 2**22

# Squared distance below which the rounding of products, about 2e-7, would show in the distance.
_CLOSE = 4e-4


def nearest_in_pairs(load: Callable[[slice], Array], nearest: np.ndarray, *, pictures: int) -> None:
    """For each patch of each picture, the squared distance to the nearest patch of each other picture.

    The products of a pair serve both its pictures, so that all pairs cost N * N / 2 * patches * patches * width
    multiplications.

    Args:
        load: vectors of consecutive pictures, (count, patches, width).
        nearest: float32 (N, N, patches), to be filled: ``nearest[i, j, p]`` for patch p of picture i in picture j. Its
            diagonal is left alone.
        pictures: how many are loaded at a time; twice as many are in memory.
    """
    blocks = list(_blocks(len(nearest), pictures))
    for number, block in enumerate(blocks):
        ours = _with_squares(load(block))
        for place in range(len(ours)):
            _compare(ours[place], block.start + place, ours[place + 1 :], block.start + place + 1, nearest)
        for other in blocks[number + 1 :]:
            theirs = _with_squares(load(other))
            for place in range(len(ours)):
                _compare(ours[place], block.start + place, theirs, other.start, nearest)


def mean_of_nearest(squares: np.ndarray, share: float) -> np.ndarray:
    """The mean distance to the closest pictures: squared distances (pictures, patches) to (patches,).

    Args:
        share: of the pictures that count as close, rounded down; at least one.
    """
    count = max(1, int(share * len(squares)))
    return np.sqrt(np.partition(squares, count - 1, axis=0)[:count], dtype=np.float64).mean(axis=0)


def _compare(picture: Array, place: int, others: Array, first: int, nearest: np.ndarray) -> None:
    """One picture, (patches, width), with others, (count, patches, width), whose places begin with ``first``."""
    xp, patches = array_namespace(picture), len(picture)
    # [vector, -square / 2, 1] @ [vector, 1, -square / 2] is minus half of the squared distance.
    turned = xp.concat([picture[:, :-2], picture[:, -1:], picture[:, -2:-1]], axis=1)
    for block in _blocks(len(others), max(1, _PRODUCTS // patches**2)):
        vectors = others[block]
        products = xp.reshape(merge(vectors) @ turned.T, (len(vectors), patches, patches))
        in_ours, in_theirs = xp.max(products, axis=2), xp.max(products, axis=1)
        batch, patch = xp.nonzero(in_ours > -_CLOSE / 2)
        if len(batch):
            closest = picture[xp.argmax(products[batch, patch], axis=1)]
            in_ours[batch, patch] = _exact(vectors[batch, patch], closest)
        batch, patch = xp.nonzero(in_theirs > -_CLOSE / 2)
        if len(batch):
            closest = vectors[batch, xp.argmax(products[batch, :, patch], axis=1)]
            in_theirs[batch, patch] = _exact(picture[patch], closest)
        places = slice(first + block.start, first + block.stop)
        nearest[places, place] = to_numpy(-2 * in_ours)
        nearest[place, places] = to_numpy(-2 * in_theirs)


def _exact(vectors: Array, others: Array) -> Array:
    """Minus half of the squared distance, row by row, from the differences."""
    apart = vectors - others
    return -0.5 * array_namespace(apart).sum(apart * apart, axis=1)


def _with_squares(vectors: Array) -> Array:
    """Each vector with minus half of its squared length, and 1."""
    xp = array_namespace(vectors)
    halves = -0.5 * xp.sum(vectors * vectors, axis=-1, keepdims=True)
    return xp.concat([vectors, halves, xp.ones_like(halves)], axis=-1)


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
