"""The anomaly maps and masks of one category, at the size the model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from winspect.datasets import Item, load_mask
from winspect.datasets.folders import LOOKED_FOR, what_lies_near
from winspect.datasets.masks import fault_of
from winspect.errors import PictureError
from winspect.evaluation.shots import relative_name
from winspect.methods.result import Result
from winspect.methods.upsampling import upsample
from winspect.metrics import Ranking, rank_pixels
from winspect.metrics.pixel import EIGHT_NEIGHBOURS

GRIDS = ("regions", "published")
"""How masks are brought to the size of the figures; see :class:`PixelTruth`."""
_NAMED = 3  # faults that a reason names


class PixelTruth:
    """Collects maps and masks of a category, or the reason why there are no pixel figures.

    Both are brought to the model's input size (``side`` x ``side``; 240 for the paper's model): maps bilinearly, masks
    by the nearest pixel, see :func:`reduce_mask`. A patch map holds no more detail than that; and the memory and time
    of a category do not depend on how large its pictures are.

    Args:
        items: the pictures to be scored.
        side: pixels. ``root``: of the data set; faults name files from there.
        grid: ``regions``: a region of a mask that the nearest pixels miss is marked all the same, and a mask with a
            fault takes the figures of its category. ``published``: masks as published code takes them, by the nearest
            pixel and unchecked; faults, and regions that are lost, are listed only.

    Attributes:
        faults: ``{"path", "fault"}`` of each mask that cannot be used, or should not be.
    """

    def __init__(self, items: Sequence[Item], side: int, root: Path, grid: str = GRIDS[0]) -> None:
        self.side, self.root, self.grid = side, root, grid
        self.faults: list[dict[str, str]] = []
        self._maps: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._all_good = np.zeros((side, side), bool)
        self._no_masks = _no_masks(items, root)
        self._n_defective = sum(item.is_anomalous for item in items)
        self._n_fatal = 0

    @property
    def reason(self) -> str | None:
        """Why there are no pixel figures, or None."""
        if self._no_masks or not self._n_fatal:
            return self._no_masks
        return f"{self._n_fatal} of {self._n_defective} masks cannot be used: {named_faults(self.faults)}"

    def add(self, item: Item, result: Result) -> None:
        """Take the map of a picture that was scored, and its mask from disk.

        A mask that cannot be used ends the collection; those that follow are still looked at.
        """
        if self._no_masks or result.size_wh is None:
            return
        mask = self._mask(item, item.mask, result.size_wh) if item.mask and item.is_anomalous else self._all_good
        if self.reason is None and mask is not None:
            self._maps.append(square_map(result, self.side))
            self._masks.append(mask)

    def rank(self) -> Ranking:
        """All pixels, sorted once; undefined when there is a `reason`."""
        return rank_pixels(self._maps, None if self.reason else self._masks)

    def _mask(self, item: Item, path: Path, size_wh: tuple[int, int]) -> np.ndarray | None:
        try:
            mask = load_mask(item, size_wh)
        except PictureError as error:
            self._fault(Path(error.path), error.reason, fatal=True)
            return None
        keep = self.grid != "published"
        cells, lost = reduce_mask(mask, self.side, keep_regions=keep)
        fault = fault_of(mask)
        if fault is None and lost and not keep:
            size = f"{self.side}x{self.side}"
            fault = f"{lost} of its regions are lost at {size}" if cells.any() else f"the mask is empty at {size}"
        if fault is not None:
            self._fault(path, fault, fatal=keep)
        return cells

    def _fault(self, path: Path, fault: str, *, fatal: bool) -> None:
        self.faults.append({"path": relative_name(path, self.root), "fault": fault})
        self._n_fatal += fatal
        if fatal:
            self._maps, self._masks = [], []


def named_faults(faults: Sequence[Mapping[str, str]]) -> str:
    """The first few of a category's faults, and how many more there are."""
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return "; ".join(f"{fault['path']}: {fault['fault']}" for fault in faults[:_NAMED]) + more


def reduce_mask(mask: np.ndarray, side: int, *, keep_regions: bool = True) -> tuple[np.ndarray, int]:
    """A mask bool (H, W) at the size of the figures, by the nearest pixel.

    Args:
        keep_regions: mark every cell that a region touches which the nearest pixels miss altogether.

    Returns:
        bool (side, side), and how many of the mask's regions the nearest pixels miss.
    """
    height, width = mask.shape
    rows, columns = _nearest(height, side), _nearest(width, side)
    cells = mask[np.ix_(rows, columns)]
    if max(height, width) <= side or not mask.any():
        return cells, 0
    regions, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    missed = np.ones(count + 1, bool)
    missed[0] = False
    missed[regions[np.ix_(rows, columns)]] = False
    if keep_regions and missed.any():
        y, x = np.nonzero(missed[regions])
        cells[y * side // height, x * side // width] = True
    return cells, int(missed.sum())


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
    picture = without[0].path
    near = what_lies_near(picture, root)
    there = f"; looked for {LOOKED_FOR}; found {near}" if near else ""
    if len(without) == len(defective):
        return f"the data set has no masks for this category{there}"
    return (
        f"{len(without)} of {len(defective)} defective pictures have no mask, as {relative_name(picture, root)}: pixel "
        f"figures need one for each{there}"
    )
