"""The service under load: nothing lost or mixed up, its throughput beside ``predict_many``, batching, and memory.

    python -m benchmarks.serving load      [--clients 32] [--seconds 120] [--json FILE]
    python -m benchmarks.serving batching  [--clients 16] [--seconds 60] [--json FILE] [-- SERVE OPTIONS]
    python -m benchmarks.serving overload  [--clients 64] [--seconds 30] [--json FILE]
    python -m benchmarks.serving soak      [--minutes 10] [--json FILE]

``load``: `winspect serve` and ``predict_many`` score the same pictures in turn, in three rounds; every answer of the
service is checked against its own picture's score. ``batching``: a service with batches beside one with
`--max-batch 1`, in turn. ``overload``: more clients than a queue of 8 takes; how long a 429 takes to come. ``soak``:
good and bad traffic, and the memory of the service's processes over time. Linux; the clients run on the same machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import conformal_clip_data
import numpy as np

from winspect.system.machine import describe_machine

CLASS = "textile"
ROUNDS = 3
TOLERANCE = 1e-5
_PREDICT_MANY = """
import json, sys, time
from itertools import cycle, islice
from winspect import WinCLIP
options = json.loads(sys.argv[1])
pictures = sys.argv[2:]
model = WinCLIP(**options)
scores = [result.anomaly_score for result in model.predict_many(pictures, "textile", maps=False)]
print(json.dumps(scores), flush=True)
for line in sys.stdin:
    seconds, began, done = float(line), time.perf_counter(), 0
    def until():
        for picture in cycle(pictures):
            if time.perf_counter() - began > seconds:
                return
            yield picture
    for _ in model.predict_many(until(), "textile", maps=False):
        done += 1
    print(json.dumps([done, time.perf_counter() - began]), flush=True)
"""


@dataclass
class Served:
    """A running service."""

    process: subprocess.Popen[str]
    port: int

    def connect(self, timeout_s: float = 60) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def processes(self) -> list[int]:
        """The HTTP server, the models, and what these have started."""
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        found = [self.process.pid]
        for parent in found:
            found += [pid for pid, its_parent in parents.items() if its_parent == parent]
        return found

    def memory_mb(self) -> dict[int, float]:
        """Resident memory of each process, in MB."""
        pages = {}
        for pid in self.processes():
            try:
                pages[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return {pid: count * 4096 / 1e6 for pid, count in pages.items()}


@contextmanager
def served(*options: str, ready_s: float = 120) -> Iterator[Served]:
    """`winspect serve` with the bundled model on a free port, ready to score; ended by SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "winspect", "serve", "--port", "0", "--data", folder, *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines: list[str] = []
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"https?://[^:/]+:(\d+)", line):
                port = int(found[1])
                break
        if port is None:
            raise SystemExit(f"the service did not start:\n{''.join(lines)}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        service = Served(process, port)
        try:
            _wait_ready(service, ready_s)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            if code != 0:
                raise SystemExit(f"the service ended with {code}")


def _wait_ready(service: Served, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection = service.connect()
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise SystemExit("the service was not ready in time")


def multipart(contents: Sequence[bytes], name: str, **fields: str) -> tuple[bytes, dict[str, str]]:
    """The body of an upload of pictures, and its headers."""
    mark = "winspect-boundary"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="pictures"; filename="{name}"\r\n'
    for content in contents:
        parts += [head.encode() + b"Content-Type: image/jpeg\r\n\r\n", content, b"\r\n"]
    return b"".join([*parts, f"--{mark}--\r\n".encode()]), {"Content-Type": f"multipart/form-data; boundary={mark}"}


@dataclass
class Tally:
    """What clients saw. ``wrong``: answers that were not their own picture's."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: int, seconds: float, wrong: str | None) -> None:
        """Count an answer."""
        with self.lock:
            self.statuses[status] += 1
            if wrong:
                self.wrong.append(wrong)
            if status == 200:
                self.latencies.append(seconds)
            elif status == 429:
                self.refusals.append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Figures for JSON."""
        return {
            "seconds": round(seconds, 1),
            "images_per_s": round(len(self.latencies) / seconds, 2),
            "latency_ms": _percentiles_ms(self.latencies),
            "refusal_ms": _percentiles_ms(self.refusals),
            "statuses": dict(self.statuses),
            "wrong": len(self.wrong),
            "lost": len(self.lost),
        }


def _percentiles_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    values = np.percentile(seconds, [50, 95, 99, 100]) * 1e3
    return {name: round(float(value), 1) for name, value in zip(("p50", "p95", "p99", "max"), values, strict=True)}


def run_clients(
    service: Served, contents: Sequence[bytes], check: Callable[[int, dict[str, Any]], str | None], clients: int,
    seconds: float,
) -> tuple[Tally, float]:  # fmt: skip
    """So many clients, each asking as soon as it has its answer."""
    tally, numbers, stop = Tally(), count(), time.monotonic() + seconds

    def client() -> None:
        connection = service.connect()
        while time.monotonic() < stop:
            number = next(numbers) % len(contents)
            body, headers = multipart([contents[number]], f"{number}.jpg", **{"class": CLASS})
            began = time.perf_counter()
            try:
                connection.request("POST", "/v1/predict", body, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                with tally.lock:
                    tally.lost.append(repr(error))
                connection.close()
                continue
            taken = time.perf_counter() - began
            wrong = check(number, json.loads(text)) if response.status == 200 else None
            tally.note(response.status, taken, wrong)
            if response.status in (429, 503):
                time.sleep(min(0.2, float(response.headers["Retry-After"])))
        connection.close()

    began = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.monotonic() - began


def overload(pictures: Sequence[Path], clients: int, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    """See the module."""
    contents = [path.read_bytes() for path in pictures]
    with served("--model", "winspect-tiny", "--max-queue", "8", *options) as service:
        run_clients(service, contents, lambda number, answer: None, 8, 5)
        tally, wall = run_clients(service, contents, lambda number, answer: None, clients, seconds)
    return {"what": "overload", "clients": clients, **tally.summary(wall)}


def _check(expected: Sequence[float]) -> Callable[[int, dict[str, Any]], str | None]:
    def check(number: int, answer: dict[str, Any]) -> str | None:
        (row,) = answer["results"]
        right = row["path"] == f"{number}.jpg" and abs(row["anomaly_score"] - expected[number]) < TOLERANCE
        return None if right else f"picture {number}: {row}, expected {expected[number]}"

    return check


def load(pictures: Sequence[Path], clients: int, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    """See the module."""
    contents = [path.read_bytes() for path in pictures]
    command = [sys.executable, "-c", _PREDICT_MANY, json.dumps({"model": "winspect-tiny"}), *map(str, pictures)]
    beside = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert beside.stdin is not None and beside.stdout is not None
    expected = json.loads(beside.stdout.readline())
    assert len(set(expected)) == len(expected), "pictures with equal scores cannot be told apart"
    rounds = []
    with served("--model", "winspect-tiny", *options) as service:
        run_clients(service, contents, _check(expected), clients, 5)
        for _ in range(ROUNDS):
            print(seconds / ROUNDS, file=beside.stdin, flush=True)
            done, taken = json.loads(beside.stdout.readline())
            tally, wall = run_clients(service, contents, _check(expected), clients, seconds / ROUNDS)
            round_ = {"predict_many_images_per_s": round(done / taken, 2), **tally.summary(wall)}
            round_["share"] = round(round_["images_per_s"] / round_["predict_many_images_per_s"], 3)
            print(json.dumps(round_), flush=True)
            rounds.append(round_)
            for message in (*tally.wrong[:3], *tally.lost[:3]):
                print(message, file=sys.stderr)
    beside.stdin.close()
    beside.wait(30)
    return {
        "what": "load",
        "clients": clients,
        "pictures": len(pictures),
        "rounds": rounds,
        "share_of_predict_many": median(each["share"] for each in rounds),
        "answers": sum(sum(each["statuses"].values()) for each in rounds),
        "wrong": sum(each["wrong"] for each in rounds),
        "lost": sum(each["lost"] for each in rounds),
    }


def batching(pictures: Sequence[Path], clients: int, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    """See the module."""
    contents = [path.read_bytes() for path in pictures]
    model = () if "--model" in options else ("--model", "winspect-tiny")
    rates: dict[str, list[float]] = {"batches": [], "one_by_one": []}
    with (
        served(*model, *options) as with_batches,
        served(*model, *options, "--max-batch", "1") as one_by_one,
    ):
        services = {"batches": with_batches, "one_by_one": one_by_one}
        for service in services.values():
            run_clients(service, contents, lambda number, answer: None, clients, 10)
        for _ in range(ROUNDS):
            for name, service in services.items():
                tally, wall = run_clients(service, contents, lambda number, answer: None, clients, seconds / ROUNDS)
                rates[name].append(tally.summary(wall)["images_per_s"])
                print(name, rates[name][-1], flush=True)
    ratios = [batches / single for batches, single in zip(*rates.values(), strict=True)]
    return {
        "what": "batching",
        "clients": clients,
        "options": [*model, *options],
        "images_per_s": rates,
        "gain": round(median(ratios), 3),
    }


def soak(pictures: Sequence[Path], minutes: float, options: Sequence[str]) -> dict[str, Any]:
    """See the module. A third of the traffic is bad: broken pictures, wrong forms, unknown places, clients that go."""
    contents = [path.read_bytes() for path in pictures]
    statuses: Counter[str] = Counter()
    samples: list[tuple[float, dict[int, float]]] = []
    began = time.monotonic()
    until = began + 60 * minutes
    with served("--model", "winspect-tiny", *options) as service:

        def client(seed: int) -> None:
            chance = random.Random(seed)
            while time.monotonic() < until:
                kind = "good" if chance.random() < 2 / 3 else chance.choice(sorted(_BAD))
                try:
                    status = (
                        _good(service, chance, contents) if kind == "good" else _BAD[kind](service, chance, contents)
                    )
                except (OSError, http.client.HTTPException) as error:
                    status = type(error).__name__
                statuses[f"{kind} {status}"] += 1

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            samples.append(((time.monotonic() - began) / 60, service.memory_mb()))
            time.sleep(5)
        for thread in threads:
            thread.join()
    warm = [(at, memory) for at, memory in samples if at > min(2.0, minutes / 4)]
    times, memories = [at for at, _ in warm], [sum(memory.values()) for _, memory in warm]
    slope = float(np.polyfit(times, memories, 1)[0])
    return {
        "what": "soak",
        "minutes": minutes,
        "requests": sum(statuses.values()),
        "answers": dict(sorted(statuses.items())),
        "memory_mb": [[round(at, 2), round(sum(memory.values()), 1)] for at, memory in samples[::6]],
        "slope_mb_per_minute": round(slope, 3),
        "processes_alive_throughout": len({tuple(sorted(memory)) for _, memory in warm}) == 1,
    }


def _ask(service: Served, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    connection = service.connect()
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _good(service: Served, chance: random.Random, contents: Sequence[bytes]) -> int:
    fields = {"class": CLASS} | ({"overlay": "true", "map": "true"} if chance.random() < 0.2 else {})
    return _ask(service, "POST", "/v1/predict", *multipart([chance.choice(contents)], "a.jpg", **fields))


def _broken(service: Served, chance: random.Random, contents: Sequence[bytes]) -> int:
    content = bytearray(chance.choice(contents))[: chance.randrange(0, 5000)]
    return _ask(service, "POST", "/v1/predict", *multipart([bytes(content)], f"{chance.random()}.jpg"))


def _bad_class(service: Served, chance: random.Random, contents: Sequence[bytes]) -> int:
    fields = {"class": f"../../{chance.random()}"}
    return _ask(service, "POST", "/v1/predict", *multipart([contents[0]], "a.jpg", **fields))


def _bad_tensor(service: Served, chance: random.Random, contents: Sequence[bytes]) -> int:
    shape = [chance.randrange(-2, 5) for _ in range(chance.randrange(0, 5))]
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": shape, "data": [1, 2, 3]}]}
    return _ask(service, "POST", "/v2/models/winspect/infer", json.dumps(body).encode())


def _unknown_place(service: Served, chance: random.Random, contents: Sequence[bytes]) -> int:
    return _ask(service, "GET", f"/{chance.random()}")


def _hang_up(service: Served, chance: random.Random, contents: Sequence[bytes]) -> str:
    body, headers = multipart([chance.choice(contents)], "a.jpg", **{"class": CLASS})
    connection = service.connect()
    connection.putrequest("POST", "/v1/predict")
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body[: chance.choice([len(body) // 2, len(body)])])
    time.sleep(chance.random() / 20)
    connection.close()
    return "gone"


_BAD: dict[str, Callable[[Served, random.Random, Sequence[bytes]], int | str]] = {
    "broken picture": _broken,
    "bad class": _bad_class,
    "bad tensor": _bad_tensor,
    "unknown place": _unknown_place,
    "hang up": _hang_up,
}


def main() -> None:
    """Measure, print, and add to a JSON file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "batching", "overload", "soak"))
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--json", type=Path, help="a list of results; this one is put in place of an earlier like it")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    files = sorted(conformal_clip_data.textile_simulated_root().rglob("*.jpg"))
    pictures = random.Random(0).sample(files, args.pictures)
    if args.what == "load":
        result = load(pictures, args.clients or 32, args.seconds or 120, options)
    elif args.what == "batching":
        result = batching(pictures, args.clients or 16, args.seconds or 60, options)
    elif args.what == "overload":
        result = overload(pictures, args.clients or 64, args.seconds or 30, options)
    else:
        result = soak(pictures, args.minutes, options)
    result["machine"] = describe_machine("cpu")
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    if args.json:
        earlier = json.loads(args.json.read_text()) if args.json.is_file() else []
        same = (result["what"], result.get("options"))
        kept = [one for one in earlier if (one["what"], one.get("options")) != same]
        args.json.write_text(json.dumps([*kept, result], indent=1) + "\n")


if __name__ == "__main__":
    main()
