"""The README's picture: `python -m benchmarks.showcase docs/demo.jpg`.

Generated products of families that the bundled model was not trained on, so that no picture of others is shipped:
picture, zero-shot heat map, heat map with two good samples. The last column is one it misses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from training.generator import HELDOUT, make_pair
from winspect import WinCLIP
from winspect.pictures.heatmaps import heat_overlay

FAMILIES = ("leather", "hex_nut", "zipper", "magnetic_tile", "candle_layout")
SEED = 9_000_001
SIDE, GAP = 200, 6


def column(model: WinCLIP, family: str) -> np.ndarray:
    """Picture and heat maps of one product, one above the other."""
    pair = make_pair(family, SEED)
    zero_shot = model.predict(pair.defect_rgb, family).anomaly_map
    model.reference(list(pair.reference_rgb), family)
    few_shot = model.predict(pair.defect_rgb, family).anomaly_map
    overlays = [
        heat_overlay(pair.defect_rgb, zero_shot, (0.5, 1.0)),
        heat_overlay(pair.defect_rgb, few_shot, (0.3, 1.0)),
    ]
    gap = np.full((GAP, SIDE, 3), 255, np.uint8)
    pictures = [np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE))) for rgb in (pair.defect_rgb, *overlays)]
    return np.vstack([pictures[0], gap, pictures[1], gap, pictures[2]])


def main() -> None:
    """Write the picture."""
    if not set(FAMILIES) <= set(HELDOUT):
        raise SystemExit("the README promises families that the model was not trained on")
    model = WinCLIP("winspect-tiny", device="cpu")
    columns = [column(model, family) for family in FAMILIES]
    gap = np.full((len(columns[0]), GAP, 3), 255, np.uint8)
    parts = [part for own in columns for part in (own, gap)][:-1]
    Image.fromarray(np.hstack(parts)).save(Path(sys.argv[1]), quality=88)


if __name__ == "__main__":
    main()
