"""Draw the generated part that README's first commands inspect: `python -m benchmarks.example_part examples/hex_nut`.

One product of a family that the bundled model was not trained on, with other items in each picture. The product was
chosen because the model works on it; `examples/textile` is where it mostly does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from training.generator import HELDOUT
from training.generator.pair import make_line

FAMILY, SEED = "hex_nut", 9_100_001
REFERENCES, GOOD, DEFECTIVE = 4, 6, 6


def write_part(folder: Path) -> None:
    """Write the pictures as data set `folder` reads them, the masks beside them."""
    line = make_line(FAMILY, SEED, good=REFERENCES + GOOD, defective=DEFECTIVE)
    for number, picture in enumerate(line.good_rgb):
        place, index = ("train/good", number) if number < REFERENCES else ("test/good", number - REFERENCES)
        _save(picture, folder / place / f"{index + 1}.jpg")
    for number, (picture, mask) in enumerate(zip(line.defective_rgb, line.masks, strict=True)):
        _save(picture, folder / "test" / "defective" / f"{number + 1}.jpg")
        _save(np.where(mask, np.uint8(255), np.uint8(0)), folder / "ground_truth" / "defective" / f"{number + 1}.png")


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))


if __name__ == "__main__":
    if FAMILY not in HELDOUT:
        raise SystemExit("the README promises a family that the model was not trained on")
    write_part(Path(sys.argv[1]))
