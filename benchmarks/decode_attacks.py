"""Small files that ask for much, beside 16 good clients: requests lost, latency, and memory of the service.

    python -m benchmarks.decode_attacks [--seconds 20] [--json FILE]

Each scenario starts a service of its own with the bundled model, lets 16 clients ask for single pictures for a while,
and sends the attack after a quarter of it. ``issue``: two progressive JPEGs of 13000 x 13000 with 5,000 scans in one
request, then sixteen lossless WebP of 16383 x 10900 in 30 bytes each. ``within limits``: the same, cut down to what
the service's limits let in. ``raised limits``: the first again, by an operator who has raised ``--max-pixels`` to 179
million. Memory is that of all of the service's processes, sampled from /proc: Linux.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.pictures.attacks import progressive_bomb, webp_bomb
from winspect.system.machine import describe_machine

CLIENTS = 16
PICTURE = Path(__file__).parents[1] / "examples" / "textile" / "nominal_0001.jpg"
SCENARIOS: dict[str, tuple[list[list[bytes]], list[str]]] = {
    "no attack": ([], []),
    "issue": ([[progressive_bomb(13_000, 5_000)] * 2, [webp_bomb()] * 16], []),
    "within limits": ([[progressive_bomb(7_000, 500)] * 2, [webp_bomb(7_071, 7_071)] * 16], []),
    "raised limits": ([[progressive_bomb(13_000, 500)] * 2, [webp_bomb()] * 16], ["--max-pixels", "179000000"]),
}


class Service:
    """``winspect serve`` with the bundled model; use it in a with-block."""

    def __init__(self, options: list[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "winspect", "serve", "--port", "0", "--data", self.folder.name]
        command += ["--model", "winspect-tiny", "--device", "cpu", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = 0
        self.peak_mb, self.base_mb, self._ended = 0.0, 0.0, threading.Event()

    def __enter__(self) -> Service:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"://[\d.]+:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while self.ask([PICTURE.read_bytes()])[0] != 200:
            time.sleep(0.2)
        self.base_mb = self._memory_mb()
        threading.Thread(target=self._sample, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.folder.cleanup()

    def ask(self, pictures: list[bytes]) -> tuple[int, float, str]:
        """Status, seconds, and the answer's text; status 0 for none."""
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\n\r\n' + picture + b"\r\n"
            for picture in pictures
        )
        body += b'--b\r\nContent-Disposition: form-data; name="class"\r\n\r\ntextile\r\n--b--\r\n'
        began = time.perf_counter()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=200)
            connection.request("POST", "/v1/predict", body, {"Content-Type": "multipart/form-data; boundary=b"})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, time.perf_counter() - began, text
        except OSError as error:
            return 0, time.perf_counter() - began, repr(error)

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self.peak_mb = max(self.peak_mb, self._memory_mb())

    def _memory_mb(self) -> float:
        """Private memory, and what is shared once, of the process and all below it."""
        pids, total = [self.process.pid], 0
        for pid in pids:
            try:
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found = map(int, (task / "children").read_text().split())
                    pids += [child for child in found if child not in pids]
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.search(r"Pss:\s+(\d+)", lines)[1])  # type: ignore[index]
            except (OSError, TypeError):
                continue
        return total / 1024


def run(name: str, seconds: float) -> dict[str, Any]:
    """One scenario."""
    attacks, options = SCENARIOS[name]
    picture, good, bad = PICTURE.read_bytes(), [], []
    with Service(options) as service:
        end = time.monotonic() + seconds

        def client() -> None:
            while time.monotonic() < end:
                good.append(service.ask([picture]))

        def attacker(request: list[bytes]) -> None:
            bad.append(service.ask(request))

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 4)
        attacking = [threading.Thread(target=attacker, args=(request,)) for request in attacks]
        for thread in attacking:
            thread.start()
        for thread in (*threads, *attacking):
            thread.join()
        peak, base = service.peak_mb, service.base_mb
    latencies = sorted(took for _, took, _ in good)
    return {
        "good": {
            "asked": len(good),
            "lost": sum(status != 200 for status, _, _ in good),
            "p50_s": round(statistics.median(latencies), 3),
            "p99_s": round(latencies[int(0.99 * len(latencies))], 3),
            "most_s": round(latencies[-1], 3),
        },
        "attack": [
            {"status": status, "seconds": round(took, 2), "answer": _shortly(text)} for status, took, text in bad
        ],
        "memory_mb": {"before": round(base), "peak": round(peak)},
    }


def _shortly(text: str) -> Any:
    """The messages of an answer, counted."""
    try:
        rows = json.loads(text)
    except ValueError:
        return text[:200]
    rows = rows.get("results", [rows])
    return dict(Counter(row["error"]["message"] if row.get("error") else "judged" for row in rows))


def main() -> None:
    """Run all scenarios, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=SCENARIOS, action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": describe_machine("cpu"), "clients": CLIENTS, "seconds": args.seconds}
    results["load_average"] = os.getloadavg()[0]
    for name in args.only or SCENARIOS:
        results[name] = run(name, args.seconds)
        print(name, json.dumps(results[name], indent=1), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
