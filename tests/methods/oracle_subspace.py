"""SubspaceAD (arXiv 2602.23013) in slow float64 NumPy, written from its description."""

from __future__ import annotations

import numpy as np


def principal_subspace(samples, variance):
    """Mean and components (kept, width) of all patches of samples (..., width)."""
    patches = np.concatenate([np.asarray(sample, np.float64).reshape(-1, sample.shape[-1]) for sample in samples])
    mean = patches.mean(axis=0)
    _, lengths, directions = np.linalg.svd(patches - mean, full_matrices=False)
    variances = lengths**2 / (len(patches) - 1)
    count = 0
    while variances[:count].sum() < variance * variances.sum():
        count += 1
    return mean, directions[:count]


def residuals(picture, mean, components):
    scores = np.zeros(picture.shape[:2])
    for place in np.ndindex(scores.shape):
        apart = picture[place].astype(np.float64) - mean
        projected = sum((np.dot(apart, direction) * direction for direction in components), np.zeros_like(mean))
        scores[place] = ((apart - projected) ** 2).sum()
    return scores


def bilinear(scores, side):
    """Half-pixel centres."""
    rows, columns = scores.shape
    larger = np.zeros((side, side))
    for y, x in np.ndindex(side, side):
        row = min(max((y + 0.5) * rows / side - 0.5, 0), rows - 1)
        column = min(max((x + 0.5) * columns / side - 0.5, 0), columns - 1)
        top, left = int(row), int(column)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        down, along = row - top, column - left
        upper = scores[top, left] * (1 - along) + scores[top, right] * along
        lower = scores[bottom, left] * (1 - along) + scores[bottom, right] * along
        larger[y, x] = upper * (1 - down) + lower * down
    return larger


def blurred(larger, sigma=4.0):
    kernel = np.exp(-(np.arange(-1, 2)[:, None] ** 2 + np.arange(-1, 2)[None] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(larger, 1, mode="reflect")
    height, width = larger.shape
    return sum(kernel[y, x] * padded[y : y + height, x : x + width] for y in range(3) for x in range(3))


def picture_map(picture, samples, *, side, variance=0.99):
    return blurred(bilinear(residuals(picture, *principal_subspace(samples, variance)), side))


def picture_score(larger):
    ordered = sorted(larger.ravel(), reverse=True)
    return np.mean(ordered[: int(0.01 * len(ordered))])
