"""Miniature data sets, made in a moment: textured parts, some with a bright scratch and its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE_WH = (90, 70)


def part(seed: int, *, defective: bool, size_wh=SIZE_WH) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (H, W, 3) and the mask bool (H, W) of its defect; no two seeds look alike."""
    random = np.random.default_rng(seed)
    rgb = random.integers(90, 130, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    mask = np.zeros((size_wh[1], size_wh[0]), bool)
    if defective:
        row, column = random.integers(0, 40, 2)
        mask[row : row + 24, column : column + 18] = True
        rgb[mask] = 240
    return rgb, mask


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_mvtec(root: Path, *, categories=("bolt", "metal_nut"), train=5, good=4, defective=4) -> Path:
    """The MVTec AD layout: ``train`` normals, ``good`` and ``defective`` test pictures per category."""
    for number, category in enumerate(categories):
        seeds = iter(range(1000 * number, 1000 * number + 999))
        for index in range(train):
            save(root / category / f"train/good/{index:03d}.png", part(next(seeds), defective=False)[0])
        for index in range(good):
            save(root / category / f"test/good/{index:03d}.png", part(next(seeds), defective=False)[0])
        for index in range(defective):
            rgb, mask = part(next(seeds), defective=True)
            save(root / category / f"test/scratch/{index:03d}.png", rgb)
            save(root / category / f"ground_truth/scratch/{index:03d}_mask.png", mask.astype(np.uint8) * 255)
    return root


def make_folder(root: Path, *, categories=("bolt",), good=5, defective=4) -> Path:
    """Plain folders, no train split and no masks."""
    for number, category in enumerate(categories):
        for index in range(good):
            save(root / category / f"good/{index}.png", part(7000 + 100 * number + index, defective=False)[0])
        for index in range(defective):
            save(root / category / f"dent/{index}.png", part(8000 + 100 * number + index, defective=True)[0])
    return root


class Changed:
    """A model whose stream of results passes through a generator function, ``change(results)``."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict_many(self, *arguments, **options):
        return self.change(self.model.predict_many(*arguments, **options))


def product(kind: int, item: int) -> np.ndarray:
    """A picture uint8 (H, W, 3) of one of the items of a product: they differ in noise, kinds in all."""
    blocks = np.random.default_rng(kind).integers(60, 200, (7, 9, 3)).astype(float)
    random = np.random.default_rng([kind, item])
    rgb = np.repeat(np.repeat(blocks, 10, axis=0), 10, axis=1)
    return np.clip(rgb + random.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)
