"""From the embeddings of tiles to the score and the maps of each picture, as a recipe says. Tensors in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from winspect.embeddings import Embeddings
from winspect.recipes import Recipe
from winspect.scoring import class_score, combine, few_shot_map, zero_shot_map


@dataclass(frozen=True)
class References:
    """What is kept of the good samples of a class: every vector, one row each.

    Attributes:
        patches: (rows, width); windows: scale -> (rows, embedding).
    """

    patches: Tensor
    windows: Mapping[int, Tensor]

    @classmethod
    def collect(cls, samples: Sequence[Embeddings]) -> References:
        """The vectors of all tiles of all samples."""
        together = Embeddings.concatenate(samples).map(lambda tensor: tensor.flatten(0, -2))
        assert together.patches is not None  # encoded with patches=True by the predictor
        return cls(patches=together.patches, windows=together.windows)


@dataclass(frozen=True)
class PictureScores:
    """The judgement of one picture.

    Attributes:
        score: 1 is most anomalous.
        tile_maps: float32 (tiles, rows, columns) on the patch grid.
    """

    score: float
    tile_maps: np.ndarray


def judge(
    embeddings: Embeddings,
    text: Tensor,
    references: References | None,
    recipe: Recipe,
    grid_hw: tuple[int, int],
    tiles_per_picture: list[int],
) -> list[PictureScores]:
    """Scores and maps of pictures, each a run of consecutive tiles.

    A picture's zero-shot score is the arithmetic mean of its tiles', its association the maximum over its tiles.

    Args:
        embeddings: of all tiles, in order.
        text: (2, embedding), normal and anomalous.
        references: good samples of the class, or None for zero-shot.
    """

    def score(vectors: Tensor) -> Tensor:
        return class_score(vectors, text, temperature=recipe.temperature)

    image_scores = score(embeddings.image)
    window_scores = {scale: score(windows) for scale, windows in embeddings.windows.items()}
    zero_shot = zero_shot_map(image_scores, window_scores, grid_hw, stride=recipe.stride)
    associations = None
    if references is not None and embeddings.patches is not None:
        associations = few_shot_map(
            embeddings.patches,
            embeddings.windows,
            references.patches,
            references.windows,
            grid_hw,
            stride=recipe.stride,
        )
    per_picture = zip(
        image_scores.split(tiles_per_picture),
        zero_shot.split(tiles_per_picture),
        [None] * len(tiles_per_picture) if associations is None else associations.split(tiles_per_picture),
        strict=True,
    )
    return [_combine_tiles(*tiles) for tiles in per_picture]


def _combine_tiles(image_scores: Tensor, zero_shot: Tensor, associations: Tensor | None) -> PictureScores:
    def as_one_map(maps: Tensor) -> Tensor:
        return maps.flatten(0, 1)[None]  # the tiles of one picture, one above the other

    score, maps = combine(
        image_scores.mean()[None], as_one_map(zero_shot), None if associations is None else as_one_map(associations)
    )
    return PictureScores(float(score), maps.reshape(zero_shot.shape).cpu().numpy())
