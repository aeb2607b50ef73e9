"""Where the part lies in a picture: the first principal component of its patches.

Source: AnomalyDINO (arXiv 2405.14529), section 3.2 and its published code.
"""

from __future__ import annotations

import numpy as np

_THRESHOLD = 10.0
_BORDER = 0.2
_FEWEST_IN_THE_CENTRE = 0.35


def foreground(patches: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Mask of the patches that show the part.

    The first principal component of the patches is more than 10; in the other direction where at most 35 % of the
    central 60 % x 60 % would be kept. Then a dilation and a closing by 3 x 3. The component points where its largest
    entry is positive; the source leaves that to its library.

    Args:
        patches: (rows, columns, width), not normalised; finite.
        inside: bool (rows, columns), the patches that are looked at; None for all. Others are never foreground.

    Returns:
        bool (rows, columns).
    """
    rows, columns, _ = patches.shape
    inside = np.ones((rows, columns), bool) if inside is None else inside
    centred = patches[inside].astype(np.float64)
    centred -= centred.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    first = directions[:, -1]
    component = np.zeros((rows, columns))
    component[inside] = centred @ first * np.sign(first[np.abs(first).argmax()])
    mask = component > _THRESHOLD
    centre = tuple(slice(int(side * _BORDER), int(side * (1 - _BORDER))) for side in (rows, columns))
    if mask[centre].sum() <= inside[centre].sum() * _FEWEST_IN_THE_CENTRE:
        mask = -component > _THRESHOLD
    return _eroded(_dilated(_dilated(mask))) & inside


def _dilated(mask: np.ndarray) -> np.ndarray:
    """Any of the 3 x 3 neighbours; there are none beyond the edge."""
    rows, columns = mask.shape
    padded = np.pad(mask, 1)
    return np.any([padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=0)


def _eroded(mask: np.ndarray) -> np.ndarray:
    return ~_dilated(~mask)
