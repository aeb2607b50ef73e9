"""How long a command takes from its start to its end: `python -m benchmarks.cold_start [--rounds N] [--large]`.

`predict` of a photo in a process of its own: with a cache that is empty (first use), with the cache that this left
(used before), with graphs out of the way so that torch loads the model as at every start before, and `--help`. The
jobs take turns. Beside the clock's seconds the processor's, of the process and its children: on a busy machine they say
more. Written to results/cold_start.json, with what `python -X importtime` says of the two starts.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import RESULTS, ROOT, machine, random_weights, write_json

PHOTO = ROOT / "examples" / "hex_nut" / "test" / "defective" / "1.jpg"
GOODS = ROOT / "examples" / "hex_nut" / "train" / "good"
LARGE = "ViT-B-16-plus-240"
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")
_LISTED = 12


def run(arguments: list[str], cache: Path) -> dict[str, float]:
    """Seconds of a command: the clock's, and the processor's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    _command(["-m", "winspect", *arguments], cache)
    clock = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"clock": clock, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def _command(arguments: list[str], cache: Path) -> str:
    environment = {**os.environ, "WINSPECT_CACHE": str(cache), "WINSPECT_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stderr


def imports(arguments: list[str], cache: Path) -> dict[str, Any]:
    """What a command imports: modules and seconds in all, and the packages that take the longest."""
    lines = _IMPORT.findall(_command(["-X", "importtime", "-m", "winspect", *arguments], cache))
    own: dict[str, float] = {}
    for mine, _, _, name in lines:
        package = name.partition(".")[0]
        own[package] = own.get(package, 0.0) + int(mine) / 1e6
    slowest = sorted(own.items(), key=lambda item: -item[1])[:_LISTED]
    return {
        "modules": len(lines),
        "seconds": round(sum(own.values()), 3),
        "torch": "torch" in own,
        "packages": {name: round(seconds, 3) for name, seconds in slowest},
    }


def measure(options: list[str], folder: Path, rounds: int) -> dict[str, Any]:
    """First use, used before, and with torch, round by round."""
    arguments = ["predict", str(PHOTO), "--class", "hex nut", *options]
    used = folder / "used"
    run(arguments, used)
    taken: dict[str, list[dict[str, float]]] = {"first use": [], "with torch": [], "used before": []}
    for number in range(rounds):
        first = folder / f"first{number}"
        taken["first use"].append(run(arguments, first))
        shutil.rmtree(first)
        taken["with torch"].append(run([*arguments, "--engine", "torch"], used))
        taken["used before"].append(run(arguments, used))
    seconds = {
        name: {kind: [round(each[kind], 3) for each in each_round] for kind in ("clock", "cpu")}
        for name, each_round in taken.items()
    }
    medians = {
        name: {kind: round(median(values), 3) for kind, values in kinds.items()} for name, kinds in seconds.items()
    }
    return {
        "command": " ".join(["winspect", "predict", "1.jpg", *arguments[2:4], *map(_name, options)]),
        "median_s": medians,
        "seconds": seconds,
        "imports": {
            "with torch": imports([*arguments, "--engine", "torch"], used),
            "used before": imports(arguments, used),
        },
    }


def _name(option: str) -> str:
    return Path(option).name if option.startswith("/") else option


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help=f"also {LARGE} with random weights")
    args = parser.parse_args()
    document: dict[str, Any] = {"schema": 1, "machine": machine(), "rounds": args.rounds, "starts": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {
            "winspect-tiny": ["--model", "winspect-tiny"],
            "winspect-tiny, 4 good samples": ["--model", "winspect-tiny", "--reference", str(GOODS)],
        }
        if args.large:
            jobs[LARGE] = ["--model", LARGE, "--weights", str(random_weights(LARGE, folder))]
        for number, (job, options) in enumerate(jobs.items()):
            document["starts"][job] = measure(options, folder / str(number), args.rounds)
        helps = [run(["--help"], folder) for _ in range(args.rounds)]
        document["help_s"] = {kind: round(median(each[kind] for each in helps), 3) for kind in ("clock", "cpu")}
    for job, found in document["starts"].items():
        print(job, found["median_s"])
    write_json(RESULTS / "cold_start.json", document)


if __name__ == "__main__":
    main()
