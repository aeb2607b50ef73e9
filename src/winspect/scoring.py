"""Zero-shot and few-shot scores and maps from embeddings. Tensors only; 1 is most anomalous.

Source: WinCLIP (arXiv 2303.14814): class score (equation 1 with the two-class prompt ensemble of 4.1),
zero-shot map (4.2), association with normal references (4.3, equation 5), their sum (4.3, equation 6).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from winspect.windows import harmonic_mean, spread_to_patches

# Entries of the cosine matrix computed at a time (64 MB): bounds memory however many references there are.
_LARGEST_COSINE_MATRIX = 2**24


def class_score(embeddings: Tensor, text: Tensor, *, temperature: float) -> Tensor:
    """softmax([cos(e, normal), cos(e, anomalous)] / temperature)[1] of every embedding.

    Args:
        embeddings: float (..., width), any length.
        text: float (2, width), the normal and the anomalous text embedding, any length.
        temperature: tau > 0; 0.07 in the paper, 0.01 is CLIP's logit scale of 100.

    Returns:
        float (...), 0 to 1, 1 is most anomalous.
    """
    cosines = normalize(embeddings, dim=-1) @ normalize(text, dim=-1).T
    # The softmax of two logits is the logistic function of their difference.
    return torch.sigmoid((cosines[..., 1] - cosines[..., 0]) / temperature)


def zero_shot_map(
    image_scores: Tensor, window_scores: Mapping[int, Tensor], grid_hw: tuple[int, int], *, stride: int = 1
) -> Tensor:
    """Harmonic mean over {image score, one map per window scale}.

    Args:
        image_scores: float (batch,), 0 to 1.
        window_scores: scale -> float (batch, windows), 0 to 1.

    Returns:
        float (batch, rows, columns), 0 to 1.
    """
    whole = image_scores[:, None, None].expand(-1, *grid_hw)
    maps = [spread_to_patches(scores, grid_hw, scale, stride) for scale, scores in window_scores.items()]
    return harmonic_mean(torch.stack([whole, *maps]), dim=0)


def association(queries: Tensor, references: Tensor) -> Tensor:
    """1/2 (1 - max cosine to any reference) of every query vector (equation 5).

    Args:
        queries: float (batch, n, width).
        references: float (m, width), the vectors of all references of that scale, m >= 1.

    Returns:
        float (batch, n), 0 (seen before) to 1 (opposite to everything seen).
    """
    flat = normalize(queries, dim=-1).flatten(0, 1)
    known = normalize(references, dim=-1).T
    rows_at_a_time = max(1, _LARGEST_COSINE_MATRIX // len(references))
    nearest = torch.cat([(rows @ known).amax(dim=1) for rows in flat.split(rows_at_a_time)])
    # Rounding can put the cosine of equal vectors a hair above 1.
    return (0.5 * (1 - nearest)).clamp(0, 1).reshape(queries.shape[:2])


def few_shot_map(
    patches: Tensor,
    windows: Mapping[int, Tensor],
    reference_patches: Tensor,
    reference_windows: Mapping[int, Tensor],
    grid_hw: tuple[int, int],
    *,
    stride: int = 1,
) -> Tensor:
    """Arithmetic mean of the association maps of every window scale and of the patch tokens.

    Args:
        patches: float (batch, patches, width); ``windows``: scale -> float (batch, windows, embedding).
        reference_patches: float (m, width); ``reference_windows``: scale -> float (m, embedding).

    Returns:
        float (batch, rows, columns), 0 to 1.
    """
    maps = [
        spread_to_patches(association(windows[scale], reference_windows[scale]), grid_hw, scale, stride)
        for scale in windows
    ]
    maps.append(association(patches, reference_patches).reshape(-1, *grid_hw))
    return torch.stack(maps).mean(dim=0)


def combine(
    image_scores: Tensor, zero_shot_maps: Tensor, association_maps: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """WinCLIP+ (equation 6): the means of zero-shot and association, or zero-shot alone without references.

    Returns:
        image scores (batch,) and maps (batch, rows, columns), both 0 to 1.
    """
    if association_maps is None:
        return image_scores, zero_shot_maps
    strongest = association_maps.flatten(1).amax(dim=1)
    return (image_scores + strongest) / 2, (zero_shot_maps + association_maps) / 2


def upsample(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear (align_corners=False) from (batch, rows, columns) to (batch, height, width)."""
    return interpolate(maps[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]
