"""Patches outside of the region of interest: dropped before the score, lowest in maps. Arrays only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from array_api_compat import array_namespace, device

from winspect.backbones.embeddings import Embeddings
from winspect.backbones.windows import window_indices
from winspect.methods.method import CutPicture, PictureScores
from winspect.methods.upsampling import Upsampling
from winspect.pictures.inside import Inside
from winspect.system.arrays import Array, like, mean_of_largest, merge

_SMALLEST = 1e-6


def kept(rows: Array, inside: np.ndarray | None) -> Array:
    """The rows (n, ...) of an array that lie inside: bool, n values of any shape; None for all."""
    if inside is None:
        return rows
    return array_namespace(rows).take(rows, like(np.flatnonzero(inside), rows), axis=0)


def kept_vectors(embeddings: Embeddings, layer: str) -> Array:
    """The vectors of all patches of a layer that lie inside, tile after tile: (rows, width)."""
    return kept(merge(embeddings.vectors(layer)), embeddings.inside_of(layer))


def spread(values: Array, inside: np.ndarray | None, lowest: float = 0.0) -> Array:
    """Undo :func:`kept`: values (k,) back to their places among n (n,), ``lowest`` at the others."""
    if inside is None:
        return values
    xp = array_namespace(values)
    padded = xp.concat([values, xp.full((1,), lowest, dtype=values.dtype, device=device(values))])
    places = np.full(inside.size, len(values))
    places[np.flatnonzero(inside)] = np.arange(len(values))
    return xp.take(padded, like(places, values), axis=0)


def of_pictures(pictures: Sequence[CutPicture], inside: np.ndarray | None) -> Iterator[np.ndarray | None]:
    """The rows of ``inside``, a tile each, of each picture."""
    start = 0
    for picture in pictures:
        yield None if inside is None else inside[start : start + picture.tiles]
        start += picture.tiles


def mean_of_largest_inside(maps: Array, inside: np.ndarray | None, share: float) -> float:
    """The mean of the largest share of what lies inside of a picture's maps (tiles, rows, columns)."""
    return mean_of_largest(kept(array_namespace(maps).reshape(maps, (-1,)), inside), share)


def windows_inside(inside: np.ndarray | None, scale: int, stride: int) -> np.ndarray | None:
    """Windows of a patch grid that hold a patch inside: bool (batch, rows, columns) to (batch, windows)."""
    if inside is None:
        return None
    rows, columns = inside.shape[1:]
    held = inside.reshape(len(inside), -1)[:, window_indices((rows, columns), scale, stride)]
    return np.asarray(held.any(axis=2))


def upsampled(maps: Array, inside: np.ndarray | None, upsampling: Upsampling, size_hw: tuple[int, int]) -> Array:
    """Maps (batch, rows, columns) at another size, from their patches inside alone.

    Where none is near, the value is 0.
    """
    if inside is None:
        return upsampling(maps, size_hw)
    xp = array_namespace(maps)
    weights = xp.astype(like(inside, maps), maps.dtype)
    shares = upsampling(weights, size_hw)
    values = upsampling(xp.where(weights > 0, maps, xp.zeros_like(maps)), size_hw)
    return xp.where(shares > _SMALLEST, values / xp.clip(shares, min=_SMALLEST), xp.zeros_like(values))


def lowest_outside(
    found: Sequence[PictureScores], embeddings: Embeddings, pictures: Sequence[CutPicture], lowest: float
) -> list[PictureScores]:
    """The same scores, with the method's lowest value outside of the region of interest in their maps."""
    if embeddings.inside is None:
        return list(found)
    ends = np.cumsum([picture.tiles for picture in pictures])
    return [
        _lowered(scores, embeddings.inside[end - picture.tiles : end], lowest)
        for scores, picture, end in zip(found, pictures, ends, strict=True)
    ]


def _lowered(scores: PictureScores, inside: Inside, lowest: float) -> PictureScores:
    maps = scores.tile_maps
    if maps is None:
        return scores
    rows, columns = maps.shape[1:]
    kept_cells = np.stack([tile.on((rows, columns)) for tile in inside])
    return replace(scores, tile_maps=np.where(kept_cells, maps, maps.dtype.type(lowest)))
