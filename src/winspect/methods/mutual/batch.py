"""A batch of pictures, scored beside each other."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from winspect.errors import SettingsError, SourceError
from winspect.methods.batch_method import BatchScores
from winspect.methods.method import Embeddings, PictureScores
from winspect.methods.mutual.halves import find_halves
from winspect.methods.mutual.neighbourhoods import standardised, with_neighbours
from winspect.methods.mutual.neighbouring import scores_among_neighbours
from winspect.methods.mutual.pairs import mean_of_nearest, nearest_in_pairs
from winspect.methods.mutual.room import room
from winspect.methods.upsampling import Upsampling
from winspect.system.arrays import Array, like, to_numpy

if TYPE_CHECKING:
    from winspect.methods.mutual.method import Mutual

logger = logging.getLogger(__name__)

FEWEST = 4
"""Pictures that can be scored beside each other."""

ALIGNED = Upsampling(align_corners=True)

_FEATURES, _NEAREST, _VECTORS = 1 / 2, 1 / 4, 1 / 8  # shares of the memory limit; vectors are needed twice
_FARTHEST = 0.05
_FAR = 1e3
"""All entries of the vector of a patch outside of its picture's region of interest, which is near to none."""


class MutualBatch:
    """Features of a batch, kept as the method says until all pictures are there.

    Args:
        method: the settings.
        count: pictures that will be added at most.

    Raises:
        SourceError: fewer than :data:`FEWEST`.
        SettingsError: fewer than that in a group.
    """

    def __init__(self, method: Mutual, count: int) -> None:
        _check_count(count)
        if count < FEWEST * method.groups:
            raise SettingsError(
                f"groups: got {method.groups} for {count} pictures, need at least {FEWEST} pictures a group"
            )
        self._method, self._count = method, count
        self._features: dict[str, np.ndarray] = {}
        self._images: list[np.ndarray] = []
        self._usable: list[bool] = []
        self._inside: list[np.ndarray] = []
        self._kind: Array = None

    def add(self, embeddings: Embeddings) -> list[bool]:
        """See :class:`~winspect.methods.batch_method.Batch`.

        Raises:
            SettingsError: layers, or pictures, whose grids of patches differ.
        """
        layers = [embeddings.patches[layer] for layer in self._method.layers]
        xp = array_namespace(*layers)
        if not self._features:
            self._kind = layers[0][:0]
            self._make_room([tuple(layer.shape[1:]) for layer in layers])
        grids = {tuple(layer.shape[1:3]) for layer in layers} | {self._grid_hw}
        if len(grids) > 1:
            raise SettingsError(f"recipe mutual needs patches on one grid, got {', '.join(map(str, sorted(grids)))}")
        start = len(self._usable)
        rows = slice(start, start + len(layers[0]))
        usable = [all(bool(xp.all(xp.isfinite(layer[row]))) for layer in layers) for row in range(len(layers[0]))]
        keep = like(np.array(usable)[:, None, None, None], layers[0])
        for name, features in zip(self._method.layers, layers, strict=True):
            values = xp.where(keep, xp.astype(features, xp.float32), xp.zeros_like(features, dtype=xp.float32))
            self._features[name][rows] = to_numpy(standardised(values, embeddings.inside_on(self._grid_hw)))
        self._usable += usable
        everything = np.ones((len(usable), *self._grid_hw), bool)
        inside = embeddings.inside_on(self._grid_hw)
        self._inside.append((everything if inside is None else inside).reshape(len(usable), -1))
        self._images.append(to_numpy(embeddings.image))
        return usable

    def _make_room(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Room for the layers of all pictures, of which each has these."""
        limit = self._method.limit_gb * 1e9 * _FEATURES
        fits = 4 * self._count * sum(map(math.prod, shapes)) <= limit
        whole = self._method.keep == "fp32" or (self._method.keep == "auto" and fits)
        for layer, shape in zip(self._method.layers, shapes, strict=True):
            size = (self._count, *shape)
            self._features[layer] = room(size, np.float32 if whole else np.float16, limit_bytes=limit / len(shapes))

    @property
    def _grid_hw(self) -> tuple[int, int]:
        return next(iter(self._features.values())).shape[1:3]

    def scores(self) -> BatchScores:
        """See :class:`~winspect.methods.batch_method.Batch`."""
        usable, count = np.flatnonzero(self._usable), len(self._usable)
        _check_count(len(usable), count - len(usable))
        inside = np.concatenate(self._inside)
        maps = np.full(inside.shape, np.nan)
        apart = np.full((count, count), np.nan, np.float32)
        halves = None
        for group in self._groups(usable):
            maps[group], distances = self._score_group(group, inside[group])
            apart[np.ix_(group, group)] = distances
            found = find_halves(distances)
            if found is not None and halves is None:
                halves = tuple(group[found[0]].tolist()), tuple(group[found[1]].tolist())
        grids = maps.reshape(count, *self._grid_hw).astype(np.float32)
        scores = np.full(count, np.nan)
        scores[usable] = self._picture_scores(grids[usable], np.concatenate(self._images)[usable])
        pictures = [
            PictureScores(float(score), grid[None] if good else None, ALIGNED)
            for score, grid, good in zip(scores, grids, self._usable, strict=True)
        ]
        return BatchScores(pictures, halves, apart)

    def _groups(self, usable: np.ndarray) -> list[np.ndarray]:
        """Numbers of the pictures that are compared with each other; in fewer groups where too many failed."""
        groups = min(self._method.groups, len(usable) // FEWEST)
        if groups < self._method.groups:
            logger.warning("groups: %d pictures can be used, and are compared in %d groups", len(usable), groups)
        if groups == 1:
            return [usable]
        order = np.random.default_rng(self._method.seed).permutation(usable)
        return [np.sort(group) for group in np.array_split(order, groups)]

    def _score_group(self, group: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (pictures, all patches) of a group, and how far each two pictures are apart.

        Args:
            inside: bool (pictures, all patches); those outside in every picture are left out.
        """
        method, count = self._method, len(group)
        limit = method.limit_gb * 1e9
        places = np.flatnonzero(inside.any(axis=0))
        inside, patches = inside[:, places], len(places)
        nearest = room((count, count, patches), np.float32, limit_bytes=limit * _NEAREST)
        maps, apart = np.zeros((count, patches)), np.zeros((count, count))
        for layer in method.layers:
            width = self._features[layer].shape[-1] + 2
            pictures = max(1, int(limit * _VECTORS / (4 * patches * width)))
            for side in method.neighbourhoods:
                nearest_in_pairs(self._loading(layer, side, group, places, inside), nearest, pictures=pictures)
                for number in range(count):
                    others = np.arange(count) != number
                    squares = nearest[number][others]
                    maps[number] += mean_of_nearest(squares, method.share) * inside[number]
                    apart[number, others] += _far_patches(squares[:, inside[number]])
        comparisons = len(method.layers) * len(method.neighbourhoods)
        whole = np.zeros((count, math.prod(self._grid_hw)))
        whole[:, places] = maps / comparisons
        return whole, apart / comparisons

    def _loading(self, layer: str, side: int, group: np.ndarray, places: np.ndarray, inside: np.ndarray) -> Any:
        def load(pictures: slice) -> Array:
            features = self._features[layer][group[pictures]].astype(np.float32)
            vectors = with_neighbours(like(features, self._kind), side)
            xp = array_namespace(vectors)
            vectors = xp.reshape(vectors, (len(vectors), -1, vectors.shape[-1]))
            if len(places) < vectors.shape[1]:
                vectors = xp.take(vectors, like(places, vectors), axis=1)
            if not inside[pictures].all():
                kept = like(inside[pictures][..., None], vectors)
                vectors = xp.where(kept, vectors, xp.full_like(vectors, _FAR))
            return vectors

        return load

    def _picture_scores(self, grids: np.ndarray, images: np.ndarray) -> np.ndarray:
        side = self._method.size
        largest = np.array([ALIGNED(grid[None], (side, side)).max() for grid in grids])
        if images.shape[1] == 0 or not self._method.neighbours:
            return largest
        return scores_among_neighbours(largest, images, self._method.neighbours)


def _far_patches(squares: np.ndarray) -> np.ndarray:
    """How far one picture is from others, (pictures, patches): the mean distance of its farthest patches."""
    count = max(1, int(_FARTHEST * squares.shape[1]))
    return np.sqrt(-np.partition(-squares, count - 1, axis=1)[:, :count]).mean(axis=1)


def _check_count(count: int, failed: int = 0) -> None:
    if count < FEWEST:
        left_out = f" ({failed} failed)" if failed else ""
        raise SourceError(
            f"recipe mutual compares pictures with each other: got {count}{left_out}, need at least {FEWEST}"
        )
