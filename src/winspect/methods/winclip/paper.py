"""WinCLIP as published (arXiv 2303.14814): zero-shot, and with good samples the sum of equation 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import LAST, LAST_NORM, Embeddings, Needs
from winspect.methods.dropping import kept, windows_inside
from winspect.methods.method import CutPicture, Method, PictureScores, References, split
from winspect.methods.winclip.recipes import Recipe
from winspect.methods.winclip.scoring import class_score, combine, few_shot_map, zero_shot_map
from winspect.pictures.tiles import Cut
from winspect.system.arrays import Array, merge, to_numpy

PATCHES, WINDOWS = "patches", "windows_"


@dataclass(frozen=True)
class Paper(Method):
    """A picture's zero-shot score is the mean of its tiles', its association the largest of its tiles'.

    References are every vector of all tiles of the good samples, one row each: ``patches`` (rows, width) and
    ``windows_S`` (rows, embedding) for each scale S. Rows of one sample and tile stand together.
    """

    recipe: Recipe

    @property
    def name(self) -> str:
        """See :class:`Method`."""
        return self.recipe.name

    @property
    def cut(self) -> Cut:
        """See :class:`Method`."""
        return Cut(self.recipe.tiling, self.recipe.tile_stride)

    @property
    def text_average(self) -> str:
        """See :class:`Method`."""
        return self.recipe.text_average

    @property
    def underscores(self) -> str:
        """See :class:`Method`."""
        return self.recipe.underscores

    def document(self) -> dict[str, Any]:
        """See :class:`Method`."""
        return asdict(self.recipe)

    @property
    def _layer(self) -> str:
        return LAST_NORM if self.recipe.patch_norm else LAST

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """Windows for maps and references alone: they are eleven twelfths of the work."""
        scales = self.recipe.scales if few_shot or maps else ()
        return Needs(scales, self.recipe.stride, (self._layer,) if few_shot else ())

    @property
    def kept(self) -> frozenset[str]:
        """See :class:`Method`."""
        return frozenset([PATCHES, *(f"{WINDOWS}{scale}" for scale in self.recipe.scales)])

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`."""
        together = Embeddings.concatenate(samples)
        inside = together.inside_on(together.grid_hw)
        windows = {
            f"{WINDOWS}{scale}": self._rows(vectors, windows_inside(inside, scale, self.recipe.stride))
            for scale, vectors in together.windows.items()
        }
        counts = {len(sample.image) for sample in samples}
        return References({PATCHES: self._rows(together.vectors(self._layer), inside), **windows}, _only(counts))

    def _rows(self, vectors: Array, inside: np.ndarray | None) -> Array:
        """The vectors of good samples that are kept: (tiles, n, width) to (rows, width)."""
        return kept(merge(vectors), inside)

    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """See :class:`Method`."""
        scores, zero_shot = self.zero_shot_maps(embeddings, text)
        if references is None:
            return [
                PictureScores(float(self._mean(picture, its_scores)), to_numpy(its_maps) if maps else None)
                for picture, its_scores, its_maps in split(pictures, scores, zero_shot)
            ]
        associations = self._associations(embeddings, references, pictures)
        return [self._sum(*rows) for rows in split(pictures, scores, zero_shot, associations)]

    def zero_shot_maps(self, embeddings: Embeddings, text: Array) -> tuple[Array, Array]:
        """Zero-shot scores (tiles,) and maps (tiles, rows, columns), 0 to 1."""
        temperature = self.recipe.temperature
        scores = self._zero_shot_scores(embeddings, text)
        windows = {
            scale: class_score(vectors, text, temperature=temperature) for scale, vectors in embeddings.windows.items()
        }
        return scores, zero_shot_map(scores, windows, embeddings.grid_hw, stride=self.recipe.stride)

    def _zero_shot_scores(self, embeddings: Embeddings, text: Array) -> Array:
        """Zero-shot scores (tiles,), 0 to 1."""
        return class_score(embeddings.image, text, temperature=self.recipe.temperature)

    def _associations(self, embeddings: Embeddings, references: References, pictures: Sequence[CutPicture]) -> Array:
        """Association maps (tiles, rows, columns), every tile against all tiles of the references."""
        known = references[PATCHES], {scale: references[f"{WINDOWS}{scale}"] for scale in embeddings.windows}
        return self._association(embeddings, *known)

    def _association(self, embeddings: Embeddings, patches: Array, windows: Mapping[int, Array]) -> Array:
        tokens, stride = embeddings.vectors(self._layer), self.recipe.stride
        inside = embeddings.inside_on(embeddings.grid_hw)
        known = patches, windows
        return few_shot_map(tokens, embeddings.windows, *known, embeddings.grid_hw, stride=stride, inside=inside)

    def _mean(self, picture: CutPicture, scores: Array) -> Array:
        """The mean of a picture's tiles."""
        return array_namespace(scores).mean(scores)

    def _sum(self, picture: CutPicture, scores: Array, zero_shot: Array, associations: Array) -> PictureScores:
        """Equation 6 of one picture, its tiles' maps one above the other."""
        score, summed = combine(self._mean(picture, scores)[None], merge(zero_shot)[None], merge(associations)[None])
        maps = array_namespace(summed).reshape(summed, zero_shot.shape)
        return PictureScores(float(score[0]), to_numpy(maps))


def _only(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None
