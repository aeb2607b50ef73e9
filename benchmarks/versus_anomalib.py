"""winspect against anomalib's WinCLIP: full zero-shot maps, same random weights and pictures, whole processes in turn.

    python -m benchmarks.versus_anomalib [--variants torch:fp32,openvino:bf16] [--json FILE]

anomalib lives in a virtual environment of its own, made once in the cache folder (some GB; or name the Python of one
that you have: `--anomalib-python FILE`). In every round each contestant runs in a new process, in the same order, on
the same processors: it loads the model, encodes the prompts of a class it has not seen, and judges one picture after
the other, from file to map at the picture's own size. The prompts are anomalib's for both, so the work is equal.

Agreement is checked twice: with anomalib as it comes, and with anomalib repaired (`versus_child.repair_windows`) and
given the same pixels, since its own windows attend to each other and its resizing differs a little. Exits with 1 when a
contestant fails, or when a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import ROOT, machine, random_weights, write_json
from winspect.weights import cache_folder

CHILD = Path(__file__).with_name("versus_child.py")
MODEL, SEED = "ViT-B-16-plus-240", 0
PEER, ORACLE = "anomalib", "anomalib-repaired"
PEER_RELEASE = "2.7.*"
LIBRARIES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
PRECISIONS = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32",)}
FASTER = {"fp32": 3.5, "bf16": 7.0, "int8": 10.0}
"""Times anomalib's pictures per second that the fastest variant of a precision must reach."""
PROMPTS_FASTER, PROMPTS_CACHED_S, SAME = 8.0, 0.05, 1e-4
CONSTANT = 1e-6
"""A map whose values lie closer together than this is constant, but for rounding."""


class ChildError(RuntimeError):
    """A contestant's process failed; says what it said last."""


def installed_variants() -> list[str]:
    """Every engine that is installed, in every precision it has."""
    engines = [engine for engine, library in LIBRARIES.items() if importlib.util.find_spec(library)]
    return [f"{engine}:{precision}" for engine in engines for precision in PRECISIONS[engine]]


def read_variants(text: str) -> list[str]:
    """`torch:fp32,openvino:bf16` to its parts; refuses what is not ENGINE:PRECISION of a known engine."""
    variants = text.split(",")
    wrong = [v for v in variants if v.partition(":")[2] not in PRECISIONS.get(v.partition(":")[0], ())]
    if wrong:
        known = ", ".join(f"{engine}:{precision}" for engine, own in PRECISIONS.items() for precision in own)
        raise argparse.ArgumentTypeError(f"got {', '.join(map(repr, wrong))}, need some of {known}")
    return list(dict.fromkeys(variants))


def make_environment(folder: Path) -> Path:
    """The Python of anomalib's own environment; made on the first run, with torch and open_clip in our releases."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (folder / "complete").exists():
        return python
    print(f"installing anomalib {PEER_RELEASE} into {folder}; once, and it takes minutes", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    same = [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in ("torch", "open_clip_torch")]
    pip = [str(python), "-m", "pip", "install", "--quiet", f"anomalib=={PEER_RELEASE}", *same]
    subprocess.run(pip, check=True)
    (folder / "complete").touch()
    return python


def run_child(python: str | Path, name: str, pictures: Sequence[Path], options: dict[str, Any], threads: int) -> dict:
    """Run one contestant in a process of its own.

    Raises:
        ChildError: it failed, or said nothing that can be read.
    """
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [str(python), str(CHILD), name, *map(str, pictures), "--threads", str(threads), *flags]
    # Without PYTHONPATH in anomalib's environment, which must see its own packages alone.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or python == sys.executable}
    quiet = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=kept | quiet, check=False)
    return read_answer(name, done.returncode, done.stdout, done.stderr)


def read_answer(name: str, code: int, stdout: str, stderr: str) -> dict:
    """The figures in the last line of a contestant's output.

    Raises:
        ChildError: see `run_child`.
    """
    lines = stdout.strip().splitlines() or [""]
    try:
        if code == 0:
            return json.loads(lines[-1])
    except json.JSONDecodeError:
        pass
    said = (stderr.strip().splitlines() or lines)[-1]
    raise ChildError(f"{name} ended with {code}: {said}")


def run_rounds(
    python: Path, variants: Sequence[str], args: argparse.Namespace, shared: dict[str, Any], folder: Path
) -> tuple[list[dict[str, dict]], dict[str, str]]:
    """Figures of every round, contestant by contestant, and why some failed; these are left out from then on.

    Raises:
        ChildError: anomalib failed, with which everything is compared.
    """
    prompts = folder / "prompts.yaml"
    rounds: list[dict[str, dict]] = []
    failed: dict[str, str] = {}
    for number in range(args.rounds):
        rounds.append({})
        for name in [PEER, *(variant for variant in variants if variant not in failed)]:
            own = {"out": outcome_file(folder, name)}
            if name != PEER:
                own |= {"prompts": prompts, "cache": folder / "cache" / name.replace(":", "-")}
            try:
                runner = python if name == PEER else sys.executable
                found = run_child(runner, name, args.files, shared | own, args.threads)
            except ChildError as error:
                if name == PEER:
                    raise
                failed[name] = str(error)
                continue
            if name == PEER:
                prompts.write_text(json.dumps(found.pop("prompts")))  # JSON is YAML
            rounds[-1][name] = found
            print(f"round {number + 1} {name}: {per_second(found):.3f} pictures/s", file=sys.stderr)
    return rounds, failed


def outcome_file(folder: Path, name: str) -> Path:
    """Where a contestant leaves its scores and maps."""
    return folder / f"{name.replace(':', '-')}.npz"


def per_second(figures: dict) -> float:
    """Pictures per second of one contestant in one round."""
    return len(figures["pictures_s"]) / sum(figures["pictures_s"])


def summarise(rounds: Sequence[dict[str, dict]], name: str) -> dict[str, Any]:
    """Medians of a contestant over the rounds; ratios to anomalib are of the same round."""
    own = [found[name] for found in rounds if name in found]
    peer = [found[PEER] for found in rounds if name in found]
    latency = np.concatenate([found["pictures_s"] for found in own]) * 1000

    def middle(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(statistics.median(known), 4) if known else None

    return {
        "images_per_s": middle([per_second(found) for found in own]),
        "times_anomalib": middle([per_second(a) / per_second(b) for a, b in zip(own, peer, strict=True)]),
        "latency_ms": {f"p{p}": round(float(np.percentile(latency, p)), 1) for p in (50, 95)},
        "prompts_s": middle([found["prompts_s"] for found in own]),
        "prompts_times_anomalib": middle([b["prompts_s"] / a["prompts_s"] for a, b in zip(own, peer, strict=True)]),
        "prompts_cached_s": middle([found.get("prompts_cached_s") for found in own]),
        "load_s": middle([found["load_s"] for found in own]),
        "peak_rss_mb": middle([found["peak_rss_mb"] for found in own]),
    }


def agreement(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float | None]:
    """How two contestants' scores (pictures,) and maps (pictures, height, width) differ.

    Besides the largest differences: the mean correlation of the two maps of a picture (of pictures without a constant
    map; None without such), and the median spread (highest minus lowest) within each side's maps.
    """
    a, b = ours["maps"].astype(np.float64), theirs["maps"].astype(np.float64)
    telling = [(x.ravel(), y.ravel()) for x, y in zip(a, b, strict=True) if min(np.ptp(x), np.ptp(y)) > CONSTANT]
    return {
        "score_max_difference": float(np.abs(ours["scores"] - theirs["scores"]).max()),
        "map_max_difference": float(np.abs(a - b).max()),
        "map_correlation": float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in telling])) if telling else None,
        "map_spread": float(np.median(np.ptp(a, axis=(1, 2)))),
        "map_spread_anomalib": float(np.median(np.ptp(b, axis=(1, 2)))),
    }


def compare(folder: Path, variants: Sequence[str]) -> dict[str, dict]:
    """Every variant's scores and maps against anomalib as it comes, and against it repaired on the same pixels."""
    theirs = {name: dict(np.load(outcome_file(folder, name))) for name in (PEER, ORACLE)}
    found = {}
    for variant in variants:
        ours = dict(np.load(outcome_file(folder, variant)))
        found[variant] = {f"against_{name.replace('-', '_')}": agreement(ours, other) for name, other in theirs.items()}
    return found


def missed_bars(medians: dict[str, dict], agreed: dict[str, dict]) -> list[str]:
    """The bars that the measurement does not reach, in words."""
    missed = []
    for precision, bar in FASTER.items():
        ratios = [found["times_anomalib"] for name, found in medians.items() if name.endswith(f":{precision}")]
        if ratios and max(ratios) < bar:
            missed.append(f"{precision}: {max(ratios)} times anomalib's pictures/s, the bar is {bar}")
    for name in agreed:
        faster, cached_s = medians[name]["prompts_times_anomalib"], medians[name]["prompts_cached_s"]
        if faster < PROMPTS_FASTER:
            missed.append(f"{name}: prompts {faster} times faster than anomalib's, the bar is {PROMPTS_FASTER}")
        if cached_s > PROMPTS_CACHED_S:
            missed.append(f"{name}: cached prompts took {cached_s} s, the bar is {PROMPTS_CACHED_S} s")
        same = agreed[name]["against_anomalib_repaired"]
        worst = max(same["score_max_difference"], same["map_max_difference"])
        if name.endswith(":fp32") and worst > SAME:
            missed.append(f"{name}: differs by {worst:.1e} from anomalib repaired, the bar is {SAME:.0e}")
    return missed


def table(medians: dict[str, dict], agreed: dict[str, dict]) -> str:
    """What a person reads: a line per contestant; differences are to anomalib repaired, on the same pixels."""
    titles = ("", "pictures/s", "x", "p50 ms", "p95 ms", "prompts s", "x", "cached s", "MB", "score diff", "map diff")
    lines: list[tuple[str, ...]] = [titles]
    for name, found in medians.items():
        same = agreed.get(name, {}).get("against_anomalib_repaired")
        cells: list[Any] = [found["images_per_s"], found["times_anomalib"], *found["latency_ms"].values()]
        cells += [found[key] for key in ("prompts_s", "prompts_times_anomalib", "prompts_cached_s", "peak_rss_mb")]
        differences = [f"{same[f'{what}_max_difference']:.1e}" for what in ("score", "map")] if same else ["-", "-"]
        lines.append((name, *("-" if cell is None else f"{cell:.4g}" for cell in cells), *differences))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole report."""
    python = args.anomalib_python or make_environment(cache_folder() / "benchmarks" / "anomalib")
    weights = args.weights or random_weights(MODEL, folder, seed=SEED)
    facts = machine(args.device)
    shared = {"model": MODEL, "weights": weights, "class": args.class_name, "device": args.device}
    rounds, failed = run_rounds(python, args.variants, args, shared, folder)
    variants = [variant for variant in args.variants if variant not in failed]
    agreed, repaired_s = {}, None
    if variants:
        own = {"out": outcome_file(folder, ORACLE), "pixels": outcome_file(folder, variants[0])}
        repaired_s = per_second(run_child(python, ORACLE, args.files, shared | own, args.threads))
        agreed = compare(folder, variants)
    medians = {name: summarise(rounds, name) for name in [PEER, *variants]}
    return {
        "machine": facts,
        "versions": {name: rounds[0][name]["versions"] for name in [PEER, *variants[:1]]},
        "command": args.command,
        "input": {
            "model": MODEL,
            "weights": args.weights.name if args.weights else f"random, seed {SEED}",
            "class": args.class_name,
            "pictures": [path.name for path in args.files],
        },
        "medians": medians,
        "agreement": agreed,
        "anomalib_repaired_images_per_s": repaired_s and round(repaired_s, 4),
        "failed": failed,
        "missed": missed_bars(medians, agreed),
        "rounds": [{name: without_versions(found) for name, found in each.items()} for each in rounds],
    }


def without_versions(figures: dict) -> dict:
    """One contestant's figures of a round, rounded, without what is the same in every round."""
    kept = {key: value for key, value in figures.items() if key != "versions"}
    return json.loads(json.dumps(kept), parse_float=lambda text: round(float(text), 4))


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `command` repeats it without the folders of this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=read_variants, help="ENGINE:PRECISION,...; default: all that is installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=Path, default=ROOT / "examples" / "textile", help="folder of pictures")
    parser.add_argument("--count", type=int, default=4, help="how many of them")
    parser.add_argument("--class", dest="class_name", default="textile")
    parser.add_argument("--threads", type=int, default=2, help="processors that each contestant may use")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--weights", type=Path, help=f"of {MODEL}; default: random ones")
    parser.add_argument("--anomalib-python", type=Path, help="Python of an environment that has anomalib")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    args.files = sorted(path for path in args.pictures.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    args.files = args.files[: args.count]
    if not args.files or args.rounds < 1 or args.threads < 1:
        parser.error(f"found {len(args.files)} pictures in {args.pictures}; need at least 1, and 1 round, and 1 thread")
    args.variants = args.variants or installed_variants()
    told = {"variants": ",".join(args.variants), "rounds": args.rounds, "count": len(args.files)}
    told |= {"class": args.class_name, "threads": args.threads, "device": args.device}
    args.command = " ".join(
        ["python -m benchmarks.versus_anomalib", *(f"--{key} {value}" for key, value in told.items())]
    )
    return args


def main() -> int:
    """Measure, print the table, write JSON if asked, and say which bar was missed."""
    args = read_arguments()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = measure(args, Path(folder))
    except (ChildError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(report["medians"], report["agreement"]))
    for name, found in report["agreement"].items():
        plain = found["against_anomalib"]
        print(
            f"{name} against anomalib as it comes: scores differ by up to {plain['score_max_difference']:.1e}, maps by "
            f"{plain['map_max_difference']:.1e}; a map spreads over {plain['map_spread']:.1e}, anomalib's over "
            f"{plain['map_spread_anomalib']:.1e}"
        )
    for line in [*report["failed"].values(), *report["missed"]]:
        print(line)
    write_json(args.json, report)
    return 1 if report["missed"] or report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
