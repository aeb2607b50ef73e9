"""`winspect batch` beside ``predict_many``: pace, memory, start, shares of a machine; and kills of all kinds.

    python -m benchmarks.batch throughput [--pictures 20000] [--beside 2000] [--json FILE]
    python -m benchmarks.batch startup    [--pictures 100] [--rounds 3] [--json FILE]
    python -m benchmarks.batch scaling    [--pictures 2000] [--json FILE]
    python -m benchmarks.batch faults     [--pictures 2000] [--kills 20] [--shard-rows 64] [--seed 0] [--json FILE]

``throughput``: ``predict_many`` on some pictures, `winspect batch` on all, ``predict_many`` on some others, each in
processes of its own; every score that both have is compared; memory of batch's driver and workers while it runs.
``startup``: whole processes of `winspect predict` and `winspect batch` on the same pictures, in turn.
``scaling``: one worker of all cores, two of half of them, and two local nodes of one CPU each; bytes of a picture.
``faults``: two local nodes; workers, nodes and drivers are killed at random moments while pictures are scored, and the
same command goes on with `--resume`, until it was as often as asked. Exits with 1 if a picture was lost, is there
twice, has an error or another score than ``predict_many``'s, or a finished shard was not kept.

The pictures are made from sample pictures (256 x 256, JPEG), the model is the bundled winspect-tiny. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.batch_faults import (
    CLASS,
    MODEL,
    SHARD_ROWS,
    TOLERANCE,
    WORKER,
    Batch,
    Nodes,
    all_ended,
    compare,
    descendants,
    faults,
    is_whole,
    kill,
    make_pictures,
    predict_many,
    read_rows,
    slope,
    title,
)
from winspect.system.machine import describe_machine

DEFAULT_PICTURES = {"throughput": 20_000, "startup": 100, "scaling": 2000, "faults": 2000}
_SAMPLE_EVERY_S = 2.0
_MOST_POINTS = 60
_STEADY_S = 10.0
_ALONE = 200  # pictures that are decoded with nothing beside
_ENDED_S = 10.0
_BECOME_SUBREAPER = 36


def throughput(count: int, beside: int) -> dict[str, Any]:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
        pictures = make_pictures(Path(folder, "pictures"), count)
        chosen = random.Random(0).sample(pictures, min(2 * beside, count))
        first, first_pace = predict_many(chosen[: len(chosen) // 2])
        with Batch(pictures[0].parent, count, Path(folder, "out"), _shard_rows(count)) as batch:
            samples = _watch(batch)
            summary = batch.summary()
        last, last_pace = predict_many(chosen[len(chosen) // 2 :])
        expected = first | last
        rows = read_rows(batch.out)
        compared = compare([row for row in rows if row["id"] in expected], expected)
        steady = _steady_pace(batch)
    alone = mean([first_pace, last_pace])
    return {
        "what": "throughput",
        "pictures": count,
        "beside": len(expected),
        "predict_many_pictures_per_s": [round(first_pace, 2), round(last_pace, 2)],
        "batch_pictures_per_s": summary["pictures_per_s"],
        "batch_steady_pictures_per_s": steady and round(steady, 2),
        "batch_whole_process_pictures_per_s": round(count / summary["wall_s"], 2),
        "ratio": round(summary["pictures_per_s"] / alone, 3),
        "whole_process_ratio": round(count / summary["wall_s"] / alone, 3),
        "steady_ratio": steady and round(steady / alone, 3),
        "rows": len(rows),
        "failed": summary["failed"],
        "compared": compared,
        "scores_equal": compared["largest_difference"] <= TOLERANCE,
        **{name: summary[name] for name in ("wall_s", "stages", "slowest_stage")},
        "memory": _memory(samples, count),
    }


def _shard_rows(count: int) -> int:
    return min(256, max(64, count // 40))


def _watch(batch: Batch) -> list[tuple[int, dict[int, tuple[str, float]]]]:
    """Finished pictures, and name and MB of each process, every few seconds until a batch ends."""
    samples = []
    while batch.process.poll() is None:
        here = {batch.process.pid: ("driver", _anonymous_mb(batch.process.pid))}
        for pid in descendants(batch.process.pid):
            if (name := title(pid)).startswith("ray::"):
                here[pid] = (name, _anonymous_mb(pid))
        samples.append((batch.finished(), here))
        time.sleep(_SAMPLE_EVERY_S)
    return samples


def _anonymous_mb(pid: int) -> float:
    """Resident memory that is no file's and nobody else's: Ray's object store is not counted in each process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:")), 0.0)


def _memory(samples: Sequence[tuple[int, Mapping[int, tuple[str, float]]]], total: int) -> dict[str, Any]:
    """Slopes after the first quarter, of the processes that lived from then to the last shard.

    Those of the driver and of workers over time, those of Ray's own actors and agents apart.
    """
    warm = [(done, here) for done, here in samples if total / 4 <= done < total]
    names: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for _, here in samples:
        for pid, (name, _) in here.items():
            names[pid][name] += name != "ray::IDLE"
    throughout = sorted(set.intersection(*(set(here) for _, here in warm))) if warm else []
    thin = samples[:: -(-len(samples) // _MOST_POINTS) or 1]
    ours, rays = [], []
    for pid in throughout:
        per_thousand = slope([(done / 1000, here[pid][1]) for done, here in warm])
        name = names[pid].most_common(1)[0][0]
        told = {"process": name, "slope_mb_per_1000_pictures": per_thousand and round(per_thousand, 3)}
        if name == "driver" or name.startswith(WORKER):
            ours.append(told | {"mb": [[done, round(here[pid][1], 1)] for done, here in thin if pid in here]})
        else:
            rays.append(told | {"mb": [round(here[pid][1], 1) for _, here in (warm[0], warm[-1])]})
    slopes = [one["slope_mb_per_1000_pictures"] for one in ours if one["slope_mb_per_1000_pictures"] is not None]
    return {
        "steepest_mb_per_1000_pictures": max(slopes, default=None),
        "samples": len(samples),
        "driver_and_workers": ours,
        "of_ray_itself": rays,
        "processes_not_alive_throughout": len({pid for _, here in warm for pid in here} - set(throughout)),
    }


def _steady_pace(batch: Batch) -> float | None:
    """Pictures per second by the times at which shards were written, without the first and the last tenth of them.

    None where that is too short a time: shards are written several at once, whenever a table of rows has come.
    """
    written_s = sorted(when / 1e9 for when, _ in batch.shards().values())
    edge = -(-len(written_s) // 10)
    middle = written_s[edge : len(written_s) - edge]
    seconds = middle[-1] - middle[0] if middle else 0.0
    return (len(middle) - 1) * batch.shard_rows / seconds if seconds >= _STEADY_S else None


def startup(count: int, rounds: int) -> dict[str, Any]:
    """See the module."""
    seconds: dict[str, list[float]] = {"predict": [], "batch": []}
    with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
        pictures = make_pictures(Path(folder, "pictures"), count)[0].parent
        for number in range(rounds):
            command = [sys.executable, "-m", "winspect", "predict", str(pictures), "--class", CLASS, "--model", MODEL]
            began = time.monotonic()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            seconds["predict"].append(round(time.monotonic() - began, 2))
            with Batch(pictures, count, Path(folder, f"out{number}"), 256) as batch:
                seconds["batch"].append(batch.summary()["wall_s"])
            print({name: taken[-1] for name, taken in seconds.items()}, flush=True)
    medians = {name: median(taken) for name, taken in seconds.items()}
    overhead = round(medians["batch"] - medians["predict"], 2)
    return {"what": "startup", "pictures": count, "seconds": seconds, "medians": medians, "overhead_s": overhead}


def scaling(count: int) -> dict[str, Any]:
    """See the module."""
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
        pictures = make_pictures(Path(folder, "pictures"), count)

        def run(name: str, *options: str) -> None:
            with Batch(pictures[0].parent, count, Path(folder, name), _shard_rows(count), *options) as batch:
                summary = batch.summary()
            wanted = ("pictures_per_s", "pipeline_seconds", "wall_s", "failed", "stages", "slowest_stage", "bytes")
            told[name] = {name: summary[name] for name in wanted}
            told[name]["steady_pictures_per_s"] = (pace := _steady_pace(batch)) and round(pace, 2)
            told[name]["bytes_written_per_picture"] = round(summary["bytes"] / summary["inputs"], 1)
            print(name, json.dumps(told[name]), flush=True)

        run("one_worker", "--pool", "1")
        run("two_workers", "--pool", "2")
        with Nodes(2, 1, random.Random(0)) as nodes:
            run("two_nodes_of_one_cpu", "--address", nodes.address)
        read = mean(path.stat().st_size for path in pictures)
        found = {"runs": told, "bytes_read_per_picture": round(read), **_picture(pictures)}
    return {"what": "scaling", "pictures": count, **found}


def _picture(pictures: Sequence[Path]) -> dict[str, Any]:
    """The bytes of a picture's tiles, and what decoding it takes with nothing beside it, on one core."""
    from winspect import WinCLIP
    from winspect.pictures.tiles import prepare

    model = WinCLIP(MODEL, device="cpu")
    some = [str(path) for path in pictures[:_ALONE]]
    bytes_of_one = prepare(some[0], model.preprocess, model.cut).tiles.size  # as 8 bits
    began = time.thread_time()
    for path in some:
        prepare(path, model.preprocess, model.cut)
    decode_ms = 1000 * (time.thread_time() - began) / len(some)
    return {"bytes_of_tiles_per_picture": bytes_of_one, "decode_alone_cpu_ms_per_picture": round(decode_ms, 2)}


def _leave_nothing() -> list[str]:
    """Kill every process below this one that does not end by itself; says which there were."""
    all_ended(_ENDED_S)
    left = descendants(os.getpid())
    names = [title(pid) or str(pid) for pid in left]
    kill(left)
    return names


def _text(result: Mapping[str, Any]) -> str:
    """JSON, lists of numbers on a line each."""
    return re.sub(r"\[[-\d\s.,e+]*\]", lambda found: " ".join(found[0].split()), json.dumps(result, indent=1))


def main() -> int:
    """Measure, print, and add to a JSON file if asked; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = ", ".join(f"{count} for {what}" for what, count in DEFAULT_PICTURES.items())
    parser.add_argument("what", choices=tuple(DEFAULT_PICTURES))
    parser.add_argument("--pictures", type=int, help=f"default: {defaults}")
    parser.add_argument("--beside", type=int, default=2000, help="throughput: for predict_many, before and after")
    parser.add_argument("--rounds", type=int, default=3, help="startup")
    parser.add_argument("--kills", type=int, default=20, help="faults: how many in all")
    parser.add_argument("--shard-rows", type=int, default=SHARD_ROWS, help=f"faults: default {SHARD_ROWS}")
    parser.add_argument("--seed", type=int, default=0, help="faults: of the kinds and moments of kills")
    parser.add_argument(
        "--json", type=Path, help="an object of results; this one is put in place of an earlier like it"
    )
    args = parser.parse_args()
    # Ray's token would be written into the home folder; local clusters of a benchmark need none.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.pop("RAY_ADDRESS", None)
    # What outlives its parent becomes this process's child, so that nothing that was started is out of sight.
    ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    count = args.pictures or DEFAULT_PICTURES[args.what]
    try:
        if args.what == "throughput":
            result = throughput(count, args.beside)
        elif args.what == "startup":
            result = startup(count, args.rounds)
        elif args.what == "scaling":
            result = scaling(count)
        else:
            result = faults(count, args.kills, args.seed, args.shard_rows)
    finally:
        left = _leave_nothing()
        if left:
            print("ended at last:", *left, sep="\n  ", file=sys.stderr)
    result |= {"date": date.today().isoformat(), "machine": describe_machine("cpu")}
    print(_text({name: value for name, value in result.items() if name not in ("machine", "runs")}))
    if args.json:
        earlier = json.loads(args.json.read_text()) if args.json.is_file() else {}
        args.json.write_text(_text(earlier | {args.what: result}) + "\n")
    return int(args.what == "faults" and not is_whole(result))


if __name__ == "__main__":
    sys.exit(main())
