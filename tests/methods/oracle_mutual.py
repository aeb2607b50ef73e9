"""MuSc (arXiv 2401.16753) in slow float64 NumPy, written from its description."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def normalised(features):
    """(width, rows, columns) over all its values."""
    return (features - features.mean()) / np.sqrt(features.var() + 1e-5)


def aggregated(features, side):
    """(width, rows, columns) to (patches, width): neighbourhoods, flattened (width, side, side), pooled back."""
    width, rows, columns = features.shape
    reach = side // 2
    padded = np.pad(features, ((0, 0), (reach, reach), (reach, reach)))
    found = []
    for row in range(rows):
        for column in range(columns):
            flat = padded[:, row : row + side, column : column + side].reshape(-1)
            edges = [place * len(flat) / width for place in range(width + 1)]
            pooled = np.array(
                [flat[int(np.floor(first)) : int(np.ceil(last))].mean() for first, last in pairwise(edges)]
            )
            found.append(pooled / max(np.sqrt((pooled**2).sum()), 1e-12))
    return np.array(found)


def mutual(patches, share=0.3):
    """(pictures, patches, width) to (pictures, patches)."""
    count = len(patches)
    scores = np.zeros(patches.shape[:2])
    for number in range(count):
        for place, patch in enumerate(patches[number]):
            nearest = sorted(
                np.sqrt(((other - patch) ** 2).sum(axis=1)).min()
                for index, other in enumerate(patches)
                if index != number
            )
            kept = nearest[: max(1, int(share * (count - 1)))]
            scores[number, place] = sum(kept) / len(kept)
    return scores


def maps(layers, sides=(1, 3, 5), share=0.3):
    """Layers (pictures, rows, columns, width) to maps (pictures, rows, columns)."""
    _, rows, columns, _ = layers[0].shape
    by_side = []
    for side in sides:
        by_layer = [
            mutual(np.array([aggregated(normalised(np.moveaxis(one, -1, 0)), side) for one in layer]), share)
            for layer in np.asarray(layers, np.float64)
        ]
        by_side.append(np.mean(by_layer, axis=0))
    return np.mean(by_side, axis=0).reshape(-1, rows, columns)


def enlarged(grid, size):
    """Bilinear, corner on corner."""
    rows, columns = grid.shape
    larger = np.zeros((size, size))
    for y, x in np.ndindex(size, size):
        row, column = y * (rows - 1) / (size - 1), x * (columns - 1) / (size - 1)
        top, left = min(int(row), rows - 2), min(int(column), columns - 2)
        down, along = row - top, column - left
        upper = grid[top, left] * (1 - along) + grid[top, left + 1] * along
        larger[y, x] = upper * (1 - down) + (grid[top + 1, left] * (1 - along) + grid[top + 1, left + 1] * along) * down
    return larger


def picture_scores(grids, size, images=None, counts=(1, 2, 3)):
    raw = np.array([enlarged(grid, size).max() for grid in grids])
    if images is None:
        return raw
    scaled = (raw - raw.min()) / (raw.max() - raw.min())
    units = images / np.linalg.norm(images, axis=1, keepdims=True)
    likeness = units.astype(np.float64) @ units.T
    found = []
    for count in counts:
        kept = np.zeros_like(likeness)
        for row, values in enumerate(likeness):
            places = np.argsort(values)[-count:]
            kept[row, places] = values[places] / values[places].sum()
        found.append(kept @ scaled)
    return np.mean(found, axis=0)
