"""What the bundled model is trained on, term by term.

Every term works on a batch of products, three pictures each: a clean sample, the same with a defect, and another good
sample as reference. Logits are differences of cosines over the temperature; above 0 is anomalous.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

PATCH_COVERAGE = 0.10
"""Share of a patch that has to be masked for the patch to count as defective; 0 counts as good, between is ignored."""
WINDOW_COVERAGE, WINDOW_SHARE = 0.03, 0.30
"""A window is defective when the mask covers this share of it, or when it holds this share of the defect."""


def labels_of_patches(coverage: torch.Tensor) -> torch.Tensor:
    """``(B, P)`` coverage to labels: 1 defective, 0 good, -1 ignored. The most covered patch is always defective."""
    labels = torch.where(coverage >= PATCH_COVERAGE, 1, torch.where(coverage > 0, -1, 0))
    fullest = coverage.amax(dim=1, keepdim=True)
    return torch.where((coverage == fullest) & (coverage > 0), 1, labels)


def labels_of_windows(coverage: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """``(B, P)`` coverage and ``(W, s * s)`` patch numbers to window labels ``(B, W)``: 1, 0 or -1 for ignored."""
    inside = coverage[:, patches]
    share = inside.sum(dim=2) / coverage.sum(dim=1, keepdim=True).clamp_min(1e-6)
    defective = (inside.mean(dim=2) >= WINDOW_COVERAGE) | (share >= WINDOW_SHARE)
    return torch.where(defective, 1, torch.where(inside.sum(dim=2) > 0, -1, 0))


def balanced_bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy, the defective and the good weighing the same however many there are; -1 is left out."""
    bad, good = labels == 1, labels == 0
    at_bad = (F.softplus(-logits) * bad).sum() / bad.sum().clamp_min(1)
    at_good = (F.softplus(logits) * good).sum() / good.sum().clamp_min(1)
    return (at_bad + at_good) / 2


def ranking(defective: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Each defective picture's logit should be above its own clean twin's."""
    return F.softplus(clean - defective).mean()


def nearest_distance(query: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """``(B, P, C)`` and ``(B, N, C)`` tokens to ``(B, P)``: half of one minus the largest cosine, 0 to 1."""
    cosine = F.normalize(query.float(), dim=-1) @ F.normalize(reference.float(), dim=-1).transpose(1, 2)
    return (1 - cosine.amax(dim=2)) / 2


def text_separation(normal: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
    """Keeps the two sides of the prompt ensemble apart and each side together.

    Left alone the two averages stay nearly the same vector: the picture tower can reach any score along their tiny
    difference. ``normal`` ``(N, D)`` and ``anomalous`` ``(A, D)`` are embeddings before normalisation.
    """
    normal, anomalous = F.normalize(normal, dim=-1), F.normalize(anomalous, dim=-1)
    means = F.normalize(torch.stack([normal.mean(dim=0), anomalous.mean(dim=0)]), dim=-1)
    apart = F.relu(means[0] @ means[1])
    together = 2 - (normal @ means[0]).mean() - (anomalous @ means[1]).mean()
    return apart + 0.5 * together
