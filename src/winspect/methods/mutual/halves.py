"""Whether a batch falls into two clusters."""

from __future__ import annotations

import numpy as np


def find_halves(apart: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Two clusters of similar size, which say nothing of each other; None where a batch does not fall into such.

    Args:
        apart: (N, N), how far pictures are from each other; NaN where they were not compared.
    """
    return None
