"""What `winspect predict` spends beside the encoder, and whether its memory stays flat.

    python benchmarks/predict_overhead.py [--pictures 200] [--json FILE]

Runs the whole job (decode, encode, score, heat maps, rows) on pictures of the textile set, several times over, and
measures the wall time outside the image tower and the memory every 50 pictures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
import time
from pathlib import Path

import conformal_clip_data
import torch

from winspect import WinCLIP
from winspect.reports.recorder import Recorder


def resident_mb() -> float:
    """Memory of this process now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def measure(model: WinCLIP, pictures: list[Path]) -> dict:
    """One run over the pictures, heat maps written."""
    encoder_s = 0.0
    encode = model.engine.encode

    def timed(*args, **kwargs):
        nonlocal encoder_s
        began = time.perf_counter()
        try:
            return encode(*args, **kwargs)
        finally:
            encoder_s += time.perf_counter() - began

    model.engine.encode = timed
    memory = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder), model.describe()) as recorder:
        for number, result in enumerate(model.predict_many(pictures, "textile", keep_pictures=True)):
            recorder.add(result)
            if number % 50 == 49:
                memory.append(round(resident_mb(), 1))
    wall_s = time.perf_counter() - began
    model.engine.encode = encode
    return {
        "wall_s": round(wall_s, 2),
        "encoder_s": round(encoder_s, 2),
        "outside_encoder": round(1 - encoder_s / wall_s, 3),
        "pictures_per_s": round(len(pictures) / wall_s, 2),
        "memory_mb": memory,
    }


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = sorted(conformal_clip_data.textile_simulated_root().rglob("*.jpg"))
    pictures = list(itertools.islice(itertools.cycle(files), args.pictures))
    model = WinCLIP("winspect-tiny", device="cpu")
    measure(model, pictures[:20])
    rounds = [measure(model, pictures) for _ in range(args.rounds)]
    middle = sorted(rounds, key=lambda r: r["outside_encoder"])[len(rounds) // 2]
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    report = {"machine": {**machine, "torch": torch.__version__}, "pictures": args.pictures, "median": middle}
    report["rounds"] = rounds
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
