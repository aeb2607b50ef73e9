"""The anomaly maps and masks of one category, at the size the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winspect.datasets import Item, load_mask
from winspect.errors import PictureError
from winspect.evaluation.shots import relative_name
from winspect.metrics import Ranking, rank_pixels
from winspect.results import Result
from winspect.scoring import upsample


class PixelTruth:
    """Collects maps and masks of a category, or the reason why there are no pixel figures.

    Both are brought to the model's input size (``side`` x ``side``; 240 for the paper's model): maps bilinearly, masks
    by the nearest pixel. The published figures are made at that size; a patch map holds no more detail than that; and
    the memory and time of a category do not depend on how large its pictures are.

    Args:
        items: the pictures to be judged.
        side: pixels. ``root``: of the data set; reasons name files from there.

    Attributes:
        reason: why there are no pixel figures, or None.
    """

    def __init__(self, items: Sequence[Item], side: int, root: Path) -> None:
        self.side, self.root = side, root
        self._maps: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._all_good = np.zeros((side, side), bool)
        self.reason = _no_masks(items, root)

    def add(self, item: Item, result: Result) -> None:
        """Take the map of a picture that was judged, and its mask from disk.

        A mask that is missing, unreadable or of another size ends the collection: `reason` then names the file.
        """
        if self.reason is not None or result.size_wh is None:
            return
        try:
            mask = self._read(item, result.size_wh) if item.is_anomalous else self._all_good
        except PictureError as error:
            self.drop(f"{relative_name(Path(error.path), self.root)}: {error.reason}")
            return
        self._maps.append(square_map(result, self.side))
        self._masks.append(mask)

    def drop(self, reason: str) -> None:
        """Forget the maps; there will be no pixel figures."""
        self.reason = reason
        self._maps, self._masks = [], []

    def rank(self) -> Ranking:
        """All pixels, sorted once; undefined when there is a `reason`."""
        return rank_pixels(self._maps, None if self.reason else self._masks)

    def _read(self, item: Item, size_wh: tuple[int, int]) -> np.ndarray:
        mask = load_mask(item, size_wh)
        rows, columns = (_nearest(length, self.side) for length in mask.shape)
        return mask[np.ix_(rows, columns)]


def _nearest(length: int, side: int) -> np.ndarray:
    """The index of the source pixel under the centre of each of ``side`` target pixels."""
    return ((np.arange(side) + 0.5) * length / side).astype(int)


def square_map(result: Result, side: int) -> np.ndarray:
    """A result's anomaly map, bilinearly resized: float32 (side, side), 0 to 1.

    A picture that is one tile goes from the patch grid straight to that size; tiles are joined at the picture's own
    size first.
    """
    if result.tile_maps is None:
        raise ValueError(f"{result.path}: a result with an error has no map")
    whole: Any = result.tile_maps[0] if len(result.tile_maps) == 1 else result.anomaly_map
    return upsample(whole[None], (side, side))[0]


def _no_masks(items: Sequence[Item], root: Path) -> str | None:
    defective = [item for item in items if item.is_anomalous]
    without = [item for item in defective if item.mask is None]
    if not without:
        return None
    if len(without) == len(defective):
        return "the data set has no masks for this category"
    return (
        f"{len(without)} of {len(defective)} defective pictures have no mask, as "
        f"{relative_name(without[0].path, root)}: pixel figures need one for each"
    )
