"""What the grid of pixel figures does to masks: regions lost, and figures, on generated defects and maps.

    python -m benchmarks.pixel_grid

Square defects in pictures of 4000x3000, at the 240x240 of the paper's model. The maps are made from the truth at full
size: a smooth hot spot over each defect, blurred as a patch grid of 15x15 blurs, and noise.
"""

from __future__ import annotations

import time

import numpy as np
from scipy import ndimage

from winspect.evaluation.pixels import reduce_mask
from winspect.metrics import pixel_metrics

SIZE_HW, SIDE, PICTURES, DEFECTS = (3000, 4000), 240, 20, 25


def squares(random: np.random.Generator, side: int) -> np.ndarray:
    """A mask with squares that do not touch."""
    mask = np.zeros(SIZE_HW, bool)
    for cell in random.permutation(100)[:DEFECTS]:
        row = cell // 10 * 300 + random.integers(0, 300 - side)
        column = cell % 10 * 400 + random.integers(0, 400 - side)
        mask[row : row + side, column : column + side] = True
    return mask


def heat(random: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A map float32 (SIDE, SIDE) that is warm around defects."""
    share = mask.reshape(SIZE_HW[0] // 12, 12, SIZE_HW[1] // 16, 16).mean(axis=(1, 3))
    share = ndimage.zoom(share, (SIDE / share.shape[0], SIDE / share.shape[1]), order=1)
    warm = ndimage.gaussian_filter(share, SIDE / 15 / 3)
    return (warm / warm.max() + random.normal(0, 0.2, warm.shape)).astype(np.float32)


def main() -> None:
    """Print a line for each size of defect."""
    print(f"{PICTURES} pictures of {SIZE_HW[1]}x{SIZE_HW[0]}, {DEFECTS} defects each, figures at {SIDE}x{SIDE}\n")
    print("defect   lost by the nearest pixel   AUROC published/regions   AUPRO published/regions   ms a mask")
    for side in (5, 10, 15, 20, 40, 100, 200):
        random = np.random.default_rng(side)
        lost, seconds = 0, 0.0
        maps, masks = [], {"published": [], "regions": []}
        for _ in range(PICTURES):
            mask = squares(random, side)
            maps.append(heat(random, mask))
            masks["published"].append(reduce_mask(mask, SIDE, keep_regions=False)[0])
            began = time.perf_counter()
            cells, missed = reduce_mask(mask, SIDE)
            seconds += time.perf_counter() - began
            masks["regions"].append(cells)
            lost += missed
        figures = {grid: pixel_metrics(maps, truth) for grid, truth in masks.items()}
        cells_of = {
            name: " / ".join(f"{100 * figures[grid][name]:.2f}" for grid in masks)
            for name in ("pixel_auroc", "pixel_aupro")
        }
        share, pace = 100 * lost / PICTURES / DEFECTS, 1000 * seconds / PICTURES
        print(
            f"{side:4}x{side:<4}{share:18.1f} %{cells_of['pixel_auroc']:>28}{cells_of['pixel_aupro']:>26}{pace:13.0f}"
        )


if __name__ == "__main__":
    main()
