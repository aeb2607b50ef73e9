"""The gate's pictures: ``python -m training.gate_sheet --out src/winspect/engines/gate/pictures.jpg``.

One sheet of tiles, a column per held-out family of the generator, 240 x 240 pixels each. Rows 0 to 3 are scored by the
gate: two products, each good and with a defect. Rows 4 and 5, a third product, are what int8 is calibrated on.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator import HELDOUT, make_pair

FIRST_SEED = 7_000_000  # apart from the seeds of training, measuring and calibrating
PRODUCTS = 3


def sheet() -> NDArray[np.uint8]:
    """uint8 RGB (6 * 240, families * 240, 3)."""
    columns = []
    for family in HELDOUT:
        pairs = [make_pair(family, FIRST_SEED + number, references=0) for number in range(PRODUCTS)]
        columns.append(np.vstack([picture for pair in pairs for picture in (pair.clean_rgb, pair.defect_rgb)]))
    return np.hstack(columns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.gate_sheet", description=__doc__)
    parser.add_argument("--out", required=True, help="the JPEG to write")
    options = parser.parse_args()
    cv2.imwrite(options.out, cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
