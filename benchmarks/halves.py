"""How well two halves of a batch are told from a batch that is none: `python -m benchmarks.halves --out FILE`.

24 pictures of each of four generated products that the bundled model was not trained on: good, some defective, with
drifting brightness, and halves of which one is changed. Prints, by construction, how far the two most separate clusters
are apart (see `winspect.methods.mutual.halves`), whether the batch is warned of, and the AUROC of the changed pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.measuring import machine, write_json
from training.generator import HELDOUT
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.methods.mutual import halves
from winspect.methods.mutual.method import Mutual
from winspect.metrics import auroc
from winspect.pictures.tiles import prepare
from winspect.weights import TINY

PICTURES, FAMILIES, SEED = 24, HELDOUT[:4], 555


def constructions(family: str) -> Iterator[tuple[str, list[np.ndarray], int]]:
    """Name, pictures, and how many of the last ones are changed."""
    line = make_line(family, SEED, good=PICTURES, defective=PICTURES // 2)
    good, half, random = list(line.good_rgb), PICTURES // 2, np.random.default_rng(0)
    yield "good", good, 0
    yield "a sixth defective", good[: -PICTURES // 6] + list(line.defective_rgb[: PICTURES // 6]), PICTURES // 6
    yield "half defective", good[:half] + list(line.defective_rgb[:half]), half
    drift = [bright(picture, 0.75 + 0.5 * number / (PICTURES - 1)) for number, picture in enumerate(good)]
    yield "brightness drifts", drift, 0
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "half enlarged": enlarged,
        "half blurred": lambda picture: np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.5))),
        "half darker": lambda picture: bright(picture, 0.7),
        "half with a mark, one place": lambda picture: marked(picture, (0.35, 0.5)),
        "half with a mark, any place": lambda picture: marked(picture, random.uniform(0.25, 0.65, 2)),
    }
    for name, change in changes.items():
        yield name, good[:half] + [change(picture) for picture in good[half:]], half


def bright(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor))


def enlarged(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    inner = Image.fromarray(picture).crop((width // 14, height // 14, width - width // 14, height - height // 14))
    return np.asarray(inner.resize((width, height)))


def marked(picture: np.ndarray, place: np.ndarray | tuple[float, float]) -> np.ndarray:
    changed, side = picture.copy(), len(picture) // 8
    row, column = (int(share * length) for share, length in zip(place, picture.shape, strict=False))
    changed[row : row + side, column : column + side] = (30, 30, 200)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    model = WinCLIP(TINY, device="cpu", engine="torch", recipe=Mutual())
    for family in FAMILIES:
        for name, pictures, changed in constructions(family):
            batch = model.method.batch(len(pictures))
            for picture in pictures:
                tiles = prepare(picture, model.preprocess).tiles
                batch.add(model._encode(tiles, model.method.needs(few_shot=False, maps=True)))
            found = batch.scores()
            with patch.object(halves, "SEPARATION", 0):
                order = np.concatenate(halves.find_halves(found.apart))
                first = len(halves.find_halves(found.apart)[0])
            ranks = halves._ranks(found.apart + found.apart.T)
            changes = np.arange(len(pictures)) >= len(pictures) - changed
            area = auroc([picture.score for picture in found.pictures], changes)
            row = {
                "family": family,
                "batch": name,
                "separation": round(halves._separation(ranks[np.ix_(order, order)], first), 3),
                "warned": found.halves is not None,
                "auroc_changed": area if area is None else round(area, 3),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    write_json(args.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
