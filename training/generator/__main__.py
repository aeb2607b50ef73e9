"""Draw a contact sheet: ``python -m training.generator --sheet OUT.png [--families a b] [--seeds 3]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from . import FAMILIES, make_pair


def row(family: str, seed: int) -> NDArray[np.uint8]:
    """Clean, defective, defective with the mask's outline, one reference: uint8 (258, 960, 3)."""
    pair = make_pair(family, seed, references=1)
    lines, _ = cv2.findContours(pair.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    marked = cv2.drawContours(pair.defect_rgb.copy(), lines, -1, (255, 0, 0), 1)
    strip = np.hstack([pair.clean_rgb, pair.defect_rgb, marked, pair.reference_rgb[0]])
    title = np.zeros((18, strip.shape[1], 3), np.uint8)
    text = f"{family} #{seed}: {' + '.join(pair.defects)} ({100 * pair.mask_fraction:.2f} %)"
    cv2.putText(title, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([title, strip])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.generator", description=__doc__)
    parser.add_argument("--sheet", required=True, help="the picture to write")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES, metavar="FAMILY")
    parser.add_argument("--seeds", type=int, default=1, help="pairs of each family")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--columns", type=int, default=2)
    options = parser.parse_args(arguments)
    rows = [row(f, s) for f in options.families for s in range(options.first, options.first + options.seeds)]
    rows += [np.zeros_like(rows[0])] * (-len(rows) % options.columns)
    lines = [np.hstack(rows[i : i + options.columns]) for i in range(0, len(rows), options.columns)]
    cv2.imwrite(options.sheet, cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
