"""Damaged inputs of every kind: each must end in a result or in a message within a minute.

    python -m benchmarks.fuzz [--inputs 5000] [--seed 0] [--family NAME ...] [--out FILE]

Each input is made from the seed, the family and its number alone, and read in a worker process, which is killed where
it takes longer than a minute or more than 4 GB beyond what it has at its start. ``refused`` is one of winspect's
errors; ``wrong`` any other exception, a process that ends, a hang, or a result that cannot be right. Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz_families import FAMILIES
from benchmarks.measuring import write_json

LONGEST_S = 60
MORE_BYTES = 4 << 30
_STARTS_IN_S = 300  # a worker's first input of a family waits for models


@dataclass(frozen=True)
class Outcome:
    """What became of an input: ``result``, ``refused`` or ``wrong``, and in which words."""

    kind: str
    text: str = ""


def read_one(family: str, number: int, seed: int, folder: Path) -> Outcome:
    """Make an input and read it, in this process."""
    from winspect.errors import WinspectError

    made = FAMILIES[family].make(Random(f"{seed}/{family}/{number}"), folder)
    try:
        FAMILIES[family].read(made)
    except WinspectError as error:
        return Outcome("refused", type(error).__name__)
    except BaseException as error:
        lines = [line for line in traceback.format_exc().splitlines() if "winspect" in line]
        return Outcome("wrong", f"{type(error).__name__}: {str(error)[:200]} | {lines[-1].strip() if lines else ''}")
    return Outcome("result")


def _work(pipe: Connection) -> None:
    """A worker: reads the inputs it is sent, and answers with what became of them."""
    import torch

    import winspect.inspector.winclip  # noqa: F401  (before memory is limited)

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory(prefix="winspect-fuzz-") as place:
        os.environ["WINSPECT_CACHE"] = f"{place}/cache"
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MORE_BYTES, size + MORE_BYTES))
        while (message := pipe.recv()) is not None:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                pipe.send(read_one(*message, Path(folder)))


class Worker:
    """A process that reads inputs, replaced where it is killed."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None
        self._known: set[str] = set()

    def read(self, family: str, number: int, seed: int) -> Outcome:
        """What becomes of an input."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process, self._known = context.Process(target=_work, args=(other,), daemon=True), set()
            self._process.start()
            other.close()
        longest = LONGEST_S if family in self._known else _STARTS_IN_S
        self._known.add(family)
        self._pipe.send((family, number, seed))
        try:
            if self._pipe.poll(longest):
                return self._pipe.recv()
            outcome = Outcome("wrong", f"no end after {longest} s")
        except EOFError:
            self._process.join()
            outcome = Outcome("wrong", f"the process ended with {self._process.exitcode}")
        self.stop()
        return outcome

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def fuzz(families: Sequence[str], inputs: int, seed: int) -> dict[str, Any]:
    """Read ``inputs`` inputs, spread evenly over the families; counts, and each that went wrong."""
    worker, found = Worker(), {}
    try:
        for place, family in enumerate(families):
            counts, wrong, began = Counter[str](), [], time.perf_counter()
            slowest = 0.0
            for number in range(inputs // len(families) + (place < inputs % len(families))):
                start = time.perf_counter()
                outcome = worker.read(family, number, seed)
                slowest = max(slowest, time.perf_counter() - start) if number else 0.0
                counts[outcome.kind] += 1
                if outcome.kind == "wrong":
                    wrong.append({"number": number, "what": outcome.text})
            kinds = {kind: counts[kind] for kind in ("result", "refused", "wrong")}
            found[family] = {"tried": sum(counts.values()), **kinds, "slowest_s": round(slowest, 2), "wrongs": wrong}
            seconds = time.perf_counter() - began
            print(f"{family:14} {kinds}  slowest {slowest:.2f} s, {seconds:.0f} s in all", file=sys.stderr, flush=True)
    finally:
        worker.stop()
    totals = {name: sum(entry[name] for entry in found.values()) for name in ("tried", "result", "refused", "wrong")}
    return {"schema": 1, "seed": seed, **totals, "families": found}


def main() -> int:
    """Run from the command line; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=5000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--out", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = fuzz(args.family, args.inputs, args.seed)
    write_json(args.out, found)
    print(json.dumps(found, indent=2))
    return int(found["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
