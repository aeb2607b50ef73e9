"""The patch memory in slow float64 NumPy, written from AnomalyDINO's description (arXiv 2405.14529)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True))


def patch_scores(picture, references, mask=False):
    """(rows, columns) of a picture (rows, columns, width); references: pictures of any grid."""
    memory = [
        unit(vector) for reference in references for vector in np.asarray(reference).reshape(-1, picture.shape[-1])
    ]
    rows, columns, _ = picture.shape
    scores = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            patch = unit(picture[row, column])
            scores[row, column] = min(1 - np.dot(patch, known) for known in memory)
    return np.where(part_of(picture), scores, 0) if mask else scores


def picture_score(scores):
    ordered = sorted(scores.ravel(), reverse=True)
    count = int(0.01 * len(ordered))
    return ordered[0] if count == 0 else sum(ordered[:count]) / count


def part_of(picture):
    rows, columns, width = picture.shape
    flat = picture.reshape(-1, width).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    direction = directions[0]
    if direction[np.argmax(np.abs(direction))] < 0:
        direction = -direction
    component = (centred @ direction).reshape(rows, columns)
    mask = component > 10
    centre = mask[int(0.2 * rows) : int(0.8 * rows), int(0.2 * columns) : int(0.8 * columns)]
    if centre.mean() <= 0.35:
        mask = component < -10
    square = np.ones((3, 3))
    grown = binary_dilation(binary_dilation(mask, square), square)
    return binary_erosion(grown, square, border_value=1)
