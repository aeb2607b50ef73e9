"""From the embeddings of tiles to the score and the maps of each picture, as a recipe says. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import Embeddings
from winspect.methods.winclip.fusion import FusionSettings, GoodSamples, log_fusion
from winspect.methods.winclip.recipes import Recipe
from winspect.methods.winclip.scoring import class_score, combine, few_shot_map, zero_shot_map
from winspect.system.arrays import Array, merge, to_numpy


@dataclass(frozen=True)
class References:
    """What is kept of the good samples of a class: every vector of all their tiles, one row each.

    Attributes:
        patches: (rows, width); windows: scale -> (rows, embedding). Rows of one sample and tile stand together.
        log_fusion: what the log fusion keeps; None for models without stem features.
        tiles: of each sample; None where they differ, or where it is not known.
    """

    patches: Array
    windows: Mapping[int, Array]
    log_fusion: GoodSamples | None
    tiles: int | None = None

    @classmethod
    def collect(cls, samples: Sequence[Embeddings]) -> References:
        """From the embeddings of the samples, made with ``patches=True``."""
        together = Embeddings.concatenate(samples)
        if together.patches is None:
            raise ValueError("references need embeddings with patch tokens; encode with patches=True")
        return cls(
            patches=merge(together.patches),
            windows={scale: merge(windows) for scale, windows in together.windows.items()},
            log_fusion=None if together.stem is None else GoodSamples.collect([together]),
            tiles=_only({len(sample.image) for sample in samples}),
        )

    def of_tile(self, number: int, patches: int, windows: Mapping[int, int]) -> tuple[Array, dict[int, Array]]:
        """Patches and windows of one tile of every sample.

        Args:
            number: from 0.
            patches: vectors of a tile; windows: scale -> vectors of a tile.
        """

        def cut(rows: Array, count: int) -> Array:
            tiled = array_namespace(rows).reshape(rows, (-1, self.tiles, count, rows.shape[-1]))
            return merge(tiled[:, number])

        return cut(self.patches, patches), {scale: cut(self.windows[scale], count) for scale, count in windows.items()}

    def map(self, function: Callable[[Array], Array]) -> References:
        """The same function on every array. What the log fusion shares with the paper's sum stays shared."""
        patches = function(self.patches)
        windows = {scale: function(vectors) for scale, vectors in self.windows.items()}
        good = self.log_fusion
        if good is not None:
            own = {name: function(getattr(good, name)) for name in ("stem", "crowding", "looks")}
            good = replace(good, patches=patches, windows=windows, **own)
        return References(patches, windows, good, self.tiles)


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
    text: Array,
    references: References | None,
    recipe: Recipe,
    grid_hw: tuple[int, int],
    tiles_per_picture: Sequence[int],
    fusion: FusionSettings | None = None,
    *,
    last_counts: Sequence[int] | None = None,
) -> list[PictureScores]:
    """Scores and maps of pictures, each a run of consecutive tiles.

    A picture's zero-shot score is the arithmetic mean of its tiles', its association the maximum over its tiles, or
    their mean where tiles are compared with the same tile of the references. Log fusion scores each tile; the
    picture's score is the maximum.

    Args:
        embeddings: of all tiles, in order.
        text: (2, embedding), normal and anomalous.
        references: good samples of the class, or None for zero-shot.
        fusion: the model's settings of log fusion, for a recipe that uses it.
        last_counts: how often each picture's last tile counts in its means; None for once.
    """

    def score(vectors: Array) -> Array:
        return class_score(vectors, text, temperature=recipe.temperature)

    tiles = list(tiles_per_picture)
    lasts = [1] * len(tiles) if last_counts is None else list(last_counts)
    scores = score(embeddings.image)
    window_scores = {scale: score(windows) for scale, windows in embeddings.windows.items()}
    maps = zero_shot_map(scores, window_scores, grid_hw, stride=recipe.stride)
    if references is None:
        split = zip(lasts, _split(tiles, scores, maps), strict=True)
        return [_picture(_mean(own, last), own_maps) for last, (own, own_maps) in split]
    if recipe.fusion == "log" and fusion is not None and references.log_fusion is not None:
        good = references.log_fusion
        fused, maps = log_fusion(embeddings, scores, maps, good, fusion, stride=recipe.stride)
        return [_picture(array_namespace(own).max(own), own_maps) for own, own_maps in _split(tiles, fused, maps)]
    associations = _associations(embeddings, references, recipe, grid_hw, tiles)
    split = zip(lasts, _split(tiles, scores, maps, associations), strict=True)
    return [_sum(*own, last=last, mean_of_tiles=recipe.tile_references == "same") for last, own in split]


def _split(tiles: list[int], *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The rows of each picture."""
    start = 0
    for count in tiles:
        yield tuple(array[start : start + count] for array in arrays)
        start += count


def _mean(scores: Array, last: int) -> Array:
    """Mean of a picture's tiles, the last of which counts several times."""
    xp = array_namespace(scores)
    return xp.mean(scores) if last == 1 else (xp.sum(scores) + (last - 1) * scores[-1]) / (len(scores) + last - 1)


def _only(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None


def _picture(score: Array, maps: Array) -> PictureScores:
    return PictureScores(float(score), to_numpy(maps))


def _associations(
    embeddings: Embeddings, references: References, recipe: Recipe, grid_hw: tuple[int, int], tiles: list[int]
) -> Array:
    patches, windows = embeddings.patches, embeddings.windows
    if patches is None:
        raise ValueError("few-shot scores need embeddings with patch tokens; encode with patches=True")
    if recipe.tile_references == "pooled":
        known = (references.patches, references.windows)
        return few_shot_map(patches, windows, *known, grid_hw, stride=recipe.stride)
    counts = {scale: own.shape[1] for scale, own in windows.items()}
    numbers = [number for count in tiles for number in range(count)]
    by_tile = [references.of_tile(number, patches.shape[1], counts) for number in range(max(numbers) + 1)]
    maps = [
        few_shot_map(
            patches[row : row + 1],
            {scale: own[row : row + 1] for scale, own in windows.items()},
            *by_tile[number],
            grid_hw,
            stride=recipe.stride,
        )
        for row, number in enumerate(numbers)
    ]
    return array_namespace(patches).concat(maps)


def _sum(scores: Array, maps: Array, associations: Array, *, last: int, mean_of_tiles: bool) -> PictureScores:
    """The paper's sum for one picture: its association is the largest of its tiles' largest, or their mean."""
    if mean_of_tiles:
        by_tile, summed = combine(scores, maps, associations)
        return _picture(_mean(by_tile, last), summed)
    # The tiles' maps stand one above the other.
    score, summed = combine(_mean(scores, last)[None], merge(maps)[None], merge(associations)[None])
    return _picture(score[0], array_namespace(maps).reshape(summed, maps.shape))
