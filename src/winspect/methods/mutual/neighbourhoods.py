"""Patches with their surroundings. Source: MuSc (arXiv 2401.16753), section 3.2 and its published code. Arrays only."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from winspect.system.arrays import Array, like, normalize

_EPS = 1e-5


def standardised(features: Array, inside: np.ndarray | None = None) -> Array:
    """Each picture's values to mean 0 and variance 1 over all of (rows, columns, width): (batch, ...) to the same.

    Args:
        inside: bool (batch, rows, columns), the patches that count; others become 0. None for all.
    """
    xp = array_namespace(features)
    if inside is not None:
        counted = xp.astype(like(inside[..., None], features), features.dtype)
        count = xp.sum(counted, axis=(1, 2, 3), keepdims=True) * features.shape[-1]
        centred = (features - xp.sum(features * counted, axis=(1, 2, 3), keepdims=True) / count) * counted
        return centred / xp.sqrt(xp.sum(centred * centred, axis=(1, 2, 3), keepdims=True) / count + _EPS)
    everything = tuple(range(1, features.ndim))
    centred = features - xp.mean(features, axis=everything, keepdims=True)
    variance = xp.mean(centred * centred, axis=everything, keepdims=True)
    return centred / xp.sqrt(variance + _EPS)


def with_neighbours(features: Array, side: int) -> Array:
    """Each patch as the mean of its ``side`` x ``side`` neighbourhood, zeros beyond the edge, scaled to length 1.

    The source flattens a neighbourhood channel by channel and pools it back to the width adaptively: each pool then is
    the neighbourhood of a single channel.

    Args:
        features: (batch, rows, columns, width).
        side: odd; 1 for the patches as they are.
    """
    for axis in (1, 2):
        features = _sums(features, axis, side // 2)
    return normalize(features)


def _sums(features: Array, axis: int, reach: int) -> Array:
    """Sums of each place with ``reach`` places before and behind it along an axis."""
    xp = array_namespace(features)
    lines = xp.moveaxis(features, axis, 0)
    total = xp.asarray(lines, copy=True)
    for step in range(1, min(reach, len(lines) - 1) + 1):
        total[step:] += lines[:-step]
        total[:-step] += lines[step:]
    return xp.moveaxis(total, 0, axis)
