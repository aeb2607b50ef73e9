"""Scores of pictures from those of the pictures most like them (RsCIN).

Source: MuSc (arXiv 2401.16753), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scores_among_neighbours(scores: np.ndarray, images: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Each picture's score as the mean of those most like it, weighted by cosines; the mean over ``counts``.

    Args:
        scores: (N,); the lowest becomes 0, the highest 1. All are 0 where they do not differ.
        images: image embeddings (N, width), any length.
        counts: how many are most like a picture, itself among them; all where there are fewer.

    Returns:
        float64 (N,).
    """
    scores = np.asarray(scores, np.float64)
    scores = (scores - scores.min()) / (np.ptp(scores) or 1)
    units = images.astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    cosines = units @ units.T
    order = np.argsort(-cosines, axis=1, kind="stable")
    found = []
    for count in counts:
        places = order[:, :count]
        weights = np.take_along_axis(cosines, places, axis=1)
        found.append((weights * scores[places]).sum(axis=1) / weights.sum(axis=1))
    return np.mean(found, axis=0)
