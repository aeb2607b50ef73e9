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
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.serving import Served, multipart, served
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


def ask(service: Served, pictures: Sequence[bytes]) -> tuple[int, float, str]:
    """Status, seconds, and the answer's text; status 0 for none."""
    body, headers = multipart(pictures, "a.jpg", **{"class": "textile"})
    began = time.perf_counter()
    connection = service.connect(200)
    try:
        connection.request("POST", "/v1/predict", body, headers)
        answer = connection.getresponse()
        return answer.status, time.perf_counter() - began, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, time.perf_counter() - began, repr(error)
    finally:
        connection.close()


def memory_mb(service: Served) -> float:
    """Private memory, and what is shared once, of the service's processes and all below them."""
    total = 0
    for pid in service.processes():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(map(int, re.findall(r"^Pss:\s+(\d+)", lines, re.MULTILINE)))
    return total / 1024


def run(name: str, seconds: float) -> dict[str, Any]:
    """One scenario."""
    attacks, options = SCENARIOS[name]
    picture, good, bad = PICTURE.read_bytes(), [], []
    with served("--model", "winspect-tiny", "--device", "cpu", *options) as service:
        assert ask(service, [picture])[0] == 200
        memories, ended = [memory_mb(service)], threading.Event()
        end = time.monotonic() + seconds

        def sample() -> None:
            while not ended.wait(0.05):
                memories.append(memory_mb(service))

        def client() -> None:
            while time.monotonic() < end:
                good.append(ask(service, [picture]))

        def attacker(request: list[bytes]) -> None:
            bad.append(ask(service, request))

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        sampler = threading.Thread(target=sample)
        for thread in (sampler, *threads):
            thread.start()
        time.sleep(seconds / 4)
        attacking = [threading.Thread(target=attacker, args=(request,)) for request in attacks]
        for thread in attacking:
            thread.start()
        for thread in (*threads, *attacking):
            thread.join()
        ended.set()
        sampler.join()
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
        "memory_mb": {"before": round(memories[0]), "peak": round(max(memories))},
    }


def _shortly(text: str) -> Any:
    """Count the messages of an answer."""
    try:
        rows = json.loads(text)
    except ValueError:
        return text[:200]
    rows = rows.get("results", [rows])
    return dict(Counter(row["error"]["message"] if row.get("error") else "scored" for row in rows))


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
