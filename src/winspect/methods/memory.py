"""Patch memory: how far each patch is from the nearest patch of the good samples.

Source: AnomalyDINO (arXiv 2405.14529).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from winspect.backbones.embeddings import LAST_NORM, Embeddings, Needs
from winspect.errors import ReferencesError
from winspect.methods.coreset import groups, thinned
from winspect.methods.dropping import kept_vectors, mean_of_largest_inside, of_pictures, spread
from winspect.methods.foreground import foreground
from winspect.methods.method import CutPicture, Method, PictureScores, References, split
from winspect.methods.neighbours import largest_products
from winspect.methods.samples import checked_vectors, given
from winspect.methods.settings import check_seed, check_setting, check_size, is_count, is_number, whole_size
from winspect.methods.upsampling import Upsampling
from winspect.pictures.tiles import Preprocess
from winspect.system.arrays import Array, like, normalize, to_numpy

MEMORY, ROWS = "memory", "rows"

_MOST_ROTATIONS = 360
_WIDEST_SIGMA = 1000
_SMALLEST_CORESET = 1e-6


@dataclass(frozen=True)
class Memory(Method):
    """A patch's score is 1 - cosine to the nearest patch of all good samples; a picture's the mean of its largest.

    References are ``memory``, float (rows, width) of length 1, the rows of a sample together, and ``rows``, int64
    (samples,), how many are each sample's.

    Attributes:
        size: shorter edge of pictures in pixels; the aspect ratio is kept.
        layer: whose patch vectors are compared, by the names of :class:`~winspect.backbones.embeddings.Needs`.
        rotations: views of each good sample, evenly around the circle, the upright one among them; 0 or 1 for that
            alone, as for parts that always lie the same way.
        top_share: share of a picture's patches, the most anomalous ones, whose mean is its score; the largest where
            that is less than a patch.
        mask: patches of a picture's background score 0; see :mod:`.foreground`. Good samples keep theirs.
        sigma: of the Gaussian that smooths maps, in pixels of the picture; 0 for none.
        coreset: share of the good samples' patches that is kept, above 0 to 1; see :mod:`.coreset`. Many samples are
            thinned in groups of about 32768 patches.
        seed: of the coreset.
        limit_gb: memory that is refused beyond, in 10^9 bytes.
        strict: refuse a size that is no multiple of the patch, instead of rounding it down.
    """

    size: int = 448
    layer: str = LAST_NORM
    rotations: int = 8
    top_share: float = 0.01
    mask: bool = False
    sigma: float = 4.0
    coreset: float = 1.0
    seed: int = 0
    limit_gb: float = 4.0
    strict: bool = False

    name = "memory"
    score_range = (0.0, 2.0)
    reads_text = False
    zero_shot = False
    joins = True
    kept = frozenset({MEMORY})

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, need: str) -> None:
            check_setting(ok, self, name, need)

        check_size(self)
        check_seed(self)
        check(isinstance(self.layer, str) and self.layer != "", "layer", "a layer's name, such as last_norm or block_9")
        check(is_count(self.rotations, 0, _MOST_ROTATIONS), "rotations", f"a whole number, 0 to {_MOST_ROTATIONS}")
        check(is_number(self.top_share, 0, 1), "top_share", "a number from 0 to 1")
        check(isinstance(self.mask, bool), "mask", "true or false")
        check(is_number(self.sigma, 0, _WIDEST_SIGMA), "sigma", f"pixels, 0 to {_WIDEST_SIGMA}")
        check(is_number(self.coreset, _SMALLEST_CORESET, 1), "coreset", "a number above 0, at most 1")
        check(is_number(self.limit_gb, 0), "limit_gb", "a number of gigabytes, 0 or more")

    def preprocess(self, preprocess: Preprocess, patch: int) -> Preprocess:
        """See :class:`Method`; the aspect ratio is kept."""
        size = whole_size(self.size, patch, strict=self.strict)
        return replace(preprocess, size=size, aspect=True, patch=patch)

    def for_model(
        self, scoring: Mapping[str, Any], model: str, *, depth: int | None = None, patch: int | None = None
    ) -> Memory:
        """See :class:`Method`: the size in whole patches."""
        return self if patch is None else replace(self, size=whole_size(self.size, patch, strict=self.strict))

    def angles(self, sample: int) -> Sequence[float]:
        """See :class:`Method`."""
        return [view * 360 / self.rotations for view in range(1, self.rotations)]

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """See :class:`Method`."""
        return Needs(layers=(self.layer,))

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`.

        Raises:
            ReferencesError: a sample's vectors are not numbers, or the memory is larger than ``limit_gb``.
        """
        counts = [self._count(sample) for sample in samples]
        together = list(groups(counts))
        kept = [max(1, round(self.coreset * sum(counts[group]))) for group in together]
        first = samples[0].patches[self.layer]
        xp, width = array_namespace(first), first.shape[-1]
        self._check_rows(sum(counts), width)
        memory = xp.empty((sum(kept), width), dtype=xp.float32, device=device(first))
        rows, filled = [], 0
        for group, count in zip(together, kept, strict=True):
            vectors = [self._vectors(samples[number], number) for number in range(len(samples))[group]]
            memory[filled : filled + count], kept_rows = thinned(vectors, count, seed=self.seed)
            filled += count
            rows.append(kept_rows)
        return References({MEMORY: memory, ROWS: like(np.concatenate(rows).astype(np.int64), memory)})

    def _count(self, sample: Embeddings) -> int:
        """Patches of a good sample that are kept."""
        inside = sample.inside_of(self.layer)
        return math.prod(sample.patches[self.layer].shape[:-1]) if inside is None else int(inside.sum())

    def samples_refusal(self, count: int, sample: Embeddings) -> str | None:
        """See :class:`Method`."""
        return self._refusal_of_rows(count * self._count(sample), sample.patches[self.layer].shape[-1])

    def _refusal_of_rows(self, rows: int, width: int) -> str | None:
        """Why good samples' patches, before they are thinned, make too large a memory: the bytes, and what fits."""
        limit, row = self.limit_gb * 1e9, 4 * width
        needed = row * max(1, round(self.coreset * rows))
        if needed <= limit:
            return None
        share = math.floor(limit / (row * rows) * 1000) / 1000
        thinner = f"keep a share of them with coreset={share:g}, " if share else ""
        return (
            f"{rows} patches of good samples, {width} numbers each, make a memory of {needed} bytes at "
            f"coreset={self.coreset:g}, more than limit_gb={self.limit_gb:g} allows: {thinner}take fewer samples or "
            "rotations, or raise limit_gb"
        )

    def _check_rows(self, rows: int, width: int) -> None:
        reason = self._refusal_of_rows(rows, width)
        if reason is not None:
            raise ReferencesError(reason)

    def _vectors(self, sample: Embeddings, number: int) -> Array:
        """All patches of a good sample that are kept, of length 1: (rows, width)."""
        return normalize(checked_vectors(kept_vectors(sample, self.layer), number))

    def join(self, parts: Sequence[References]) -> References:
        """What is kept of the good samples of several calls of :meth:`fit`, in order: adds samples to others.

        Raises:
            ReferencesError: the memory is larger than ``limit_gb``.
        """
        concat = array_namespace(parts[0][MEMORY]).concat
        rows = sum(len(part[MEMORY]) for part in parts)
        replace(self, coreset=1.0)._check_rows(rows, parts[0][MEMORY].shape[1])
        return References({name: concat([part[name] for part in parts]) for name in (MEMORY, ROWS)})

    def remove(self, references: References, sample: int) -> References:
        """What is kept without a sample, counted from 0.

        Of a coreset its rows go; others that they stood for do not come back.

        Raises:
            ReferencesError: it is the last.
        """
        memory, rows = references[MEMORY], references[ROWS]
        if len(rows) == 1:
            raise ReferencesError("the last good sample cannot be removed: recipe memory needs at least one")
        concat = array_namespace(memory).concat
        start = int(sum(rows[:sample]))
        stop = start + int(rows[sample])
        return References(
            {
                MEMORY: concat([memory[:start], memory[stop:]]),
                ROWS: concat([rows[:sample], rows[sample + 1 :]]),
            }
        )

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
        patches, inside = embeddings.patches[self.layer], embeddings.inside_of(self.layer)
        xp = array_namespace(patches)
        cosines = largest_products(normalize(kept_vectors(embeddings, self.layer)), references[MEMORY])
        distances = spread(xp.clip(1 - cosines, min=0.0, max=2.0), inside)
        distances = xp.reshape(distances, patches.shape[:3])
        if self.mask:
            parts = like(_foregrounds(to_numpy(patches), inside), distances)
            distances = distances * xp.astype(parts, distances.dtype)
        return [
            PictureScores(mean_of_largest_inside(maps, compared, self.top_share), to_numpy(maps), self._upsampling)
            for (_, maps), compared in zip(split(pictures, distances), of_pictures(pictures, inside), strict=True)
        ]

    @property
    def _upsampling(self) -> Upsampling:
        return Upsampling(sigma=self.sigma)


def _foregrounds(patches: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """The mask of each tile; a tile whose vectors are not numbers keeps all, and fails by its score."""
    return np.stack(
        [
            foreground(tile, None if inside is None else inside[number])
            if np.isfinite(tile).all()
            else np.ones(tile.shape[:2], bool)
            for number, tile in enumerate(patches)
        ]
    )
