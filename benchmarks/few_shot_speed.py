"""Recipe `memory` against anomalib's AnomalyDINO: same random weights and pictures, whole processes in turn.

    python -m benchmarks.few_shot_speed [--variants torch:fp32,openvino:bf16] [--rounds 5] [--json FILE]

DINOv2-S at 448 px; four good samples in eight views each, rotated beforehand, so that both have the same 32 pictures in
memory. In every round each contestant runs in a new process, in the same order, on the same processors: it loads the
model, learns the samples, and judges one picture after the other, from file to map at the picture's size. Ratios are of
the same round, so that what else the machine does hits all alike; the load is written down, and the processor's time.

anomalib lives in an environment of its own, as for `versus_anomalib`. It resizes positions without antialiasing,
and pictures as floats, so that the distances agree closely, not exactly. Exits with 1 when a contestant fails, or when
a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import ROOT, machine, median_ratio, write_json
from benchmarks.versus_anomalib import ChildError, make_environment, read_answer, read_variants, without_versions
from winspect.pictures.rotation import rotated
from winspect.weights import cache_folder

MODEL, SIDE, VIEWS, SEED = "vit_small_patch14_dinov2", 448, 8, 0
PEER = "anomalib"
PART = ROOT / "examples" / "hex_nut"
VARIANTS = ("openvino:fp32", "openvino:bf16", "torch:fp32")
FASTER, MEMORY = {"fp32": 2.0, "bf16": 4.0}, 0.5
"""Times anomalib's pictures per second that the fastest variant of a precision reaches; share of its memory at most."""


def timm_weights(name: str, folder: Path, *, seed: int = SEED) -> Path:
    """A file of random weights of one of timm's models, as the tests make them; they cost what trained ones cost."""
    models = runpy.run_path(str(ROOT / "tests" / "timm_models.py"))
    return models["save"](models["build"](name, {}, seed), folder / f"{name}.safetensors")


def write_views(samples: Sequence[Path], folder: Path) -> list[Path]:
    """Each good sample in all its views, as pictures."""
    written = []
    for path in samples:
        for view in range(VIEWS):
            written.append(folder / f"{path.stem}-{view}.png")
            rotated(Image.open(path).convert("RGB"), view * 360 / VIEWS).save(written[-1])
    return written


def run_child(
    python: str | Path,
    name: str,
    pictures: Sequence[Path],
    options: dict[str, Any],
    *,
    scratch: Path,
    threads: int,
    samples: Sequence[Path] = (),
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Run one contestant in a process of its own.

    Raises:
        ChildError: it failed.
    """
    more = ["--samples", *map(str, samples)] if samples else []
    settings = ["--options", json.dumps(options), "--threads", str(threads), "--scratch", str(scratch)]
    command = [str(python), "-m", "benchmarks.few_shot_child", name, *map(str, pictures), *more, *settings, *flags]
    # Without PYTHONPATH in anomalib's environment, which must see its own packages alone.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or python == sys.executable}
    quiet = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=kept | quiet, check=False, cwd=ROOT)
    return read_answer(name, done.returncode, done.stdout, done.stderr)


def run_rounds(args: argparse.Namespace, python: Path, folder: Path) -> list[dict[str, dict]]:
    """Figures of every round, contestant by contestant."""
    weights, views = timm_weights(MODEL, folder), write_views(args.samples, folder)
    memory = {"recipe": "memory", "settings": {"size": SIDE, "rotations": 0}}
    ours = {"model": f"timm/{MODEL}", "weights": str(weights), **memory}
    rounds: list[dict[str, dict]] = []
    for number in range(args.rounds):
        rounds.append({})
        for name in (PEER, *args.variants):
            is_peer = name == PEER
            found = run_child(
                python if is_peer else sys.executable,
                name,
                args.files,
                {"weights": str(weights), "side": SIDE} if is_peer else ours,
                scratch=folder / name.replace(":", "-"),
                threads=args.threads,
                samples=views,
                flags=("--out", str(distances_file(folder, name))),
            )
            rounds[-1][name] = found
            middle = 1000 * statistics.median(found["pictures_s"])
            print(f"round {number + 1} {name}: {middle:.0f} ms, {found['peak_rss_mb']:.0f} MB", file=sys.stderr)
    return rounds


def distances_file(folder: Path, name: str) -> Path:
    """Where a contestant leaves the distances of all patches."""
    return folder / f"{name.replace(':', '-')}.npz"


def summarise(rounds: Sequence[dict[str, dict]], name: str) -> dict[str, float]:
    """Medians of a contestant over the rounds; ratios to anomalib are of the same round."""

    def medians(who: str, figure: str) -> list[float]:
        return [float(np.median(found[who][figure])) for found in rounds]

    ours, theirs = medians(name, "pictures_s"), medians(PEER, "pictures_s")
    memory, processor = medians(name, "peak_rss_mb"), medians(name, "processor_s")
    return {
        "ms": round(1000 * statistics.median(ours), 1),
        "times_anomalib": round(median_ratio(theirs, ours), 3),
        "processor_ms": round(1000 * statistics.median(processor), 1),
        "times_anomalib_of_processor": round(median_ratio(medians(PEER, "processor_s"), processor), 3),
        "fit_s": round(statistics.median(medians(name, "fit_s")), 3),
        "load_s": round(statistics.median(medians(name, "load_s")), 3),
        "peak_rss_mb": round(statistics.median(memory), 1),
        "memory_share": round(median_ratio(memory, medians(PEER, "peak_rss_mb")), 3),
    }


def agreement(folder: Path, name: str) -> dict[str, float]:
    """How a variant's distances of the patches, 1 - cosine, differ from anomalib's."""
    ours, theirs = (np.load(distances_file(folder, who))["patches"].astype(np.float64) for who in (name, PEER))
    correlation = float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]))
    return {"correlation": round(correlation, 6), "mean_difference": float(np.abs(ours - theirs).mean())}


def missed_bars(medians: dict[str, dict[str, float]]) -> list[str]:
    """The bars that the measurement does not reach, in words."""
    missed = []
    for precision, bar in FASTER.items():
        ratios = [found["times_anomalib"] for name, found in medians.items() if name.endswith(f":{precision}")]
        if ratios and max(ratios) < bar:
            missed.append(f"{precision}: {max(ratios)} times anomalib's pictures per second, the bar is {bar}")
    shares = [found["memory_share"] for name, found in medians.items() if name != PEER]
    if shares and min(shares) > MEMORY:
        missed.append(f"memory: {min(shares)} of anomalib's, the bar is {MEMORY}")
    return missed


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole report."""
    python = args.anomalib_python or make_environment(cache_folder() / "benchmarks" / "anomalib")
    facts = machine("cpu")
    rounds = run_rounds(args, python, folder)
    medians = {name: summarise(rounds, name) for name in (PEER, *args.variants)}
    return {
        "machine": {**facts, "load_average_after": machine("cpu")["load_average_before"]},
        "versions": {name: rounds[0][name]["versions"] for name in (PEER, args.variants[0])},
        "command": f"python -m benchmarks.few_shot_speed --variants {','.join(args.variants)} --rounds {args.rounds} "
        f"--count {len(args.files)} --threads {args.threads}",
        "input": {
            "model": MODEL,
            "weights": f"random, seed {SEED}",
            "pixels": SIDE,
            "good_samples": len(args.samples),
            "views": VIEWS,
            "pictures": len(args.files),
        },
        "medians": medians,
        "agreement": {name: agreement(folder, name) for name in args.variants},
        "missed": missed_bars(medians),
        "rounds": [{name: without_versions(found) for name, found in each.items()} for each in rounds],
    }


def table(medians: dict[str, dict[str, float]]) -> str:
    """What a person reads: a line per contestant."""
    lines = [f"{'':<16}{'ms':>8}{'x':>7}{'MB':>8}{'share':>7}{'learn s':>9}"]
    for name, found in medians.items():
        figures = f"{found['ms']:>8.0f}{found['times_anomalib']:>7.2f}{found['peak_rss_mb']:>8.0f}"
        lines.append(f"{name:<16}{figures}{found['memory_share']:>7.2f}{found['fit_s']:>9.1f}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, write JSON if asked, and say which bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=read_variants, default=list(VARIANTS), help="ENGINE:PRECISION,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=6, help="pictures to judge")
    parser.add_argument("--threads", type=int, default=2, help="processors that each contestant may use")
    parser.add_argument("--anomalib-python", type=Path, help="Python of an environment that has anomalib")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.samples = sorted((PART / "train" / "good").iterdir())
    args.files = sorted((PART / "test").rglob("*.jpg"))[: args.count]
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = measure(args, Path(folder))
    except (ChildError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(report["medians"]))
    for line in report["missed"]:
        print(line)
    write_json(args.json, report)
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
