"""Kills of the broker, the receiver and the watch: results lost, and repeats that are not marked. Needs the extra test.

``python -m benchmarks.deliveries`` runs `winspect watch` with the bundled model on pictures that keep coming, and
delivers each row to an MQTT broker (amqtt) and a webhook's receiver. Each of the three is killed with SIGKILL, 20 times
at random moments. Broker and receiver write a row to disk before they acknowledge it; what is there has arrived. At the
end every picture must have a row, and every row must have arrived at both.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import RESULTS, ROOT, machine
from tests.delivery.counterparts import Other, unmarked_repeats
from winspect.system.files import write_json

_STUCK_S = 600.0


class Line:
    """A watch that is started again after each kill, and pictures that keep coming."""

    def __init__(self, folder: Path, broker: Other, receiver: Other, every_s: float) -> None:
        self.folder, self.every_s = folder, every_s
        self.incoming, self.out = folder / "incoming", folder / "results"
        self.incoming.mkdir()
        self.deliveries = folder / "line.toml"
        self.deliveries.write_text(
            f'[[deliveries]]\nkind = "mqtt"\nhost = "127.0.0.1"\nport = {broker.port}\n'
            f'[[deliveries]]\nkind = "webhook"\nurl = "http://127.0.0.1:{receiver.port}/rows"\n'
        )
        self.pictures = 0
        self.stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Line:
        self.start()
        self._feeder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._feeder.join()
        self.kill()

    def _feed(self) -> None:
        chance = np.random.default_rng(0)
        while not self.stop.wait(self.every_s):
            name = f"{self.pictures:06}.png"
            Image.fromarray(chance.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(self.folder / name)
            (self.folder / name).rename(self.incoming / name)
            self.pictures += 1

    def start(self) -> None:
        """Start the watch."""
        options = ["--model", "winspect-tiny", "--threshold", "0.5", "--deliver", str(self.deliveries)]
        command = [sys.executable, "-m", "winspect", "watch", str(self.incoming), "--out", str(self.out), *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=ROOT, **quiet)

    def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def rows(self) -> list[dict[str, Any]]:
        """What the watch has written; a line that is cut off is none."""
        lines = [
            line
            for path in sorted(self.out.glob("predictions-*.jsonl"))
            for line in path.read_bytes().split(b"\n")[:-1]
        ]
        return [json.loads(line) for line in lines]


def wait_for(condition: Any) -> None:
    """Wait for something that must come true."""
    end = time.monotonic() + _STUCK_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the line stands still")
        time.sleep(0.1)


def run_kills(line: Line, others: dict[str, Other], kills: int, chance: random.Random) -> None:
    """Kill each of the three so many times, while results come."""
    for name, process in others.items():
        for number in range(kills):
            seen = len(process.rows())
            wait_for(lambda process=process, seen=seen: len(process.rows()) > seen)
            time.sleep(chance.uniform(0.0, 0.5))
            process.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            process.start(wait=False)
            print(f"{name}: kill {number + 1}", file=sys.stderr, flush=True)
    for number in range(kills):
        before = len(line.rows())
        wait_for(lambda before=before: len(line.rows()) > before)
        time.sleep(chance.uniform(0.0, 0.5))
        line.kill()
        line.start()
        print(f"watch: kill {number + 1}", file=sys.stderr, flush=True)


def figures(rows: list[dict[str, Any]], received: list[dict[str, Any]]) -> dict[str, int]:
    """What became of the rows at one other side."""
    counts = Counter(row["id"] for row in received)
    return {
        "arrived": len(counts),
        "lost": len({row["id"] for row in rows} - set(counts)),
        "repeats": sum(counts.values()) - len(counts),
        "repeats_unmarked": unmarked_repeats(received),
        "marked": sum(row["repeat"] for row in received),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the kills, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=0.2, help="seconds from picture to picture")
    parser.add_argument("--out", type=Path, default=RESULTS / "deliveries.json")
    args = parser.parse_args(arguments)
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = {kind: Other(kind, folder) for kind in ("broker", "receiver")}
        try:
            for process in others.values():
                process.start()
            with Line(folder, *others.values(), every_s=args.every) as line:
                run_kills(line, others, args.kills, random.Random(0))
                line.stop.set()
                wait_for(lambda: len({row["file"]["name"] for row in line.rows()}) == line.pictures)
                ids = {row["id"] for row in line.rows()}
                wait_for(lambda: all(process.ids() >= ids for process in others.values()))
                rows = line.rows()
        finally:
            for process in others.values():
                process.kill()
        document = {
            "schema": 1,
            "machine": facts,
            "kills": dict.fromkeys(("broker", "receiver", "watch"), args.kills),
            "pictures": line.pictures,
            "rows": len(rows),
            "pictures_without_row": line.pictures - len({row["file"]["name"] for row in rows}),
            "mqtt": figures(rows, others["broker"].rows()),
            "webhook": figures(rows, others["receiver"].rows()),
        }
    write_json(args.out, document)
    print(json.dumps({key: value for key, value in document.items() if key != "machine"}, indent=2))


if __name__ == "__main__":
    main()
