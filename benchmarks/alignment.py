"""Parts that shift and turn: `python -m benchmarks.alignment`; JSON in `benchmarks/results/alignment.json`.

Pictures of generated products, shifted by up to a fifth of their sides and turned by up to 30 degrees, are registered
to the first of four good samples. Measured are

* the image AUROC of the bundled model with the four good samples: unmoved, moved, and moved with alignment;
* wrong registrations, and how many of them the bound catches. A registration is wrong when a corner of the picture lies
  more than a twentieth of its side off, and always for a picture of another product, for noise and for a blank picture.
  Own pictures that are moved farther than promised are among them, as far as they are registered wrongly.

The products look like no turned or shifted one of themselves: where one does, as product `connector`, a registration
that is off by such a turn cannot be told from a right one.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.measuring import machine, write_json
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.metrics import auroc
from winspect.pictures.alignment import Aligned, Alignment

FAMILIES = (
    *("bracket", "circuit_board", "chip", "transistor", "moulded_part", "label"),
    *("door_key", "keypad", "battery", "capsule", "led_lamp", "blister_pack"),
)
SEED, REFERENCES, KIND = 11, 4, "euclidean"
SHIFT, TURN, OFF = 0.2, 30.0, 0.05
RESULTS = Path(__file__).parent / "results" / "alignment.json"


def moving(random: np.random.Generator, side: int, shift: float, turn: float) -> np.ndarray:
    """A matrix (2, 3) that moves a square picture at random, by no more than that; centres of pixels at .5."""
    angle = math.radians(random.uniform(-turn, turn))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([side, side]) / 2
    return np.column_stack([rotation, centre + random.uniform(-shift, shift, 2) * side - rotation @ centre])


def moved(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture moved; beyond its edge the ground goes on, mirrored."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(rgb, shifted, rgb.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def is_right(aligned: Aligned, unmoved: Aligned, matrix: np.ndarray, side: int) -> bool:
    """Whether a moved picture was registered where it lies: as the unmoved one was, and then moved."""
    corners = np.array([(x, y, 1.0) for x in (0, side) for y in (0, side)])
    expected = corners @ np.array(unmoved.matrix).T
    expected = np.column_stack([expected, np.ones(4)]) @ matrix.T
    return bool(np.abs(corners @ np.array(aligned.matrix).T - expected).max() <= OFF * side)


def registrations(lines: dict[str, Any], family: str, pictures: int) -> dict[str, int]:
    """Counts of registrations of a product's pictures, and of others, to its first good sample."""
    random = np.random.default_rng(SEED)
    goods = lines[family].good_rgb
    alignment, side = Alignment(KIND).to(Image.fromarray(goods[0])), goods.shape[1]

    def register(rgb: np.ndarray) -> Aligned:
        return alignment.align(family, Image.fromarray(rgb))[2]

    alignment = alignment.after([register(good) for good in goods[1:REFERENCES]])
    anyhow = Alignment(KIND, 0.0, alignment.size_wh, alignment.target, alignment.usual)
    counts = dict.fromkeys(("moved", "moved_right", "moved_refused_right", "wrong", "wrong_caught"), 0)

    def note(rgb: np.ndarray, matrix: np.ndarray | None, unmoved: Aligned | None, *, promised: bool) -> None:
        found = anyhow.align(family, Image.fromarray(rgb))[2]
        caught = found.quality < alignment.bound
        right = matrix is not None and unmoved is not None and is_right(found, unmoved, matrix, side)
        counts["moved"] += promised
        counts["moved_right"] += promised and right and not caught
        counts["moved_refused_right"] += promised and right and caught
        counts["wrong"] += not right
        counts["wrong_caught"] += not right and caught

    for good in goods[REFERENCES : REFERENCES + pictures]:
        unmoved = anyhow.align(family, Image.fromarray(good))[2]
        for shift, turn, promised in ((SHIFT, TURN, True), (SHIFT, TURN, True), (0.6, 180.0, False)):
            matrix = moving(random, side, shift, turn)
            note(moved(good, matrix), matrix, unmoved, promised=promised)
    for other in FAMILIES:
        if other != family:
            note(lines[other].good_rgb[1], None, None, promised=False)
    note(random.integers(0, 256, goods[0].shape, np.uint8), None, None, promised=False)
    note(np.full_like(goods[0], 128), None, None, promised=False)
    return counts


def image_aurocs(line: Any, pictures: int) -> dict[str, float]:
    """AUROC of the bundled model: unmoved, moved, and moved and aligned."""
    random = np.random.default_rng(SEED)
    tested = [*line.good_rgb[REFERENCES : REFERENCES + pictures], *line.defective_rgb[:pictures]]
    labels = np.array([0] * pictures + [1] * pictures)
    shifted = [moved(rgb, moving(random, rgb.shape[0], SHIFT, TURN)) for rgb in tested]
    found = {}
    for name, seen, alignment in (
        ("unmoved", tested, None),
        ("moved", shifted, None),
        ("moved_aligned", shifted, Alignment(KIND)),
        ("unmoved_aligned", tested, Alignment(KIND)),
    ):
        model = WinCLIP("winspect-tiny", device="cpu", alignment=alignment)
        model.reference(list(line.good_rgb[:REFERENCES]), "part")
        scores = [result.anomaly_score for result in model.predict_many(seen, "part")]
        found[name] = float(auroc(np.array(scores), labels) or 0.0)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=8, help="good and defective pictures of each product")
    parser.add_argument("--products", type=int, default=len(FAMILIES), help="whose image AUROC is measured")
    parser.add_argument("--registrations-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    lines = {
        family: make_line(family, SEED, good=REFERENCES + args.pictures, defective=args.pictures) for family in FAMILIES
    }
    counted = {family: registrations(lines, family, args.pictures) for family in FAMILIES}
    total = {name: sum(counts[name] for counts in counted.values()) for name in counted[FAMILIES[0]]}
    document: dict[str, Any] = {
        "schema": 1,
        "machine": machine(),
        "kind": KIND,
        "pictures": args.pictures,
        "registrations": {**total, "share_of_wrong_caught": total["wrong_caught"] / max(1, total["wrong"])},
        "by_product": counted,
    }
    print(json.dumps(document["registrations"]), flush=True)
    if not args.registrations_only:
        aurocs = {family: image_aurocs(lines[family], args.pictures) for family in FAMILIES[: args.products]}
        means = {name: float(np.mean([each[name] for each in aurocs.values()])) for name in aurocs[FAMILIES[0]]}
        document |= {"image_auroc": means, "image_auroc_by_product": aurocs}
        print(json.dumps(means))
    write_json(args.out, document)


if __name__ == "__main__":
    main()
