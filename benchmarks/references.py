"""Many references: `python -m benchmarks.references --out benchmarks/results/references.json`.

Time and peak memory of a model's start with 200, 600 and 1,000 good samples (one example part, each with noise of its
own), first without and then with what the earlier start kept; and of scoring ten images with them. Each in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import machine, write_json

GOOD = Path("examples/hex_nut/train/good")
QUESTIONS = Path("examples/hex_nut/test")


def write_samples(folder: Path, count: int) -> None:
    """Noisy copies of the example's good samples."""
    random = np.random.default_rng(0)
    pictures = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in sorted(GOOD.iterdir())]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        noisy = np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05}.png", compress_level=1)


def start(folder: Path, cache: Path) -> dict[str, float]:
    """One start and ten scores, measured in this process."""
    from winspect import WinCLIP

    model = WinCLIP("winspect-tiny", device="cpu", precision="fp32", cache_dir=cache)
    began = time.perf_counter()
    model.reference(folder, "hex nut")
    learnt = time.perf_counter()
    pictures = sorted(QUESTIONS.rglob("*.jpg"))[:10]
    scores = [result.anomaly_score for result in model.predict_many(pictures, "hex nut")]
    return {
        "reference_s": round(learnt - began, 2),
        "s_per_image": round((time.perf_counter() - learnt) / len(scores), 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "score_sum": float(np.sum(scores)),
    }


def measure(count: int) -> dict[str, object]:
    """A set of samples: the first start and the second."""
    with tempfile.TemporaryDirectory() as scratch:
        samples, cache = Path(scratch) / "samples", Path(scratch) / "cache"
        samples.mkdir()
        write_samples(samples, count)
        command = [sys.executable, "-m", "benchmarks.references", "--start", str(samples), str(cache)]
        starts = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(2)]
    return {"references": count, "first_start": starts[0], "second_start": starts[1]}


def main() -> None:
    """Measure each count in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="200,600,1000")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--start", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        print(json.dumps(start(*args.start)))
        return
    rows = []
    for count in args.counts.split(","):
        rows.append(measure(int(count)))
        print(json.dumps(rows[-1]), flush=True)
    write_json(args.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
