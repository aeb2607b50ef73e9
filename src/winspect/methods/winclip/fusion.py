"""The bundled model's few-shot score: distances to good samples and the zero-shot score, added as logarithms.

Arrays only. WinCLIP adds a zero-shot score to a distance (equation 6 of arXiv 2303.14814). A small model's zero-shot
score is often close to 0 or 1, and then drowns every distance. Here logarithms are added: a patch counts as
anomalous by how many *times* farther it is from every good sample than good patches usually are.

For a patch q with stem features f and patch token t, and good patches r::

    stem(q)  = min over r of  log( |f - f_r| / sqrt(C) )  -  crowding * log s_r
    patch(q) = log( (1 - max over r of cos(t, t_r)) / 2 )
    window(q, scale) = log of the paper's association map of that window scale
    map(q)   = a_stem stem(q) + a_patch patch(q) + a_window (sum over scales of window(q, scale))
               + a_zero logit(zero-shot map at q)
    image    = max over q of map(q) + a_image logit(zero-shot score) + a_look log(look)

s_r says how alone the good patch r is among the good patches: its mean distance to the three nearest that are not its
neighbours in the picture. In a busy texture every patch is far from its nearest, and a distance says less. ``look`` is
the distance of the picture's mean and deviation of each stem channel to the nearest good picture's: it sees changes of
the whole texture that no single patch shows. The weights were chosen on generated products of families that the
model was not trained on; see :class:`FusionSettings`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import LAST, STEM, Embeddings
from winspect.backbones.windows import spread_to_patches
from winspect.methods.dropping import kept, spread, windows_inside
from winspect.methods.method import References
from winspect.methods.winclip.scoring import association
from winspect.system.arrays import Array, like, logit, merge, sigmoid, smallest, squared_distances

_NEAREST_GOOD = 3
_SMALLEST_DISTANCE = 1e-4
_SMALLEST_CROWDING = 0.1
_SMALLEST_PROBABILITY = 1e-6
# Elements of a distance matrix computed at a time: bounds memory however many references there are.
_LARGEST_DISTANCE_MATRIX = 1 << 22
# Good samples that one is compared with at a time: bounds memory too, and the block stays in the cache.
_BLOCK_SAMPLES = 16


@dataclass(frozen=True)
class FusionSettings:
    """Weights of the parts, and the scale of the result. All were fitted on held-out generated products.

    Attributes:
        stem, patch, window, zero_shot: weights of the parts of the map; ``window`` for each window scale.
        image_zero_shot, look: weights of the two further parts of the image score.
        crowding: how far a busy texture's own distances are divided out, 0 (not) to 1 (wholly).
        image_centre, map_centre: the sums that become 0.5.
        image_scale, map_scale: the logits that one unit of the sum is worth.
        more_references: what is added for each doubling of the references: the nearest of many is always nearer.
    """

    stem: float = 2.0
    patch: float = 1.0
    window: float = 0.25
    zero_shot: float = 0.05
    image_zero_shot: float = 0.1
    look: float = 1.0
    crowding: float = 0.5
    image_centre: float = 0.0
    map_centre: float = 0.0
    image_scale: float = 1.0
    map_scale: float = 1.0
    more_references: float = 0.0


def keep(stem: Array, inside: np.ndarray | None = None) -> dict[str, Array]:
    """What is kept of K good samples beside their patch tokens and windows.

    Args:
        stem: (K, patches, channels) stem features.
        inside: bool (K, rows, columns), the patches that are kept; None for all.

    Returns:
        ``stem`` (rows, channels); ``crowding`` (rows,), how alone each of them is; ``looks`` (K, 2 * channels), mean
        and deviation of each stem channel.
    """
    return {"stem": kept(merge(stem), inside), "crowding": crowding(stem, inside), "looks": look(stem, inside)}


def look(stem: Array, inside: np.ndarray | None = None) -> Array:
    """Mean and deviation of each channel over a picture: (batch, patches, channels) to (batch, 2 * channels).

    Args:
        inside: bool (batch, rows, columns), the patches that count; None for all.
    """
    xp = array_namespace(stem)
    if inside is None:
        return xp.concat([xp.mean(stem, axis=1), xp.std(stem, axis=1, correction=1)], axis=1)
    counted = xp.astype(like(inside.reshape(len(inside), -1, 1), stem), stem.dtype)
    count = xp.sum(counted, axis=1, keepdims=True)
    mean = xp.sum(stem * counted, axis=1, keepdims=True) / xp.clip(count, min=1)
    squares = xp.sum((stem - mean) ** 2 * counted, axis=1) / xp.clip(count - 1, min=1)[:, 0]
    return xp.concat([mean[:, 0], xp.sqrt(squares)], axis=1)


def crowding(stem: Array, inside: np.ndarray | None = None) -> Array:
    """How alone each patch of the good samples is: its mean distance to the three nearest others, at least 0.1.

    The patch itself and its eight neighbours in its own picture do not count: they show the same spot.

    Args:
        stem: (K, patches, channels) of a square grid of patches.
        inside: bool (K, rows, columns), the patches that are kept; None for all. Of fewer than three others the mean.

    Returns:
        (rows,) distances in standard deviations of a channel, of those that are kept.
    """
    xp = array_namespace(stem)
    samples, patches, channels = stem.shape
    same_spot = like(_neighbours(patches), stem)
    blocks = [slice(start, start + _BLOCK_SAMPLES) for start in range(0, samples, _BLOCK_SAMPLES)]
    found = []
    for sample in range(samples):
        nearest = []
        for block in blocks:
            apart = squared_distances(stem[sample], merge(stem[block]))
            if block.start <= sample < block.stop:
                start = (sample - block.start) * patches
                beside = slice(start, start + patches)
                apart[:, beside] = xp.where(same_spot, xp.inf, apart[:, beside])
            if inside is not None:
                apart[:, like(~inside[block].ravel(), stem)] = xp.inf
            nearest.append(smallest(apart, min(_NEAREST_GOOD, apart.shape[1])))
        squares = smallest(xp.concat(nearest, axis=1), _NEAREST_GOOD)
        found.append(_mean_of_finite(xp.sqrt(xp.clip(squares, min=0.0))))
    return kept(xp.clip(xp.concat(found) / channels**0.5, min=_SMALLEST_CROWDING), inside)


def _mean_of_finite(values: Array) -> Array:
    """The mean of each row's finite values, 0 without any: (n, m) to (n,)."""
    xp = array_namespace(values)
    finite = xp.isfinite(values)
    count = xp.sum(xp.astype(finite, values.dtype), axis=1)
    return xp.sum(xp.where(finite, values, xp.zeros_like(values)), axis=1) / xp.clip(count, min=1)


def _neighbours(patches: int) -> np.ndarray:
    """Which patches of a square grid show the same spot as each, itself and its eight neighbours: bool (n, n)."""
    side = round(patches**0.5)
    row, column = np.divmod(np.arange(patches), side)
    return (np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1)


def stem_distance(stem: Array, good: References, crowding_power: float, inside: np.ndarray | None = None) -> Array:
    """``stem(q)`` of the module's formula: (batch, patches, channels) to (batch, patches) logarithms.

    Args:
        inside: bool (batch, rows, columns), the patches that are compared; None for all. Others get that of the
            smallest distance.
    """
    xp = array_namespace(stem)
    batch, patches, channels = stem.shape
    # Squares, divided by what a busy texture is allowed: one logarithm of the smallest instead of one a pair.
    weights = good["crowding"] ** (-2 * crowding_power) / channels
    flat = kept(merge(stem), inside)
    step = max(1, _LARGEST_DISTANCE_MATRIX // len(good["stem"]))
    smallest_allowed = _SMALLEST_DISTANCE**2 * channels
    nearest = [
        xp.min(
            xp.clip(squared_distances(flat[start : start + step], good["stem"]), min=smallest_allowed) * weights, axis=1
        )
        for start in range(0, len(flat), step)
    ]
    lowest = math.log(_SMALLEST_DISTANCE)
    return xp.reshape(spread(0.5 * xp.log(xp.concat(nearest)), inside, lowest), (batch, patches))


def look_distance(stem: Array, good: References, inside: np.ndarray | None = None) -> Array:
    """Root mean square distance of each picture's look to the nearest good sample's: (batch,)."""
    xp = array_namespace(stem)
    # Difference by difference: a picture that is a good sample itself is at 0, not at a product's rounding.
    apart = (
        xp.linalg.vector_norm(look(stem, inside)[:, None] - good["looks"][None], axis=2) / good["looks"].shape[1] ** 0.5
    )
    return xp.min(apart, axis=1)


def log_fusion(
    embeddings: Embeddings,
    image_scores: Array,
    zero_shot_maps: Array,
    good: References,
    settings: FusionSettings,
    *,
    stride: int = 1,
) -> tuple[Array, Array]:
    """Few-shot image scores and maps of a batch of tiles, by the module's formula.

    Args:
        embeddings: the tiles', with patch tokens and stem features.
        image_scores: (batch,) zero-shot scores, 0 to 1.
        zero_shot_maps: (batch, rows, columns), 0 to 1.
        good: what is kept of the good samples: ``patches``, ``windows_S`` and what :func:`keep` gives.
        stride: step between windows, in patches.

    Returns:
        Image scores (batch,) and maps (batch, rows, columns), 0 to 1, 1 most anomalous, the same for any number of
        references. On held-out generated products 0.5 is where a picture is as likely good as defective if half of
        them are, and a patch if one in twenty is.
    """
    images, maps = fused_sums(embeddings, image_scores, zero_shot_maps, good, settings, stride=stride)
    more = settings.more_references * math.log2(len(good["looks"]))
    return (
        sigmoid(settings.image_scale * (images + more - settings.image_centre)),
        sigmoid(settings.map_scale * (maps + more - settings.map_centre)),
    )


def fused_sums(
    embeddings: Embeddings,
    image_scores: Array,
    zero_shot_maps: Array,
    good: References,
    settings: FusionSettings,
    *,
    stride: int = 1,
) -> tuple[Array, Array]:
    """``image`` and ``map`` of the module's formula, before they are brought to 0 to 1; see :func:`log_fusion`."""
    stem, patches = embeddings.vectors(STEM), embeddings.vectors(LAST)
    xp = array_namespace(zero_shot_maps)
    grid_hw = (zero_shot_maps.shape[1], zero_shot_maps.shape[2])
    inside = embeddings.inside_on(grid_hw)

    def flat(maps: Array) -> Array:
        return xp.reshape(maps, (maps.shape[0], -1))

    maps = (
        settings.stem * stem_distance(stem, good, settings.crowding, inside)
        + settings.patch * _log(association(patches, good["patches"], inside))
        + settings.zero_shot * _logit(flat(zero_shot_maps))
    )
    for scale, windows in embeddings.windows.items():
        compared = association(windows, good[f"windows_{scale}"], windows_inside(inside, scale, stride))
        maps = maps + settings.window * _log(flat(spread_to_patches(compared, grid_hw, scale, stride)))
    images = (
        largest_inside(maps, inside)
        + settings.image_zero_shot * _logit(image_scores)
        + settings.look * _log(look_distance(stem, good, inside))
    )
    return images, xp.reshape(maps, zero_shot_maps.shape)


def largest_inside(maps: Array, inside: np.ndarray | None) -> Array:
    """The largest value of each map (batch, patches) that lies inside: (batch,); minus infinity where nothing does."""
    xp = array_namespace(maps)
    if inside is not None:
        maps = xp.where(like(inside.reshape(len(inside), -1), maps), maps, xp.full_like(maps, -xp.inf))
    return xp.max(maps, axis=1)


def _log(apart: Array) -> Array:
    xp = array_namespace(apart)
    return xp.log(xp.clip(apart, min=_SMALLEST_DISTANCE))


def _logit(probabilities: Array) -> Array:
    return logit(probabilities, _SMALLEST_PROBABILITY)
