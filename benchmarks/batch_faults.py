"""``faults`` of ``benchmarks.batch``: nothing lost, nothing twice, whatever is killed. And what its sections share."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CLASS, MODEL = "textile", "winspect-tiny"
TOLERANCE = 1e-5
KINDS = ("worker", "node", "driver")
SHARD_ROWS = 64
WORKER = "ray::Worker"
"""How the names of workers' processes begin."""
# A kill comes so long after pictures were seen to be scored, a new node so long after the old one died.
KILL_AFTER_S, MENDED_AFTER_S = (3.0, 10.0), (2.0, 6.0)
_STUCK_S = 300.0
_ENDED_S = 20.0
_MOST_FAILURES = 5
_OBJECT_STORE_BYTES = 160 << 20
_PREDICT_MANY = """
import json, sys, time
from winspect import WinCLIP
name, model, pictures = json.load(sys.stdin)
predictor = WinCLIP(model)
list(predictor.predict_many(pictures[:32], name, maps=False))
began = time.perf_counter()
scores = [result.anomaly_score for result in predictor.predict_many(pictures, name, maps=False)]
print(json.dumps([scores, time.perf_counter() - began]))
"""


def make_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """So many JPEGs of 256 x 256, each of its own: sample pictures cut, mirrored, and made lighter or darker."""
    import conformal_clip_data
    from PIL import Image, ImageEnhance, ImageOps

    chance = random.Random(seed)
    files = sorted(conformal_clip_data.textile_simulated_root().rglob("*.jpg"))
    samples = [Image.open(file).convert("RGB") for file in chance.sample(files, min(len(files), 500))]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(count):
        picture = chance.choice(samples)
        side = chance.randint(180, min(picture.size))
        left, top = chance.randint(0, picture.width - side), chance.randint(0, picture.height - side)
        picture = picture.resize((256, 256), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        picture = ImageOps.mirror(picture) if chance.random() < 0.5 else picture
        picture = ImageEnhance.Brightness(picture).enhance(chance.uniform(0.7, 1.3))
        pictures.append(folder / f"{number:06d}.jpg")
        picture.save(pictures[-1], quality=90)
    return pictures


def predict_many(pictures: Sequence[Path]) -> tuple[dict[str, float], float]:
    """The scores of ``predict_many`` in a process of its own, by path; and its pictures per second, start left out."""
    told = json.dumps([CLASS, MODEL, [str(path) for path in pictures]])
    done = subprocess.run([sys.executable, "-c", _PREDICT_MANY], input=told, stdout=-1, text=True, check=True)
    scores, seconds = json.loads(done.stdout)
    return dict(zip(map(str, pictures), scores, strict=True)), len(pictures) / seconds


class Batch:
    """`winspect batch` as a process of its own.

    Args:
        pictures: a folder. total: how many it holds.
        out: the destination; beside it the process's output is kept.
    """

    def __init__(self, pictures: Path, total: int, out: Path, shard_rows: int, *options: str) -> None:
        self.total, self.out, self.shard_rows = total, out, shard_rows
        self._is_alone = "--address" not in options
        command = [sys.executable, "-m", "winspect", "batch", str(pictures), "--class", CLASS, "--model", MODEL]
        command += ["--out", str(out), "--shard-rows", str(shard_rows), "--json", *options]
        self._said, self._log = out.with_suffix(".json"), out.with_suffix(".log")
        self.began = time.monotonic()
        with open(self._said, "w") as said, open(self._log, "a") as log:
            self.process = subprocess.Popen(command, stdout=said, stderr=log)

    def shards(self) -> dict[str, tuple[int, int]]:
        """The finished shards: when each was written, and its bytes."""
        found = {path.name: path.stat() for path in sorted(self.out.glob("part-*.parquet"))}
        return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}

    def finished(self) -> int:
        """Pictures in finished shards; the last of these may be a smaller one."""
        return min(self.total, len(list(self.out.glob("part-*.parquet"))) * self.shard_rows)

    def summary(self) -> dict[str, Any]:
        """What it prints at its end, and its wall time. Ends the benchmark where it failed."""
        code = self.process.wait()
        wall_s = time.monotonic() - self.began
        if code not in (0, 3):
            raise SystemExit(f"winspect batch ended with {code}: {self.last_words()}")
        return json.loads(self._said.read_text()) | {"wall_s": round(wall_s, 2)}

    def last_words(self) -> str:
        """The end of what it wrote on stderr."""
        return self._log.read_text()[-600:].strip()

    def end(self) -> None:
        """Kill it with all that it started, if it runs; else wait until its own cluster is gone, too."""
        if self.process.poll() is None:
            kill([self.process.pid, *descendants(self.process.pid)])
        self.process.wait()
        if self._is_alone:
            all_ended(_ENDED_S)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Id, score and error of every row of every shard."""
    import pyarrow.parquet as pq

    columns = ["id", "anomaly_score", "error"]
    files = sorted(out.glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read(columns).to_pylist()]


def compare(rows: Sequence[Mapping[str, Any]], expected: Mapping[str, float]) -> dict[str, Any]:
    """Compare rows with the scores expected of each id: lost, twice, strange, errors; the largest difference."""
    times = Counter(row["id"] for row in rows)
    judged = [row for row in rows if row["error"] is None and row["id"] in expected]
    differences = [abs(row["anomaly_score"] - expected[row["id"]]) for row in judged]
    return {
        "inputs": len(expected),
        "rows": len(rows),
        "lost": len(expected.keys() - times.keys()),
        "twice": sum(number - 1 for number in times.values()),
        "strange": len(times.keys() - expected.keys()),
        "errors": [f"{row['id']}: {row['error']}" for row in rows if row["error"] is not None],
        "largest_difference": max(differences, default=0.0),
        "distinct_scores": len(set(expected.values())),  # pictures with equal scores could be mixed up unseen
    }


def descendants(pid: int) -> list[int]:
    """All processes below one, parents before children; those that are dead and not yet waited for left out."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children[int(parent)].append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children[one]
    return found[1:]


def all_ended(seconds: float) -> bool:
    """Wait until nothing is left below this process; whether it came to that."""
    until = time.monotonic() + seconds
    while descendants(os.getpid()):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def title(pid: int) -> str:
    """What a process calls itself; empty if it is gone. Ray's workers: ``ray::`` and what they do."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def kill(pids: Sequence[int]) -> None:
    """SIGKILL each."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Nodes:
    """A Ray cluster on this machine: a head without CPUs, for drivers, and nodes that work. Use it in a with-block.

    Args:
        number: of working nodes. cpus: of each.
    """

    def __init__(self, number: int, cpus: int, chance: random.Random) -> None:
        from ray.cluster_utils import Cluster

        self.chance, self._cpus, self._back_at = chance, cpus, [0.0] * number
        self._working: list[Any] = []
        # Not Ray's own reaper: it would take this process's whole group with it.
        head = {"num_cpus": 0, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.address = self._cluster.address
        self.mend()

    def mend(self) -> None:
        """Start the nodes whose time has come."""
        while self._back_at and self._back_at[0] <= time.monotonic():
            self._back_at.pop(0)
            options = {"num_cpus": self._cpus, "object_store_memory": _OBJECT_STORE_BYTES}
            self._working.append(self._cluster.add_node(**options))

    def workers(self) -> dict[int, str]:
        """The workers' processes, and what they call themselves."""
        return {pid: name for node in self._working for pid, name in _at_work(node).items()}

    def kill_worker(self) -> str | None:
        """Kill a worker; says which, None where there is none."""
        if not (workers := self.workers()):
            return None
        pid = self.chance.choice(sorted(workers))
        kill([pid])
        return workers[pid]

    def kill_node(self) -> str | None:
        """Kill a node at work with all its processes, as a machine dies; another comes after some seconds."""
        at_work = [node for node in self._working if _at_work(node)]
        if len(self._working) < 2 or not at_work:
            return None
        node = self.chance.choice(at_work)
        names = sorted(_at_work(node).values())
        self._working.remove(node)
        kill([_raylet(node), *descendants(_raylet(node))])
        self._cluster.remove_node(node, allow_graceful=False)
        self._back_at.append(time.monotonic() + self.chance.uniform(*MENDED_AFTER_S))
        return f"one of {len(self._working) + 1}, with {', '.join(names) or 'nothing at work'}"

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        nodes = [*self._working, self._cluster.head_node]
        below = [pid for node in nodes for pid in descendants(_raylet(node))]
        self._cluster.shutdown()
        kill(below)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _at_work(node: Any) -> dict[int, str]:
    titles = {pid: title(pid) for pid in descendants(_raylet(node))}
    return {pid: name for pid, name in titles.items() if name.startswith(WORKER)}


def faults(count: int, kills: int, seed: int, shard_rows: int = SHARD_ROWS) -> dict[str, Any]:
    """Kill workers, nodes and drivers at random moments, until it was as often as asked; see ``benchmarks.batch``."""
    chance, began = random.Random(seed), time.monotonic()
    plan = [KINDS[number % len(KINDS)] for number in range(kills)]
    chance.shuffle(plan)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="winspect-") as folder:
        pictures = make_pictures(Path(folder, "pictures"), count)
        expected, pace = predict_many(pictures)
        with Nodes(2, 1, chance) as nodes:
            while plan:
                out, before = Path(folder, f"out{len(runs)}"), len(plan)
                runs.append(_run(nodes, pictures, out, plan, shard_rows) | compare(read_rows(out), expected))
                print(json.dumps(runs[-1]), flush=True)
                if len(plan) == before:
                    raise SystemExit(f"{count} pictures are done before a kill is due; take more")
    told = [one for run in runs for one in run["kills"]]
    return {
        "what": "faults",
        "pictures": count,
        "shard_rows": shard_rows,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "predict_many_pictures_per_s": round(pace, 2),
        "kills": len(told),
        "kills_by_kind": dict(Counter(one["kind"] for one in told)),
        "restarts": sum(run["starts"] - 1 for run in runs),
        "ended_without_being_killed": sum(len(run["failures"]) for run in runs),
        **{name: sum(run[name] for run in runs) for name in ("lost", "twice", "strange")},
        "errors": sum(len(run["errors"]) for run in runs),
        "largest_difference": max(run["largest_difference"] for run in runs),
        "shards_finished_before_kills": sum(one["shards"] for one in told),
        "shards_of_these_kept": sum(one["shards_kept"] for one in told),
        "seconds_until_next_shard": _median_by_kind(told),
        "runs": runs,
    }


def is_whole(result: Mapping[str, Any]) -> bool:
    """Whether a result of :func:`faults` lost nothing, has nothing twice, no error, and the scores expected."""
    kept = result["shards_finished_before_kills"] == result["shards_of_these_kept"]
    nothing = not any(result[name] for name in ("lost", "twice", "strange", "errors"))
    return kept and nothing and result["largest_difference"] <= TOLERANCE


def _median_by_kind(kills: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for one in kills:
        if one["next_shard_s"] is not None:
            by_kind[one["kind"]].append(one["next_shard_s"])
    return {kind: round(median(seconds), 1) for kind, seconds in by_kind.items()}


def _run(nodes: Nodes, pictures: Sequence[Path], out: Path, plan: list[str], shard_rows: int) -> dict[str, Any]:
    """One destination: the same command until it is full, and the next kills of the plan meanwhile."""
    began, kills, failures, starts = time.monotonic(), [], [], 0
    shards: dict[str, tuple[int, int]] = {}
    while True:
        options = ("--address", nodes.address, "--resume")
        with Batch(pictures[0].parent, len(pictures), out, shard_rows, *options) as batch:
            starts += 1
            _kill_while(batch, nodes, plan, began, kills)
            code, shards = batch.process.wait(), batch.shards()
            if code in (0, 3):
                break
            if code != -signal.SIGKILL or not kills or kills[-1]["kind"] != "driver":
                failures.append(f"ended with {code}: {batch.last_words()}")
            if len(failures) > _MOST_FAILURES:
                raise SystemExit("\n".join(failures))
    for one in kills:
        before = one.pop("before")
        one["shards"], one["shards_kept"] = len(before), sum(shards.get(name) == of for name, of in before.items())
    return {"seconds": round(time.monotonic() - began, 1), "starts": starts, "failures": failures, "kills": kills}


def _kill_while(batch: Batch, nodes: Nodes, plan: list[str], began: float, kills: list[dict[str, Any]]) -> None:
    """Follow a process to its end. A kill falls due some seconds after a shard that was written since the last."""
    done = batch.finished()
    due, moved_at = None, time.monotonic()
    while batch.process.poll() is None:
        time.sleep(0.1)
        nodes.mend()
        now, before, done = time.monotonic(), done, batch.finished()
        if done > before:
            moved_at = now
            if kills and kills[-1]["next_shard_s"] is None:
                kills[-1]["next_shard_s"] = round(now - began - kills[-1]["at_s"], 1)
            due = due or now + nodes.chance.uniform(*KILL_AFTER_S)
        elif now - moved_at > _STUCK_S:
            raise SystemExit(f"no shard came for {_STUCK_S:.0f} s, after {kills[-1:]}: {batch.last_words()}")
        if not plan or due is None or now < due or done >= batch.total:
            continue
        found = batch.shards()
        if (what := _kill(plan[0], batch, nodes)) is not None:
            told = {"kind": plan.pop(0), "what": what, "at_s": round(now - began, 1), "pictures_done": done}
            kills.append(told | {"next_shard_s": None, "before": found})
            print(json.dumps(told), flush=True)
            due = None


def _kill(kind: str, batch: Batch, nodes: Nodes) -> str | None:
    """Kill something of a kind while workers are at work; says what, None where nothing can be killed now."""
    if not nodes.workers():
        return None
    if kind == "driver":
        kill([batch.process.pid])
        batch.process.wait()
        return "winspect batch"
    return nodes.kill_worker() if kind == "worker" else nodes.kill_node()


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Of (x, y) points, by least squares; None of fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return None
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])
