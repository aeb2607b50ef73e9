"""One contestant of `versus_anomalib.py`, alone in its process: load, prompts, pictures one by one; prints a JSON line.

It runs under winspect's Python or under that of anomalib's own virtual environment, and imports only what is there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PACKAGES = ("anomalib", "torch", "torchvision", "open_clip_torch", "openvino", "onnxruntime", "nncf", "numpy", "pillow")


class Anomalib:
    """anomalib's torch model, called without its Lightning engine, which would only add to its time.

    Args:
        repaired: let its windows attend to their own patches, see `repair_windows`.
        pixels: a file of prepared pictures to judge in place of those it prepares itself.
    """

    def __init__(self, weights: Path, device: str, repaired: bool = False, pixels: Path | None = None) -> None:
        import numpy as np
        import torch
        from anomalib.data.utils import read_image
        from anomalib.models.image.winclip import WinClip, prompting, torch_model

        torch_model.PRETRAINED = str(weights)  # open_clip takes a file where a tag may stand: nothing is downloaded
        self.torch, self.device, self.prompting = torch, device, prompting
        self.model = torch_model.WinClipModel().eval().to(device)
        self.read_image, self.transform = read_image, WinClip.configure_pre_processor().transform
        self.pixels = None if pixels is None else torch.from_numpy(np.load(pixels)["pixels"])
        if repaired:
            repair_windows(self.model)

    def describe(self) -> dict[str, Any]:
        """Its prompts, so that winspect encodes the same ones."""
        prompting = self.prompting
        states = {"normal_states": prompting.NORMAL_STATES, "anomalous_states": prompting.ANOMALOUS_STATES}
        return {"prompts": {**states, "templates": prompting.TEMPLATES}}

    def prepare_class(self, class_name: str) -> None:
        """Encode the prompts of a class."""
        self.model.setup(class_name)
        self.model.text_embeddings.cpu()  # a GPU is done only now

    def judge(self, number: int, path: Path, class_name: str) -> tuple[float, Any, Any]:
        """Score, map at the picture's size, map at the model's size."""
        image = self.read_image(path, as_tensor=True)
        pixels = self.transform(image) if self.pixels is None else self.pixels[number]
        with self.torch.inference_mode():
            judged = self.model(pixels[None].to(self.device))
            heat = judged.anomaly_map.cpu()
            full = self.torch.nn.functional.interpolate(heat[None], size=image.shape[-2:], mode="bilinear")
        return float(judged.pred_score), full[0, 0].numpy(), heat[0].numpy()

    def outcome(self, pictures: list[Path], maps: Sequence[Any]) -> dict[str, Any]:
        """Maps at the model's size, as they are."""
        import numpy as np

        return {"maps": np.stack(maps)}


def repair_windows(model: Any) -> None:
    """Undo an axis swap of anomalib 2.7, for the check of agreement alone.

    It runs the windows through open_clip's transformer as (tokens, windows, width); open_clip from 2.26 on reads that
    as (windows, tokens, width), so every token attends to the same token of the other windows.
    """
    transformer, embed = model.clip.visual.transformer, model._get_window_embeddings
    run = transformer.forward

    def embed_repaired(*inputs: Any) -> Any:
        transformer.forward = lambda x: run(x.transpose(0, 1)).transpose(0, 1)
        try:
            return embed(*inputs)
        finally:
            transformer.forward = run

    model._get_window_embeddings = embed_repaired


class Winspect:
    """WinCLIP as a user holds it, recipe `paper`; only the prompts are those of anomalib, for equal work."""

    def __init__(self, model: str, weights: Path, device: str, variant: str, prompts: Path, cache: Path) -> None:
        from winspect import WinCLIP

        engine, precision = variant.split(":")
        options: dict[str, Any] = {"engine": engine, "precision": precision, "device": device}
        if precision == "int8" and "gate" in inspect.signature(WinCLIP).parameters:
            options["gate"] = "skip"  # random weights tell nothing about what int8 costs in quality
        self.model = WinCLIP(model, weights=weights, recipe="paper", prompts=prompts, cache_dir=cache, **options)
        told = self.describe()
        if (told["engine"], told["precision"]) != (engine, precision):
            raise RuntimeError(f"asked for {variant}, got {told['engine']}:{told['precision']}")

    def describe(self) -> dict[str, Any]:
        """Which engine and precision really ran."""
        told = self.model.describe()
        return {name: told[name] for name in ("winspect", "engine", "precision", "device")}

    def prepare_class(self, class_name: str) -> None:
        """Encode the prompts of a class."""
        self.model.prepare_class(class_name)

    def judge(self, number: int, path: Path, class_name: str) -> tuple[float, Any, Any]:
        """Score, map at the picture's size, map on the patch grid."""
        result = self.model.predict(path, class_name)
        return result.anomaly_score, result.anomaly_map, result.tile_maps  # type: ignore[return-value]

    def outcome(self, pictures: list[Path], maps: Sequence[Any]) -> dict[str, Any]:
        """Maps at the model's size, and the prepared pictures: what anomalib's are compared with."""
        import numpy as np

        from winspect.methods.upsampling import upsample
        from winspect.pictures.tiles import prepare

        pixels = np.concatenate([prepare(path, self.model.preprocess).tiles for path in pictures])
        heat = upsample(np.concatenate(maps), pixels.shape[-2:])
        return {"maps": heat, "pixels": pixels}


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    """What a job gives, and the seconds it took."""
    began = time.perf_counter()
    value = job()
    return value, time.perf_counter() - began


def peak_rss_mb() -> float | None:
    """The most memory this process has held, in MB (Linux); `getrusage` would count the parent's, too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)


def versions() -> dict[str, str]:
    """Releases of what decides the speed, as far as they are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure(make: Callable[[], Any], pictures: list[Path], class_name: str, out: Path, cache: Path | None) -> dict:
    """All figures of one contestant; scores and maps go to the file `out`.

    Raises:
        RuntimeError: text embeddings are not kept where they are removed here, so the prompts' time would be wrong.
    """
    import numpy as np

    if cache is not None:
        shutil.rmtree(cache / "text", ignore_errors=True)  # compiled graphs stay, the class is a new one
    contestant, load_s = timed(make)
    _, prompts_s = timed(partial(contestant.prepare_class, class_name))
    if cache is not None and not any(cache.glob("text/*")):
        raise RuntimeError(f"no text embeddings in {cache / 'text'}: cannot tell whether the class was a new one")
    contestant.judge(0, pictures[0], class_name)  # warm-up
    runs = [timed(partial(contestant.judge, number, path, class_name)) for number, path in enumerate(pictures)]
    figures = {
        "load_s": load_s,
        "prompts_s": prompts_s,
        "pictures_s": [seconds for _, seconds in runs],
        "peak_rss_mb": peak_rss_mb(),
        **contestant.describe(),
        "versions": versions(),
    }
    scores, _, maps = zip(*(judged for judged, _ in runs), strict=True)
    np.savez(out, scores=np.array(scores), **contestant.outcome(pictures, maps))
    if cache is not None:
        del contestant
        gc.collect()
        figures["prompts_cached_s"] = timed(partial(make().prepare_class, class_name))[1]
    return figures


def use_threads(count: int) -> None:
    """Keep this process to so many processors, whatever library runs; torch is told as well."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    import torch

    torch.set_num_threads(count)


def main() -> None:
    """Measure one contestant and print its figures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="anomalib, anomalib-repaired, or ENGINE:PRECISION of winspect")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--class", dest="class_name", required=True)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--pixels", type=Path)
    args = parser.parse_args()
    use_threads(args.threads)

    def make() -> Anomalib | Winspect:
        if args.name.startswith("anomalib"):
            return Anomalib(args.weights, args.device, args.name == "anomalib-repaired", args.pixels)
        return Winspect(args.model, args.weights, args.device, args.name, args.prompts, args.cache)

    cache = None if args.name.startswith("anomalib") else args.cache
    print(json.dumps(measure(make, args.pictures, args.class_name, args.out, cache)))


if __name__ == "__main__":
    main()
