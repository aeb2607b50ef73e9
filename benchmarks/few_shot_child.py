"""One contestant of `few_shot_speed.py` or `recipe_costs.py`, alone in its process; prints its figures as a JSON line.

It loads a model, learns the good samples, and judges one picture after the other, from file to map at the picture's
size; recipe `mutual` judges them as a batch. It runs under winspect's Python or under anomalib's, and imports only what
is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.versus_child import peak_rss_mb, timed, use_threads, versions

Judged = tuple[float, Any, Any]
"""Score, map at the picture's size, distances of the patches (rows, columns)."""


class Anomalib:
    """anomalib's AnomalyDINO, its torch model, without the Lightning engine, which would only add to its time.

    Args:
        weights: timm's, in place of those that it would download.
        side: of the square that pictures are resized to, in pixels.
    """

    def __init__(self, weights: Path, side: int) -> None:
        from unittest.mock import patch

        import timm
        import torch
        from anomalib.data.utils import read_image
        from anomalib.models.image.anomaly_dino.lightning_model import AnomalyDINO
        from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel
        from safetensors.torch import load_file

        self.torch, self.read_image = torch, read_image
        self.transform = AnomalyDINO.configure_pre_processor((side, side)).transform
        build = timm.create_model
        with patch.object(
            timm, "create_model", lambda *args, **options: build(*args, **options | {"pretrained": False})
        ):
            self.model = AnomalyDINOModel(encoder_name="vit_small_patch14_dinov2")
        self.model.feature_encoder.feature_extractor.load_state_dict(load_file(weights))
        self.distances: Any = None
        mean_top1p = self.model.mean_top1p

        def noting(distances: Any) -> Any:
            self.distances = distances
            return mean_top1p(distances)

        self.model.mean_top1p = noting

    def describe(self) -> dict[str, Any]:
        """What runs."""
        return {"engine": "torch", "precision": "fp32"}

    def learn(self, samples: Sequence[Path]) -> None:
        """Fill the memory bank, a sample at a time: its training step."""
        self.model.train()
        self.model.feature_encoder.eval()
        with self.torch.inference_mode():
            for path in samples:
                self.model(self._pixels(path)[0])
            self.model.fit()
        self.model.eval()

    def judge(self, path: Path) -> Judged:
        """Score one picture."""
        pixels, size = self._pixels(path)
        with self.torch.inference_mode():
            judged = self.model(pixels)
            full = self.torch.nn.functional.interpolate(judged.anomaly_map, size=size, mode="bilinear")
        side = round(self.distances.shape[1] ** 0.5)
        return float(judged.pred_score), full[0, 0].numpy(), self.distances.reshape(side, side).numpy()

    def _pixels(self, path: Path) -> tuple[Any, tuple[int, int]]:
        image = self.read_image(path, as_tensor=True)
        return self.transform(image)[None], tuple(image.shape[-2:])


class Winspect:
    """A recipe as a user holds it."""

    def __init__(self, variant: str, cache: Path, **options: Any) -> None:
        from winspect import WinCLIP

        engine, precision = variant.split(":")
        self.model = WinCLIP(engine=engine, precision=precision, device="cpu", cache_dir=cache, **options)
        got = self.describe()
        if (got["engine"], got["precision"]) != (engine, precision):
            raise RuntimeError(f"asked for {variant}, got {got['engine']}:{got['precision']}")

    def describe(self) -> dict[str, Any]:
        """What runs."""
        document = self.model.describe()
        return {name: document[name] for name in ("engine", "precision")}

    def learn(self, samples: Sequence[Path]) -> None:
        """Show the good samples."""
        self.model.reference(samples, "part")

    def judge(self, path: Path) -> Judged:
        """Score one picture."""
        result = self.model.predict(path, "part")
        return result.anomaly_score, result.anomaly_map, result.tile_maps[0]  # type: ignore[index]

    def judge_all(self, pictures: Sequence[Path]) -> list[Judged]:
        """Score a batch."""
        results = self.model.predict_many(pictures, "part")
        return [(found.anomaly_score, found.anomaly_map, found.tile_maps[0]) for found in results]


def measure(contestant: Anomalib | Winspect, samples: Sequence[Path], pictures: Sequence[Path], batch: bool) -> dict:
    """Seconds to learn and for each picture, the clock's and the processor's, the most memory, and what was found."""
    peaks = [peak_rss_mb()]
    fit_s = timed(partial(contestant.learn, samples))[1] if samples else None
    peaks.append(peak_rss_mb())
    if batch:
        assert isinstance(contestant, Winspect)
        judged, *seconds = _timed_twice(partial(contestant.judge_all, pictures))
        runs = [(found, *(both / len(pictures) for both in seconds)) for found in judged]
    else:
        contestant.judge(pictures[0])  # warm-up
        runs = [_timed_twice(partial(contestant.judge, path)) for path in pictures]
    judged, pictures_s, processor_s = map(list, zip(*runs, strict=True))
    return {
        "fit_s": fit_s,
        "pictures_s": pictures_s,
        "processor_s": processor_s,
        "peak_rss_mb": peak_rss_mb(),
        "peak_rss_mb_loaded_and_learnt": peaks,
        "versions": versions(),
        **contestant.describe(),
        "scores": [score for score, _, _ in judged],
        "judged": judged,
    }


def _timed_twice(job: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a job gives, the seconds of the clock, and those of the processor."""
    began = time.process_time()
    value, seconds = timed(job)
    return value, seconds, time.process_time() - began


def main() -> None:
    """Measure one contestant and print its figures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="anomalib, or ENGINE:PRECISION of winspect")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--samples", nargs="*", type=Path, default=[])
    parser.add_argument("--options", type=json.loads, required=True, help="JSON: keywords of winspect.WinCLIP, or side")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--scratch", required=True, type=Path, help="a folder that this contestant may write to")
    parser.add_argument("--batch", action="store_true", help="judge all pictures together")
    parser.add_argument("--out", type=Path, help="file for the distances of the patches")
    args = parser.parse_args()
    use_threads(args.threads)

    def make() -> Anomalib | Winspect:
        if args.name == "anomalib":
            return Anomalib(Path(args.options["weights"]), args.options["side"])
        cache = args.scratch / "cache"
        shutil.rmtree(cache / "references", ignore_errors=True)  # what an earlier round has learnt
        return Winspect(args.name, cache, **args.options)

    contestant, load_s = timed(make)
    found = measure(contestant, args.samples, args.pictures, args.batch)
    judged = found.pop("judged")
    if args.out is not None:
        import numpy as np

        np.savez(args.out, patches=np.stack([patches for _, _, patches in judged]))
    print(json.dumps({"load_s": load_s, **found}))


if __name__ == "__main__":
    main()
