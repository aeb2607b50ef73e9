"""The rate of recipe `mutual`'s pairing beside that of a matrix product: `python -m benchmarks.pairing --out FILE`.

A batch of pictures with random features, by default those of 200 pictures on ViT-B-16-plus-240 at 240 pixels, scored
whole. The rate is that of all ordered pairs, pictures^2 * patches^2 * width multiplications and additions for each
layer and neighbourhood, beside a matrix product of the same shape, timed before and after. Each pair is multiplied
once, so that the rate can be above the product's.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.measuring import machine, timed, write_json
from winspect.backbones.embeddings import Embeddings
from winspect.methods.mutual.method import Mutual

KINDS = {"numpy": np.asarray, "torch": torch.from_numpy}


def main() -> None:
    """Measure NumPy and torch in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("pictures", 200), ("patches", 225), ("width", 896), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    before = machine()
    rows = []
    for kind in args.kinds:
        rows.append(measure(kind, args.pictures, math.isqrt(args.patches), args.width, args.layers))
        print(json.dumps(rows[-1]), flush=True)
    write_json(args.out, {"machine": before, **{k: v for k, v in vars(args).items() if k != "out"}, "rows": rows})


def measure(kind: str, pictures: int, side: int, width: int, layers: int) -> dict[str, object]:
    """Both rates of one kind of arrays, in 10^9 operations a second."""
    as_kind, random = KINDS[kind], np.random.default_rng(0)

    def drawn(*shape: int):
        return as_kind(random.standard_normal(shape, dtype=np.float32))

    left, right = drawn(4096, width), drawn(width, side**2)
    products: list[float] = []

    def multiply() -> None:
        products.extend(timed(lambda: left @ right)[1] for _ in range(20))

    method = Mutual(blocks=tuple(range(1, layers + 1)), size=16 * side)
    batch = method.batch(pictures)
    for _ in range(pictures):
        patches = {layer: drawn(1, side, side, width) for layer in method.layers}
        batch.add(Embeddings(drawn(1, 8), patches=patches))
    multiply()
    began = time.perf_counter()
    batch.scores()
    seconds = time.perf_counter() - began
    multiply()
    rate = 2 * 4096 * side**2 * width / median(products) / 1e9
    comparisons = layers * len(method.neighbourhoods)
    pairing = 2 * pictures**2 * side**4 * width * comparisons / seconds / 1e9
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    row = {"kind": kind, "seconds": seconds, "gemm_gflops": rate, "pairing_gflops": pairing, "ratio": pairing / rate}
    return {
        **{name: value if isinstance(value, str) else round(value, 2) for name, value in row.items()},
        "peak_rss_mb": round(peak_mb),
    }


if __name__ == "__main__":
    main()
