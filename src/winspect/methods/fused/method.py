"""Recipe `fused` of the bundled model: several distances to good samples, each standardised by what these say of it.

No single distance serves every part. Patches of the frozen stem at 448 pixels see small defects of a texture, the
trained patches at 240 pixels see those of an object, and the look of the whole picture sees what no patch shows. How
much each is worth differs from class to class, and the good samples say it: each is compared with the others. A
picture's four values are

* ``fine``, ``coarse``: its patches of the stem's stride-8 and stride-16 maps, see :mod:`.distances`;
* ``trained``: the largest of the map of :mod:`winspect.methods.winclip.fusion` without its zero-shot parts, which add
  nothing to it on generated products;
* ``look``: the logarithm of the distance of mean and deviation of each channel of the stride-8 map to the nearest good
  sample's.

Each becomes z = (value - centre) / scale (:mod:`.standard`), and the score is their soft maximum::

    score = sigmoid(image_scale * (log(exp z_1 + ... + exp z_4) - image_centre))

A map is the same for each patch, of the first three, on the stride-8 grid. Priors and scales are fitted on generated
products (``training/calibrate.py``).

Without good samples it is WinCLIP, but that the class token sees the picture at 448 pixels, too, where a small defect
is one; its score is that of the mean of both logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import LAST, STEM, STEM_8, STEM_16, WHOLE, Embeddings, Needs
from winspect.errors import SettingsError
from winspect.methods.dropping import kept, kept_vectors, spread, upsampled, windows_inside
from winspect.methods.fused.distances import SMALLEST, crowding, largest_log, look_logs, memory_of, nearest
from winspect.methods.fused.standard import Prior, centre_and_scale
from winspect.methods.method import CutPicture, PictureScores, References, split
from winspect.methods.samples import checked_vectors
from winspect.methods.upsampling import BILINEAR
from winspect.methods.winclip.fusion import fused_sums, largest_inside, look
from winspect.methods.winclip.log import Log
from winspect.methods.winclip.scoring import class_logit
from winspect.pictures.tiles import Preprocess
from winspect.system.arrays import Array, like, normalize, sigmoid, to_numpy

PARTS = ("fine", "coarse", "trained", "look")
_FUSED = "fused"
_TRAINED = (LAST, STEM)
_MEMORIES = {STEM_8: ("memory_8", 2**15), STEM_16: ("memory_16", 2**14)}
_LOOKS, _STANDARD = "fine_looks", "standard"
_ANY = Prior()
_LEFT_OUT = 8
"""Good samples that are compared with the others, at most; spread evenly over all."""
_COMPARED = 16


@dataclass(frozen=True)
class FusedSettings:
    """What was fitted for the model, and the sizes that it was fitted at.

    Attributes:
        size: side of the square that pictures are resized to, in pixels.
        tower_size: of the square that the transformer sees.
        fine, coarse, trained, look: what is expected of each part.
        image_centre, map_centre: the soft maxima that become 0.5.
        image_scale, map_scale: the logits that one unit of a soft maximum is worth.
    """

    size: int = 448
    tower_size: int = 240
    fine: Prior = _ANY
    coarse: Prior = _ANY
    trained: Prior = _ANY
    look: Prior = _ANY
    image_centre: float = 0.0
    map_centre: float = 0.0
    image_scale: float = 1.0
    map_scale: float = 1.0

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> FusedSettings:
        """From JSON."""
        known: dict[str, Any] = {name: Prior(**value) if name in PARTS else value for name, value in document.items()}
        return cls(**known)


@dataclass(frozen=True)
class Values:
    """What the parts give for tiles, before they are standardised.

    Attributes:
        tiles: (tiles, 4), a column for each of :data:`PARTS`.
        maps: (tiles, rows, columns) of each of the first three.
        insides: bool, of each of these maps what lies inside of the region of interest; None where all does.
    """

    tiles: np.ndarray
    maps: tuple[Array, Array, Array]
    insides: tuple[np.ndarray | None, ...] = (None, None, None)


@dataclass(frozen=True)
class Fused(Log):
    """Scores each tile; the score of a picture with good samples is the largest of its tiles'.

    References are those of :class:`~winspect.methods.winclip.log.Log`; ``memory_8``, ``memory_16``, see
    :func:`.distances.memory_of`, of at most 32768 and 16384 rows, which ten and twenty pictures of one tile fill;
    ``fine_looks`` (tiles, 80); and ``standard`` (4, 2), centre and scale of each part.

    Attributes:
        fitted: priors and scales, fitted for the model.
    """

    fitted: FusedSettings = field(default=FusedSettings(), compare=False)

    def for_model(
        self, scoring: Mapping[str, Any], model: str, *, depth: int | None = None, patch: int | None = None
    ) -> Fused:
        """As :class:`Log`, and what was fitted for this method."""
        if _FUSED not in scoring:
            raise SettingsError(
                f"recipe fused is calibrated for winspect-tiny alone, not for {model}; use recipe paper or tiles"
            )
        method: Any = super().for_model(scoring, model, depth=depth, patch=patch)
        return replace(method, fitted=FusedSettings.read(scoring[_FUSED]))

    @property
    def scoring(self) -> Mapping[str, Any]:
        """See :class:`Method`."""
        return {**super().scoring, _FUSED: asdict(self.fitted)}

    def preprocess(self, preprocess: Preprocess, patch: int) -> Preprocess:
        """See :class:`Method`; a square of 448 pixels."""
        return replace(preprocess, size=self.fitted.size)

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """See :class:`Method`; of the larger picture the stem's maps, or without good samples its class token."""
        layers = (*_TRAINED, *_MEMORIES) if few_shot else (WHOLE,)
        return Needs(self.recipe.scales, self.recipe.stride, layers, tower_size=self.fitted.tower_size)

    @property
    def kept(self) -> frozenset[str]:
        """See :class:`Method`."""
        return super().kept | {*(name for name, _ in _MEMORIES.values()), _LOOKS, _STANDARD}

    def fit(self, samples: Sequence[Embeddings]) -> References:
        """See :class:`Method`.

        Raises:
            ReferencesError: a sample's vectors are not numbers.
        """
        return self._learn(samples, compared=0)[0]

    def learn(self, samples: Sequence[Embeddings]) -> tuple[References, list[float]]:
        """See :class:`Method`: exp(0.1 soft maximum), standardised by what the others say, of the first 16 samples.

        With 0.1, one and a half units of the soft maximum are the least spread that good samples are granted: on 29
        generated lines, in sets of 4 and 8, one set in thirty was warned of falsely, and half of the defective pictures
        were named.
        """
        return self._learn(samples, compared=_COMPARED)

    def _learn(self, samples: Sequence[Embeddings], *, compared: int) -> tuple[References, list[float]]:
        known, rows = self.memories(samples)
        count = len(samples)
        some = np.unique(np.linspace(0, count - 1, min(count, _LEFT_OUT)).round().astype(int)).tolist()
        first = list(range(min(count, compared) if count > 1 else 0))
        values = {number: self.left_out(samples, known, rows, [number]) for number in sorted({*some, *first})}
        crowdings = self.crowdings([samples[number] for number in some])
        standard = self._standard(np.concatenate([values[number] for number in some]), count, crowdings)
        arrays = {**known.arrays, _STANDARD: like(standard.astype(np.float32), known[_LOOKS])}
        if first and first != some:
            crowdings = self.crowdings(samples[: len(first)])
        scores = [math.nan] * count
        for number in first:
            others = np.concatenate([values[other] for other in first if other != number])
            if len(values[number]):
                soft = soft_images(values[number], self._standard(others, count, crowdings))
                scores[number] = math.exp(0.1 * soft.max())
        return References(arrays, known.tiles), scores

    def memories(self, samples: Sequence[Embeddings]) -> tuple[References, Mapping[str, np.ndarray]]:
        """What is kept of good samples but for ``standard``; and of each memory, how many rows are each sample's."""
        trained = [replace(sample, patches={layer: sample.patches[layer] for layer in _TRAINED}) for sample in samples]
        references = super().fit(trained)
        arrays, rows = dict(references.arrays), {}
        for layer, (name, most) in _MEMORIES.items():
            vectors = [normalize(checked_vectors(kept_vectors(each, layer), n)) for n, each in enumerate(samples)]
            arrays[name], rows[name] = memory_of(vectors, most)
        looks = [_look(sample) for sample in samples]
        arrays[_LOOKS] = array_namespace(looks[0]).concat(looks)
        return References(arrays, references.tiles), {**rows, **_kept_rows(samples, self.recipe.stride)}

    def _standard(self, left_out: np.ndarray, samples: int, crowdings: Sequence[float]) -> np.ndarray:
        """Centre and scale of each part: (4, 2)."""
        priors = [getattr(self.fitted, part) for part in PARTS]
        return np.array(
            [
                centre_and_scale(prior, left_out[:, number], samples=samples, crowding=crowdings[number])
                for number, prior in enumerate(priors)
            ]
        )

    def crowdings(self, samples: Sequence[Embeddings]) -> list[float]:
        """The crowding that each part's prior goes by: the mean over the tiles; 0 for parts that have none."""
        found = []
        for layer in _MEMORIES:
            each = []
            for sample in samples:
                vectors, insides = normalize(checked_vectors(sample.vectors(layer), 0)), sample.inside_of(layer)
                for number, tile in enumerate(vectors):
                    inside = None if insides is None else insides[number]
                    each.append(crowding(tile, sample.patches[layer].shape[1:3], inside))
            found.append(float(np.mean(each)))
        return [*found, *[0.0] * (len(PARTS) - len(found))]

    def left_out(
        self, samples: Sequence[Embeddings], known: References, rows: Mapping[str, np.ndarray], some: Sequence[int]
    ) -> np.ndarray:
        """Values of the tiles of ``some`` good samples, each compared with the other ones: (tiles, 4).

        Copies of other samples say nothing, and are passed over.
        """
        if len(samples) == 1:
            return np.empty((0, len(PARTS)))
        tiles = np.array([len(sample.image) for sample in samples])
        values = [self.values(samples[number], _without(known, rows, tiles, number)).tiles for number in some]
        found = np.concatenate(values)
        return found[found[:, 0] > math.log(SMALLEST) + 1e-3]

    def values(self, embeddings: Embeddings, references: References) -> Values:
        """What the parts give for tiles against good samples."""
        xp = array_namespace(embeddings.image)
        columns, maps = [], []
        for layer, (name, _) in _MEMORIES.items():
            patches, inside = embeddings.patches[layer], embeddings.inside_of(layer)
            vectors = normalize(xp.astype(kept_vectors(embeddings, layer), xp.float32))
            distances = spread(nearest(vectors, references[name]), inside, SMALLEST)
            distances = xp.reshape(distances, patches.shape[:3])
            columns.append(np.array([_largest_log(tile, inside, number) for number, tile in enumerate(distances)]))
            maps.append(xp.log(distances))
        # A zero-shot score of 0.5 adds nothing.
        neutral = xp.full_like(embeddings.patches[STEM][..., 0], 0.5)
        _, trained = fused_sums(
            embeddings, neutral[:, 0, 0], neutral, references, self.weights, stride=self.recipe.stride
        )
        insides = tuple(embeddings.inside_on((int(each.shape[1]), int(each.shape[2]))) for each in (*maps, trained))
        columns.append(to_numpy(largest_inside(xp.reshape(trained, (len(trained), -1)), insides[-1])))
        columns.append(to_numpy(look_logs(_look(embeddings), references[_LOOKS])))
        return Values(np.stack(columns, axis=1).astype(np.float64), (maps[0], maps[1], trained), insides)

    def _zero_shot_scores(self, embeddings: Embeddings, text: Array) -> Array:
        """Zero-shot scores (tiles,), 0 to 1: of both sizes."""
        both = (embeddings.image, embeddings.patches[WHOLE][:, 0, 0])
        small, large = (class_logit(vectors, text, temperature=self.recipe.temperature) for vectors in both)
        return sigmoid((small + large) / 2)

    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """See :class:`Method`; always with maps."""
        if references is None:
            return super().score(embeddings, pictures, text=text)
        fitted, standard = self.fitted, to_numpy(references[_STANDARD]).astype(np.float64)
        values = self.values(embeddings, references)
        scores = sigmoid(fitted.image_scale * (soft_images(values.tiles, standard) - fitted.image_centre))
        found = sigmoid(fitted.map_scale * (soft_maps(values, standard) - fitted.map_centre))
        return [PictureScores(float(its.max()), to_numpy(maps)) for _, its, maps in split(pictures, scores, found)]


def soft_images(values: np.ndarray, standard: np.ndarray) -> np.ndarray:
    """The soft maximum of the standardised parts (tiles, 4) of each tile: (tiles,)."""
    return np.logaddexp.reduce((values - standard[:, 0]) / standard[:, 1], axis=1)


def fine_maps(values: Values) -> list[Array]:
    """The maps on the grid of the first, the finest: each (tiles, rows, columns)."""
    grid_hw = values.maps[0].shape[1:]
    coarse = zip(values.maps[1:], values.insides[1:], strict=True)
    return [values.maps[0], *(upsampled(maps, inside, BILINEAR, grid_hw) for maps, inside in coarse)]


def soft_maps(values: Values, standard: np.ndarray) -> Array:
    """The soft maximum of the standardised parts of each patch of the finest grid: (tiles, rows, columns)."""
    first, *others = (
        (maps - float(centre)) / float(scale)
        for maps, (centre, scale) in zip(fine_maps(values), standard, strict=False)
    )
    logaddexp = array_namespace(first).logaddexp
    return reduce(logaddexp, others, first)


def _look(embeddings: Embeddings) -> Array:
    """Mean and deviation of each channel of the stride-8 map: float32 (tiles, 80)."""
    return look(checked_vectors(embeddings.vectors(STEM_8), 0), embeddings.inside_of(STEM_8))


def _largest_log(distances: Array, insides: np.ndarray | None, number: int) -> float:
    """:func:`.distances.largest_log` of what lies inside of a tile's distances (rows, columns)."""
    flat = array_namespace(distances).reshape(distances, (-1,))
    inside = flat if insides is None else kept(flat, insides[number])
    return largest_log(inside) if len(inside) else math.log(SMALLEST)


def _kept_rows(samples: Sequence[Embeddings], stride: int) -> dict[str, np.ndarray]:
    """How many rows are each sample's in the arrays of the trained parts; empty where all have as many a tile."""
    if samples[0].inside is None:
        return {}
    insides = [sample.inside_on(sample.grid_hw) for sample in samples]
    patches = np.array([inside.sum() for inside in insides if inside is not None])
    rows = dict.fromkeys(("patches", "stem", "crowding"), patches)
    for scale in samples[0].windows:
        windows = [windows_inside(inside, scale, stride) for inside in insides]
        rows[f"windows_{scale}"] = np.array([each.sum() for each in windows if each is not None])
    return rows


def _without(known: References, rows: Mapping[str, np.ndarray], tiles: np.ndarray, sample: int) -> References:
    """What is known of the other good samples; in each array the rows of a sample stand together."""
    share = tiles / tiles.sum()
    arrays = {}
    for name, array in known.arrays.items():
        counts = rows[name] if name in rows else np.rint(share * len(array)).astype(int)
        start, count = int(counts[:sample].sum()), int(counts[sample])
        arrays[name] = array_namespace(array).concat([array[:start], array[start + count :]])
    return References(arrays, known.tiles)
