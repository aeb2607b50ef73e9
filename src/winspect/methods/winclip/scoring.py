"""Zero-shot and few-shot scores and maps from embeddings. Arrays only; 1 is most anomalous.

Source: WinCLIP (arXiv 2303.14814): class score (equation 1 with the two-class prompt ensemble of 4.1),
zero-shot map (4.2), association with normal references (4.3, equation 5), their sum (4.3, equation 6).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.windows import harmonic_mean, spread_to_patches
from winspect.methods.dropping import kept, spread, windows_inside
from winspect.system.arrays import Array, merge, normalize, sigmoid

# Entries of the cosine matrix computed at a time (64 MB): bounds memory however many references there are.
_LARGEST_COSINE_MATRIX = 2**24


def class_score(embeddings: Array, text: Array, *, temperature: float) -> Array:
    """softmax([cos(e, normal), cos(e, anomalous)] / temperature)[1] of every embedding.

    Args:
        embeddings: float (..., width), any length.
        text: float (2, width), the normal and the anomalous text embedding, any length.
        temperature: tau > 0; 0.07 in the paper, 0.01 is CLIP's logit scale of 100.

    Returns:
        float (...), 0 to 1, 1 is most anomalous.
    """
    # The softmax of two logits is the logistic function of their difference.
    return sigmoid(class_logit(embeddings, text, temperature=temperature))


def class_logit(embeddings: Array, text: Array, *, temperature: float) -> Array:
    """The logit of :func:`class_score`, of the same arguments: float (...), above 0 is anomalous."""
    cosines = normalize(embeddings) @ normalize(text).T
    return (cosines[..., 1] - cosines[..., 0]) / temperature


def zero_shot_map(
    image_scores: Array, window_scores: Mapping[int, Array], grid_hw: tuple[int, int], *, stride: int = 1
) -> Array:
    """Harmonic mean over {image score, one map per window scale}.

    Args:
        image_scores: float (batch,), 0 to 1.
        window_scores: scale -> float (batch, windows), 0 to 1.

    Returns:
        float (batch, rows, columns), 0 to 1.
    """
    xp = array_namespace(image_scores)
    whole = xp.broadcast_to(image_scores[:, None, None], (image_scores.shape[0], *grid_hw))
    maps = [spread_to_patches(scores, grid_hw, scale, stride) for scale, scores in window_scores.items()]
    return harmonic_mean(xp.stack([whole, *maps]), axis=0)


def association(queries: Array, references: Array, inside: np.ndarray | None = None) -> Array:
    """1/2 (1 - max cosine to any reference) of every query vector (equation 5).

    Args:
        queries: float (batch, n, width).
        references: float (m, width), the vectors of all references of that scale, m >= 1.
        inside: bool (batch, n), the queries that are compared; None for all. Others get 0.

    Returns:
        float (batch, n), 0 (seen before) to 1 (opposite to everything seen).
    """
    xp = array_namespace(queries, references)
    flat = kept(merge(normalize(queries)), inside)
    known = normalize(references).T
    step = max(1, _LARGEST_COSINE_MATRIX // len(references))
    nearest = xp.concat([xp.max(flat[start : start + step] @ known, axis=1) for start in range(0, len(flat), step)])
    # Rounding can put the cosine of equal vectors a hair above 1.
    return xp.reshape(spread(xp.clip(0.5 * (1 - nearest), min=0.0, max=1.0), inside), queries.shape[:2])


def few_shot_map(
    patches: Array,
    windows: Mapping[int, Array],
    reference_patches: Array,
    reference_windows: Mapping[int, Array],
    grid_hw: tuple[int, int],
    *,
    stride: int = 1,
    inside: np.ndarray | None = None,
) -> Array:
    """Arithmetic mean of the association maps of every window scale and of the patch tokens.

    Args:
        patches: float (batch, patches, width); ``windows``: scale -> float (batch, windows, embedding).
        reference_patches: float (m, width); ``reference_windows``: scale -> float (m, embedding).
        inside: bool (batch, rows, columns), the patches that are compared, and the windows that hold one; None for all.

    Returns:
        float (batch, rows, columns), 0 to 1.
    """
    maps = [
        spread_to_patches(
            association(vectors, reference_windows[scale], windows_inside(inside, scale, stride)),
            grid_hw,
            scale,
            stride,
        )
        for scale, vectors in windows.items()
    ]
    xp = array_namespace(patches)
    maps.append(xp.reshape(association(patches, reference_patches, inside), (-1, *grid_hw)))
    return xp.mean(xp.stack(maps), axis=0)


def combine(image_scores: Array, zero_shot_maps: Array, association_maps: Array | None = None) -> tuple[Array, Array]:
    """WinCLIP+ (equation 6): the means of zero-shot and association, or zero-shot alone without references.

    Returns:
        image scores (batch,) and maps (batch, rows, columns), both 0 to 1.
    """
    if association_maps is None:
        return image_scores, zero_shot_maps
    strongest = array_namespace(association_maps).max(association_maps, axis=(1, 2))
    return (image_scores + strongest) / 2, (zero_shot_maps + association_maps) / 2
