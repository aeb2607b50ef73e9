"""What a coreset of the patch memory costs in AUROC, and saves: `python -m benchmarks.coreset --out FILE`.

Generated products that the bundled model was not trained on, 4 good samples in 8 views each, by the bundled tower's
last block and by its stem. A JSON line for each layer and share: the mean AUROC, the memory's rows, the seconds of the
processor that fitting took, and the milliseconds for a picture's score.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine, write_json
from training.generator import HELDOUT
from training.generator.pair import make_line
from winspect import WinCLIP
from winspect.methods.memory import Memory
from winspect.methods.method import CutPicture
from winspect.metrics import auroc
from winspect.pictures.tiles import prepare
from winspect.weights import TINY

REFERENCES, GOOD, DEFECTIVE, SEED = 4, 16, 16, 777
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text, found = np.zeros((2, 0), np.float32), []
    for layer in ("last_norm", "stem_16"):
        model = WinCLIP(TINY, device="cpu", engine="torch", recipe=Memory(size=240, layer=layer))
        needs = model.method.needs(few_shot=True, maps=True)

        def encode(rgb, angles=(), model=model, needs=needs):
            return model._encode(prepare(rgb, model.preprocess, angles=angles).tiles, needs)

        figures = {share: [] for share in SHARES}
        for family in HELDOUT:
            line = make_line(family, SEED, good=REFERENCES + GOOD, defective=DEFECTIVE)
            samples = [encode(rgb, model.method.angles(0)) for rgb in line.good_rgb[:REFERENCES]]
            tests = [encode(rgb) for rgb in (*line.good_rgb[REFERENCES:], *line.defective_rgb)]
            for share in SHARES:
                method = replace(model.method, coreset=share)
                start = time.process_time()
                references = method.fit(samples)
                fitted = time.process_time()
                scores = [
                    method.score(test, [CutPicture(1)], text=text, references=references)[0].score for test in tests
                ]
                scored = time.process_time()
                area = auroc(scores, np.arange(len(scores)) >= GOOD)
                figures[share].append((area, len(references["memory"]), fitted - start, (scored - fitted) / len(tests)))
        for share, rows in figures.items():
            area, count, fit_s, score_s = np.mean(rows, axis=0)
            row = {"layer": layer, "coreset": share, "image_auroc": round(area, 4), "rows": int(count)}
            found.append({**row, "fit_s": round(fit_s, 3), "score_ms": round(1e3 * score_s, 2)})
            print(json.dumps(found[-1]), flush=True)
    write_json(args.out, {"machine": machine(), "rows": found})


if __name__ == "__main__":
    main()
