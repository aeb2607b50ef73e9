"""How often a good sample is warned of, and a bad one: `python -m benchmarks.outliers --out FILE`.

Good samples of generated products that the bundled model was not trained on, in sets of several sizes: good ones alone
(each warning is false), with a defective part among them, and with a part of another product. Prints, by recipe and
size, the share of good sets with any warning, and of the others how often the odd one is named. For
`winspect.inspector.standing_apart`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine, write_json
from training.generator import HELDOUT
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.inspector.standing_apart import left_out_scores, standing_apart
from winspect.weights import TINY

RECIPES: dict[str, dict[str, Any]] = {
    "memory": {"layer": "stem_8", "rotations": 0, "size": 240},
    "subspace": {"rotations": 2, "size": 240},
    "fused": {},
}
COUNTS, SEED = (3, 4, 8, 16), 777


def sets(lines: list[Any], count: int, draws: int) -> Iterator[tuple[str, list[Any], int | None]]:
    """Kind of set, its samples, and the number of the odd one.

    Args:
        lines: of each product its good samples, and its defective ones.
    """
    for place, (goods, bads) in enumerate(lines):
        for draw in range(draws):
            random = np.random.default_rng([place, draw, count])
            good = [goods[number] for number in random.permutation(len(goods))[:count]]
            odd = int(random.integers(count))
            others, _ = lines[(place + 1 + random.integers(len(lines) - 1)) % len(lines)]
            yield "good", good, None
            for kind, sample in (("defective", bads[random.integers(len(bads))]), ("another product", others[0])):
                yield kind, [*good[:odd], sample, *good[odd + 1 :]], odd


def scores_of(model: WinCLIP, samples: list[Any]) -> list[float]:
    """How far each sample is from the others."""
    if model.method.joins:
        return left_out_scores(model.method, samples, model._class_text("part"))
    return model.method.learn([sample.embeddings for sample in samples])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--families", type=int, default=len(HELDOUT))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    args = parser.parse_args()
    drawn = [make_line(family, SEED, good=max(COUNTS), defective=4) for family in HELDOUT[: args.families]]
    rows = []
    for recipe in args.recipes.split(","):
        model = WinCLIP(TINY, device="cpu", engine="torch", recipe=recipe, settings=RECIPES[recipe])
        lines = [
            [
                list(model._encode_samples(list(rgb), model.cut, progress=False))
                for rgb in (line.good_rgb, line.defective_rgb)
            ]
            for line in drawn
        ]
        for count in COUNTS:
            by_kind: dict[str, list[bool]] = {}
            for kind, samples, odd in sets(lines, count, args.draws):
                found = standing_apart(scores_of(model, samples))
                by_kind.setdefault(kind, []).append(bool(found) if odd is None else odd in found)
                if odd is not None:
                    by_kind.setdefault(f"{kind}, a good one beside", []).append(bool({*found} - {odd}))
            shares = {kind: [sum(named), len(named)] for kind, named in by_kind.items()}
            rows.append({"recipe": recipe, "samples": count, **shares})
            print(json.dumps(rows[-1]), flush=True)
    write_json(args.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
