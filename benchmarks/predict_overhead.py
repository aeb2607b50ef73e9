"""What `winspect predict` spends beside the encoder, and whether its memory stays flat.

    python -m benchmarks.predict_overhead [--pictures 200] [--json FILE]

Runs the image tower alone on prepared tiles, then the whole job (decode, encode, score, heat maps, rows) on the same
pictures of the textile set, in turn; the difference is what everything beside the encoder costs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import conformal_clip_data
import numpy as np
import torch

from benchmarks.measuring import machine, write_json
from winspect import WinCLIP
from winspect.outputs.rows import Recorder
from winspect.pictures.tiles import prepare
from winspect.system.machine import current_rss_mb


def encode_alone(model: WinCLIP, tiles: torch.Tensor) -> float:
    """Seconds of the image tower for tiles that lie ready in memory, with nothing else running."""
    began = time.perf_counter()
    for part in tiles.split(model.engine.batch_size):
        model.engine.encode(part, model.method.needs(few_shot=False, maps=True))
    return time.perf_counter() - began


def whole_job(model: WinCLIP, pictures: list[Path]) -> tuple[float, list[float]]:
    """Seconds for reading, scoring and writing rows and heat maps, and the memory in MB every 50 pictures."""
    memory = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder), model.describe()) as recorder:
        for number, result in enumerate(model.predict_many(pictures, "textile", keep_pictures=True)):
            recorder.add(result)
            if number % 50 == 49:
                memory.append(round(current_rss_mb() or 0.0, 1))
    return time.perf_counter() - began, memory


def measure(model: WinCLIP, pictures: list[Path], tiles: torch.Tensor) -> dict:
    """One round: the image tower alone, then the whole job on the same pictures."""
    encoder_s = encode_alone(model, tiles)
    wall_s, memory = whole_job(model, pictures)
    return {
        "wall_s": round(wall_s, 2),
        "encoder_alone_s": round(encoder_s, 2),
        "beside_encoder": round(1 - encoder_s / wall_s, 3),
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
    tiles = torch.from_numpy(np.concatenate([prepare(path, model.preprocess).tiles for path in pictures]))
    measure(model, pictures[:20], tiles[:20])
    rounds = [measure(model, pictures, tiles) for _ in range(args.rounds)]
    middle = sorted(rounds, key=lambda r: r["beside_encoder"])[len(rounds) // 2]
    facts = {**machine(), "threads": torch.get_num_threads()}
    report = {"machine": facts, "pictures": args.pictures, "median": middle, "rounds": rounds}
    print(json.dumps(report, indent=2))
    write_json(args.json, report)


if __name__ == "__main__":
    main()
