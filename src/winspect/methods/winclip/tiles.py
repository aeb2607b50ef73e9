"""WinCLIP on square tiles along the longer edge, as its base program counts them: repeats, and tile against tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import Embeddings
from winspect.errors import ReferencesError
from winspect.methods.method import CutPicture, PictureScores, References
from winspect.methods.winclip.paper import PATCHES, WINDOWS, Paper
from winspect.methods.winclip.scoring import combine
from winspect.pictures.tiles import last_tile_count
from winspect.system.arrays import Array, like, merge, to_numpy

_FIX = "tile_references is same: use pictures of one shape, or tile_references=pooled"


@dataclass(frozen=True)
class Tiles(Paper):
    """Differs from :class:`Paper` in two settings: ``repeat_last`` and ``tile_references``."""

    @property
    def _same(self) -> bool:
        """Tile i is compared with tile i of the references, and the tiles' largest associations are averaged."""
        return self.recipe.tile_references == "same"

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`."""
        references = super().fit(samples)
        if self._same and references.tiles is None:
            counts = ", ".join(str(len(sample.image)) for sample in samples)
            raise ReferencesError(f"the good samples have {counts} tiles, and {_FIX}")
        return references

    def _rows(self, vectors: Array, inside: np.ndarray | None) -> Array:
        """As of :class:`Paper`; where tile is compared with tile all have as many rows, copies of one that is kept."""
        if inside is None or not self._same:
            return super()._rows(vectors, inside)
        flat = inside.reshape(len(inside), -1)
        places = np.where(flat, np.arange(flat.shape[1]), flat.argmax(axis=1)[:, None])
        rows = places + np.arange(len(flat))[:, None] * flat.shape[1]
        return array_namespace(vectors).take(merge(vectors), like(rows.ravel(), vectors), axis=0)

    def refusal(self, picture: CutPicture, references: References) -> str | None:
        """See :class:`Method`."""
        if not self._same or picture.tiles == references.tiles:
            return None
        return f"it has {picture.tiles} tiles, each reference {references.tiles}, and {_FIX}"

    def _mean(self, picture: CutPicture, scores: Array) -> Array:
        """The mean of a picture's tiles, the last as often as the base program cuts it."""
        if not self.recipe.repeat_last or picture.size_wh is None:
            return super()._mean(picture, scores)
        more = last_tile_count(*picture.size_wh, stride_fraction=self.recipe.tile_stride) - 1
        return (array_namespace(scores).sum(scores) + more * scores[-1]) / (len(scores) + more)

    def _associations(self, embeddings: Embeddings, references: References, pictures: Sequence[CutPicture]) -> Array:
        if not self._same:
            return super()._associations(embeddings, references, pictures)
        patches = embeddings.vectors(self._layer).shape[1]
        windows = {scale: vectors.shape[1] for scale, vectors in embeddings.windows.items()}
        numbers = [number for picture in pictures for number in range(picture.tiles)]
        tiles = [
            (
                _of_tile(references, PATCHES, number, patches),
                {scale: _of_tile(references, f"{WINDOWS}{scale}", number, count) for scale, count in windows.items()},
            )
            for number in range(max(numbers) + 1)
        ]
        maps = [self._association(embeddings.rows(row, row + 1), *tiles[number]) for row, number in enumerate(numbers)]
        return array_namespace(maps[0]).concat(maps)

    def _sum(self, picture: CutPicture, scores: Array, zero_shot: Array, associations: Array) -> PictureScores:
        if not self._same:
            return super()._sum(picture, scores, zero_shot, associations)
        by_tile, maps = combine(scores, zero_shot, associations)
        return PictureScores(float(self._mean(picture, by_tile)), to_numpy(maps))


def _of_tile(references: References, name: str, number: int, count: int) -> Array:
    """The vectors of one tile, counted from 0, of every sample; a tile has ``count`` of them."""
    rows = references[name]
    tiled = array_namespace(rows).reshape(rows, (-1, references.tiles, count, rows.shape[-1]))
    return merge(tiled[:, number])
