"""How many defective pictures are chosen as references, and named as outliers: `python -m benchmarks.choosing`.

30 good and 6 defective pictures of each of six generated products that the bundled model was not trained on. Prints, by
the share of the pictures that is chosen among, how many of 4, 8 and 12 chosen ones are defective; and how many of the
defective and good ones are outliers. The figures in docs/data.md and in `winspect.methods.choosing`.
"""

from __future__ import annotations

import json
from unittest.mock import patch

import numpy as np

from training.generator import HELDOUT
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.methods import choosing
from winspect.methods.mutual.method import Mutual
from winspect.weights import TINY

GOOD, DEFECTIVE, FAMILIES, SEED = 30, 6, HELDOUT[:6], 777
KEPT, SHARES = (4, 8, 12), (0.34, 0.5, 0.67, 1.0)


def main() -> None:
    model = WinCLIP(TINY, device="cpu", engine="torch", recipe=Mutual())
    for family in FAMILIES:
        line = make_line(family, SEED, good=GOOD, defective=DEFECTIVE)
        compared = model.compare([*line.good_rgb, *line.defective_rgb])
        scores = np.array([result.anomaly_score for result in compared.results])
        outliers = choosing.choose(scores, compared.apart, 1).outliers
        row = {"family": family, "outliers": {"defective": sum(number >= GOOD for number in outliers)}}
        row["outliers"]["good"] = len(outliers) - row["outliers"]["defective"]
        for share in SHARES:
            with patch.object(choosing, "NORMAL_SHARE", share):
                chosen = [choosing.choose(scores, compared.apart, count).kept for count in KEPT]
            row[f"defective chosen, share {share}"] = [sum(number >= GOOD for number in kept) for kept in chosen]
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
