"""Sums to chances: the scale on which scores are read."""

from __future__ import annotations

import torch
from torch import Tensor

DEFECTIVE_PATCHES = 0.05
"""The share of defective patches that maps suppose; with one half, most of a good picture would be tinted."""
_ROUNDS = 50


def logistic(values: Tensor, bad: Tensor) -> tuple[float, float]:
    """Scale a and centre c of sigmoid(a (x - c)), both sides weighing the same; Newton's method."""
    x = torch.stack([values.double(), torch.ones(len(values), dtype=torch.float64)], dim=1)
    weight = torch.where(bad, 0.5 / bad.sum(), 0.5 / (~bad).sum()).double()
    beta = torch.zeros(2, dtype=torch.float64)
    for _ in range(_ROUNDS):
        chance = torch.sigmoid(x @ beta)
        gradient = x.T @ (weight * (chance - bad.double()))
        curvature = (x * (weight * chance * (1 - chance))[:, None]).T @ x + 1e-9 * torch.eye(2, dtype=torch.float64)
        beta = beta - torch.linalg.solve(curvature, gradient)
    return float(beta[0]), float(-beta[1] / beta[0])
