"""What a GPU does with every recipe, in one command of under nine minutes, without a network:

    python -m benchmarks.gpu [--device cuda] [--quick] [--json benchmarks/results/gpu.json]

On random weights of the real architectures, which cost what trained ones cost:

* the rate of the device's own matrix products, fp32 (without TF32) and bf16;
* scores and maps beside the CPU's in fp32, of recipe `paper` on ViT-B-16-plus-240 and of `memory` on DINOv2-S;
* images/s of the image tower, full maps and scores alone, at several batches, with and without captured graphs, and
  the share of the products' rate that this is;
* images/s from file to map of `memory`, `subspace` and `mutual`;
* anomalib's WinCLIP on the same device, where anomalib is installed;
* answers/s of the service.

`--device cpu --quick` runs all of it small, so that it cannot be broken where there is no GPU. A part that fails says
so in the report, and the others go on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.few_shot_speed import MODEL as DINO
from benchmarks.few_shot_speed import timm_weights
from benchmarks.measuring import ROOT, machine, random_weights, timed, write_json
from winspect import WinCLIP
from winspect.backbones.embeddings import Needs
from winspect.engines.torch_engine import TorchEngine
from winspect.errors import EngineError
from winspect.pictures.find import find_pictures
from winspect.speed.flops import TowerShape, image_tower_flops, total
from winspect.speed.gemm import Gemm

CLIP, CLASS = "ViT-B-16-plus-240", "hex nut"
PART = ROOT / "examples" / "hex_nut"
PRECISIONS = ("fp32", "bf16")
NEEDS = {"full maps": Needs(scales=(2, 3), stride=1), "scores alone": Needs()}
PARITY = {"fp32": 1e-4, "bf16": None}
"""The largest difference to the CPU's fp32 that is right; bf16 has its own gate, its difference is written down."""


@dataclass(frozen=True)
class Job:
    """What is measured on."""

    device: str
    quick: bool
    folder: Path
    clip: Path
    dino: Path

    @property
    def pictures(self) -> list[Path]:
        """Pictures to inspect."""
        return find_pictures(PART / "test")[: 4 if self.quick else 12]

    @property
    def good(self) -> list[Path]:
        """Good samples."""
        return find_pictures(PART / "train" / "good")[: 2 if self.quick else 4]

    def model(self, name: str, device: str, **options: Any) -> WinCLIP:
        """A model, in torch."""
        weights = self.clip if name == CLIP else self.dino
        cache = self.folder / "cache"
        return WinCLIP(name, weights=weights, device=device, engine="torch", cache_dir=cache, **options)


def product_rates(job: Job) -> dict[str, float]:
    """GFLOP/s of the device's own matrix products, the best of several sizes."""
    sizes = [(512, 896, 3584)] if job.quick else [(4096, 896, 3584), (16384, 896, 3584), (16384, 4096, 4096)]
    rates = {}
    for precision in PRECISIONS:
        products = [
            Gemm("torch", precision, rows=rows, width=width, hidden=hidden, device=job.device)
            for rows, width, hidden in sizes
        ]
        rates[precision] = round(max(median(product.rates(9)) for product in products), 1)
    return rates


def parity(job: Job) -> list[dict[str, Any]]:
    """The largest differences of scores and maps to the CPU's in fp32."""
    cases: list[tuple[str, str, dict[str, Any]]] = [
        (CLIP, "paper", {}),
        (f"timm/{DINO}", "memory", {"settings": {"size": 224 if job.quick else 448, "rotations": 0}}),
    ]
    rows = []
    for name, recipe, options in cases:

        def results(device: str, precision: str, which: Any = (name, recipe, options)) -> list[Any]:
            name, recipe, options = which
            model = job.model(name, device, recipe=recipe, precision=precision, **options)
            if recipe == "memory":
                model.reference(job.good, CLASS)
            return list(model.predict_many(job.pictures[:4], CLASS))

        expected = results("cpu", "fp32")
        for precision in PRECISIONS:
            found = results(job.device, precision)
            pairs = list(zip(found, expected, strict=True))
            scores = max(abs(ours.anomaly_score - theirs.anomaly_score) for ours, theirs in pairs)
            maps = max(float(np.abs(ours.tile_maps - theirs.tile_maps).max()) for ours, theirs in pairs)
            bar = PARITY[precision]
            row = {"model": name, "recipe": recipe, "precision": precision, "scores": scores, "maps": maps}
            rows.append(row | {"bar": bar, "reached": bar is None or max(scores, maps) <= bar})
    return rows


def tower_rates(job: Job, products: dict[str, float]) -> list[dict[str, Any]]:
    """Images/s of the image tower, from prepared tiles on the CPU to embeddings on the device."""
    tower = job.model(CLIP, "cpu", recipe="paper").engine.tower
    work = {what: total(image_tower_flops(TowerShape.of(tower), needs).values()).flops for what, needs in NEEDS.items()}
    rows = []
    for precision in PRECISIONS:
        for graphs in (False, True):
            try:
                engine = _engine(job, precision, graphs)
            except EngineError:  # no graphs on this device
                continue
            for batch in (1,) if job.quick else (1, 8, 64):
                tiles = torch.zeros(batch, 3, *tower.image_hw)
                for what, needs in NEEDS.items():
                    seconds = _seconds(job, lambda tiles=tiles, needs=needs, engine=engine: engine.encode(tiles, needs))
                    rate = batch / seconds
                    row = {"what": what, "precision": precision, "batch": batch, "graphs": graphs}
                    share = rate * work[what] / 1e9 / products[precision]
                    rows.append(row | {"images_per_s": round(rate, 2), "share_of_products": round(share, 3)})
                    say(f"{what}, {precision}, batch {batch}, graphs {graphs}: {rate:.1f} images/s, {share:.2f}")
    return rows


def _engine(job: Job, precision: str, graphs: bool) -> TorchEngine:
    tower = job.model(CLIP, "cpu", recipe="paper").engine.tower
    return TorchEngine(tower, torch.device(job.device), precision, 64, graphs=graphs)


def _seconds(job: Job, run: Callable[[], Any]) -> float:
    """The median of several runs, after two that warm up."""

    def once() -> None:
        run()
        if job.device != "cpu":
            torch.cuda.synchronize()

    for _ in range(2):
        once()
    began, taken = time.perf_counter(), list[float]()
    while len(taken) < 3 or (len(taken) < 30 and time.perf_counter() - began < (0 if job.quick else 2)):
        taken.append(timed(once)[1])
    return median(taken)


def recipe_rates(job: Job) -> list[dict[str, Any]]:
    """Images/s from file to map, decoding included, on DINOv2-S."""
    size = 224 if job.quick else 448
    recipes: dict[str, dict[str, Any]] = {
        "memory": {"size": size, "rotations": 0 if job.quick else 8},
        "subspace": {"size": size, "rotations": 0 if job.quick else 8},
        "mutual": {"size": 224},
    }
    rows = []
    for recipe, settings in recipes.items():
        for precision in PRECISIONS:
            model = job.model(f"timm/{DINO}", job.device, recipe=recipe, settings=settings, precision=precision)
            if model.method.zero_shot is False and recipe != "mutual":
                model.reference(job.good, CLASS)
            pictures = job.pictures * (1 if job.quick or recipe == "mutual" else 8)
            seconds = _seconds(job, lambda model=model, pictures=pictures: list(model.predict_many(pictures, CLASS)))
            row = {"recipe": recipe, "precision": precision, **settings, "images": len(pictures)}
            rows.append(row | {"images_per_s": round(len(pictures) / seconds, 2)})
            say(f"{recipe}, {precision}: {rows[-1]['images_per_s']} images/s")
    return rows


def beside_anomalib(job: Job) -> dict[str, Any]:
    """Images/s of anomalib's WinCLIP and ours, full maps, one image at a time, fp32 and bf16."""
    if find_spec("anomalib") is None:
        return {"installed": False}
    from benchmarks.versus_child import Anomalib

    theirs = Anomalib(job.clip, job.device)
    theirs.prepare_class(CLASS)
    picture = job.pictures[0]
    seconds = _seconds(job, lambda: theirs.judge(0, picture, CLASS))
    found: dict[str, Any] = {"installed": True, "anomalib": round(1 / seconds, 3)}
    for precision in PRECISIONS:
        model = job.model(CLIP, job.device, recipe="paper", precision=precision)
        ours = _seconds(job, lambda model=model: model.predict(picture, CLASS).anomaly_map)
        found[precision] = {"images_per_s": round(1 / ours, 3), "times_anomalib": round(seconds / ours, 2)}
    return found


def service_rate(job: Job) -> dict[str, Any]:
    """Answers/s of `winspect serve`, sixteen clients, one image each."""
    from benchmarks.serving import CLASS as ASKED_FOR
    from benchmarks.serving import run_clients, served

    options = ["--model", CLIP, "--weights", str(job.clip), "--device", job.device, "--engine", "torch"]
    if job.quick:
        options = ["--model", "winspect-tiny", "--device", job.device]
    contents = [path.read_bytes() for path in job.pictures]
    with served(*options, "--class", ASKED_FOR, ready_s=240) as service:
        run_clients(service, contents, lambda number, answer: None, 4, 2)
        tally, wall = run_clients(service, contents, lambda number, answer: None, 16, 3 if job.quick else 20)
    if not tally.latencies:
        raise RuntimeError(f"no answers: {tally.summary(wall)}")
    return tally.summary(wall)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def measure(job: Job) -> dict[str, Any]:
    """Every part; one that fails leaves its error, and the others go on."""
    report: dict[str, Any] = {"failed": {}}
    parts: Sequence[tuple[str, Callable[[], Any]]] = (
        ("products_gflops", lambda: product_rates(job)),
        ("parity", lambda: parity(job)),
        ("tower", lambda: tower_rates(job, report["products_gflops"])),
        ("recipes", lambda: recipe_rates(job)),
        ("anomalib", lambda: beside_anomalib(job)),
        ("service", lambda: service_rate(job)),
    )
    for name, part in parts:
        try:
            report[name], seconds = timed(part)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            report["failed"][name] = f"{type(error).__name__}: {error}"
        else:
            say(f"{name}: {seconds:.0f} s")
    return report


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small and short: checks that all of it runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    facts = machine(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(args.device, args.quick, folder, random_weights(CLIP, folder), timm_weights(DINO, folder))
        report = {"machine": facts, "device": args.device, "quick": args.quick, **measure(job)}
    write_json(args.json, report)
    print({name: report.get(name) for name in ("products_gflops", "parity", "anomalib", "service", "failed")})
    wrong = [row for row in report.get("parity", ()) if not row["reached"]]
    return 1 if report["failed"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
