"""Subspace of good patches: how much of a patch lies outside of what good samples vary in.

Source: SubspaceAD (arXiv 2602.23013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import Embeddings
from winspect.methods.dropping import kept, mean_of_largest_inside, of_pictures, spread, upsampled
from winspect.methods.method import CutPicture, PictureScores, References, split
from winspect.methods.samples import checked_vectors, given
from winspect.methods.settings import (
    check_blocks,
    check_seed,
    check_setting,
    check_size,
    is_count,
    is_number,
)
from winspect.methods.square import SquareOfBlocks
from winspect.methods.upsampling import BILINEAR, Upsampling
from winspect.system.arrays import Array, like, to_numpy

MEAN, OUTSIDE, SCATTER, COUNT = "mean", "outside", "scatter", "count"

_BLOCKS = {24: (14, 15, 16, 17, 18), 40: (23, 24, 25, 26, 27, 28, 29)}
_LARGEST_ANGLE = 345
_MOST_ROTATIONS = 360
_WIDEST_SIGMA = 1000


def middle_blocks(depth: int) -> tuple[int, ...]:
    """The blocks that are averaged for a tower of so many, counted from 1.

    Those published for 12 (8, 9), 24 (14 to 18) and 40 blocks (23 to 29); for others those from two thirds to three
    quarters, as for 12.
    """
    last = max(1, 3 * depth // 4)
    return _BLOCKS.get(depth, tuple(range(min(last, max(1, 2 * depth // 3)), last + 1)))


@dataclass(frozen=True)
class Subspace(SquareOfBlocks):
    """A patch's score is the squared length of its part outside of the good samples' principal components.

    A map is at the size that the model sees, and a picture's score the mean of its largest values. References are
    ``mean``, float64 (width,); ``outside``, float32 (width, rest), the components left out; and, so that samples can
    be added, ``scatter``, float64 (width, width), and ``count``, int64 (1,), of all patches.

    Attributes:
        size: side of the square that pictures are resized to, in pixels.
        blocks: whose patch vectors are averaged, counted from 1, or names of layers; None for those of
            :func:`middle_blocks`.
        rotations: views of each good sample beside the upright one, at angles from 0 to 345 degrees that are drawn.
        variance: share of the good patches' variance that the fewest components must reach, 0 to 1.
        top_share: share of a map's pixels, the most anomalous ones, whose mean is the score; the largest where that is
            less than a pixel.
        sigma: of the 3 x 3 Gaussian that smooths maps, in pixels; 0 for none.
        seed: of the angles.
        strict: refuse a size that is no multiple of the patch, instead of rounding it down.
    """

    size: int = 672
    blocks: tuple[int | str, ...] | None = None
    rotations: int = 30
    variance: float = 0.99
    top_share: float = 0.01
    sigma: float = 4.0
    seed: int = 0
    strict: bool = False

    name = "subspace"
    score_range = (0.0, math.inf)
    reads_text = False
    zero_shot = False
    joins = True
    kept = frozenset({MEAN, OUTSIDE})
    blocks_of = staticmethod(middle_blocks)

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, need: str) -> None:
            check_setting(ok, self, name, need)

        check_size(self)
        check_seed(self)
        check_blocks(self)
        check(is_count(self.rotations, 0, _MOST_ROTATIONS), "rotations", f"a whole number, 0 to {_MOST_ROTATIONS}")
        for name in ("variance", "top_share"):
            check(is_number(getattr(self, name), 0, 1), name, "a number from 0 to 1")
        check(is_number(self.sigma, 0, _WIDEST_SIGMA), "sigma", f"pixels, 0 to {_WIDEST_SIGMA}")

    def angles(self, sample: int) -> Sequence[float]:
        """See :class:`Method`; a sample's are the same whatever others there are."""
        return np.random.default_rng([self.seed, sample]).uniform(0, _LARGEST_ANGLE, self.rotations).tolist()

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`.

        Raises:
            ReferencesError: a sample's vectors are not numbers.
        """
        return self.join([self._moments(sample, number) for number, sample in enumerate(samples)])

    def join(self, parts: Sequence[References]) -> References:
        """What is kept of the good samples of several calls of :meth:`fit`: adds samples to others."""
        xp = array_namespace(parts[0][MEAN])
        counts = [int(part[COUNT][0]) for part in parts]
        total = sum(counts)
        mean = sum(part[MEAN] * (count / total) for part, count in zip(parts, counts, strict=True))
        scatter = xp.zeros_like(parts[0][SCATTER])
        for part, count in zip(parts, counts, strict=True):
            apart = (part[MEAN] - mean)[:, None]
            scatter += part[SCATTER] + count * (apart @ apart.T)
        outside = like(_left_out(to_numpy(scatter) / max(total - 1, 1), self.variance), mean)
        return References({MEAN: mean, OUTSIDE: outside, SCATTER: scatter, COUNT: like(np.array([total]), mean)})

    def _features(self, embeddings: Embeddings) -> Array:
        """The mean of the blocks: (tiles, rows, columns, width)."""
        first, *others = (embeddings.patches[layer] for layer in self.layers)
        return sum(others, first) / (1 + len(others))

    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """See :class:`Method`; always with maps.

        Raises:
            ReferencesError: without good samples.
        """
        references = given(references, self.name)
        features = self._features(embeddings)
        xp = array_namespace(features)
        size_hw, inside = (self.size, self.size), embeddings.inside_of(self.layers[0])
        vectors = kept(xp.reshape(features, (-1, features.shape[-1])), inside)
        outside = (vectors - xp.astype(references[MEAN], features.dtype)) @ references[OUTSIDE]
        lengths = xp.reshape(spread(xp.sum(outside * outside, axis=-1), inside), features.shape[:3])
        smooth = _smoothed(upsampled(lengths, inside, BILINEAR, size_hw), self.sigma)
        upsampling = Upsampling(per_patch=self.size / features.shape[1])
        insides = of_pictures(pictures, embeddings.inside_on(size_hw))
        return [
            PictureScores(mean_of_largest_inside(maps, pixels, self.top_share), to_numpy(maps), upsampling)
            for (_, maps), pixels in zip(split(pictures, smooth), insides, strict=True)
        ]

    def _moments(self, sample: Embeddings, number: int) -> References:
        """Mean, scatter and count of all patches of a good sample that are kept, in float64."""
        features, inside = self._features(sample), sample.inside_of(self.layers[0])
        xp = array_namespace(features)
        vectors = xp.reshape(checked_vectors(features, number), (len(features), -1, features.shape[-1]))
        views = [kept(view, None if inside is None else inside[place]) for place, view in enumerate(vectors)]
        count = sum(map(len, views))
        mean = sum(xp.sum(xp.astype(view, xp.float64), axis=0) for view in views) / count
        scatter = mean[:, None] * 0
        for view in views:  # one at a time: float64 takes twice the room
            apart = xp.astype(view, xp.float64) - mean
            scatter = scatter + apart.T @ apart
        return References({MEAN: mean, SCATTER: scatter, COUNT: like(np.array([count]), mean)})


def _left_out(covariance: np.ndarray, variance: float) -> np.ndarray:
    """The principal components beyond the fewest that reach a share of the variance: float32 (width, rest)."""
    variances, components = np.linalg.eigh(covariance)  # ascending
    reached = np.cumsum([0, *np.clip(variances[::-1], 0, None)])
    fewest = int(np.searchsorted(reached, variance * reached[-1]))
    return np.ascontiguousarray(components[:, : len(variances) - fewest], dtype=np.float32)


def _smoothed(maps: Array, sigma: float) -> Array:
    """A 3 x 3 Gaussian along rows and columns of (batch, height, width); edges are mirrored without their own pixel."""
    if sigma == 0:
        return maps
    xp, side = array_namespace(maps), math.exp(-0.5 / sigma**2)
    for axis in (1, 2):
        lines = xp.moveaxis(maps, axis, 0)
        if len(lines) > 1:
            beside = xp.concat([lines[1:2], lines[:-1]]) + xp.concat([lines[1:], lines[-2:-1]])
            lines = (lines + side * beside) / (1 + 2 * side)
        maps = xp.moveaxis(lines, 0, axis)
    return maps
