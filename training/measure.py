"""How well a model tells defective from good on generated products it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from training import losses
from training.data import CLEAN, DEFECT, FIRST_REFERENCE, PairSet
from training.model import PromptTokens, average_prompts, embed, encode_prompts, logits, to_text_space, transform
from winspect import metrics


def auroc(bad: np.ndarray, good: np.ndarray) -> float:
    """Chance that a score of ``bad`` is above one of ``good``, ties counting half; both need one score or more."""
    figure = metrics.auroc(np.concatenate([bad, good]), np.arange(len(bad) + len(good)) < len(bad))
    if figure is None:
        raise ValueError(f"got {len(bad)} defective and {len(good)} good scores; need one of each or more")
    return figure


def family_mean_auroc(bad: np.ndarray, good: np.ndarray, families: Sequence[str]) -> float:
    """AUROC within each family, averaged: as benchmarks average over their categories."""
    names = np.array(families)
    return float(np.mean([auroc(bad[names == name], good[names == name]) for name in sorted(set(families))]))


@torch.no_grad()
def heldout_figures(model: nn.Module, pairs: PairSet, *, products: int = 300) -> dict[str, float]:
    """Quick held-out figures while training: pooled and family-mean image AUROC from the class token (``zero``), and
    1-shot from the farthest patch (``one``)."""
    device = next(model.parameters()).device
    rows = range(min(products, len(pairs)))
    sides = [encode_prompts(model, tokens.to(device)) for tokens in PromptTokens()(2)]
    text = [average_prompts(side, normalise_each=False) for side in sides]
    zero, one = [], []
    for start in range(0, len(rows), 16):
        features, _ = pairs.batch(rows[start : start + 16], (CLEAN, DEFECT, FIRST_REFERENCE))
        out = transform(model.visual.transformer, embed(model.visual, features.to(device).flatten(0, 1)))
        out = out.reshape(-1, 3, *out.shape[1:])
        zero.append(logits(to_text_space(model.visual, out[:, :2, 0]), *text))
        patches = out[:, :, 1:]
        distance = losses.nearest_distance(patches[:, :2].flatten(1, 2), patches[:, FIRST_REFERENCE])
        one.append(distance.reshape(len(out), 2, -1).amax(dim=2))
    figures = {"text_cos": float(text[0] @ text[1])}
    families = pairs.families[: len(rows)]
    for name, scores in (("zero", torch.cat(zero)), ("one", torch.cat(one))):
        good, bad = scores.cpu().numpy().T
        figures[name] = auroc(bad, good)
        figures[f"{name}_family"] = family_mean_auroc(bad, good, families)
    return figures
