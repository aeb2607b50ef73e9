"""How many machines, hours and bytes `winspect batch` takes: a model, from what was measured on one machine.

    python -m benchmarks.scale [--pictures 1e7] [--within 24] [--markdown]
    python -m benchmarks.scale --accelerators 8 --pace 250 --cores 64 --link 25 --picture 1600x1200

A machine scores as many pictures as its slowest part lets through: its accelerators (``--pace``, pictures per second of
one: measure yours with `winspect benchmark`), the cores that are left for decoding, or its link. The one driver hands
out shards and puts their files in place. Decoding is measured here, now, on one core, on a JPEG picture of the size
asked for; the rest is read from batch.json, versus_anomalib.json and plans.json in results/.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from winspect.pictures.tiles import Preprocess, prepare

RESULTS = Path(__file__).with_name("results")
RUNS = (1e7, 1e9)


@dataclass(frozen=True)
class Machine:
    """A kind of machine.

    Attributes:
        pace: pictures per second of one of its workers. source: where that comes from.
        workers: how many it has: one an accelerator, or one on the CPU.
        cores: in all; a worker on an accelerator takes one, and decoding has the others.
        on_cpu: whether it scores on its CPU, which decodes between.
        link: of the network, Gbit/s.
    """

    name: str
    source: str
    pace: float
    workers: int = 1
    cores: int = 2
    on_cpu: bool = True
    link: float = 10.0


@dataclass(frozen=True)
class Costs:
    """Of a picture.

    Attributes:
        decode_ms: to read, decode, cut and resize, on one core.
        read, written: bytes from storage, and in a shard.
        driver_ms: of the driver, to put its row in place.
    """

    decode_ms: float
    read: float
    written: float
    driver_ms: float


def limits(machine: Machine, costs: Costs) -> dict[str, float]:
    """Pictures per second that each part of one machine lets through."""
    if machine.on_cpu:
        scoring = {"scoring": 1 / (1 / machine.pace + costs.decode_ms / 1000 / machine.cores)}
    else:
        spare = machine.cores - machine.workers
        scoring = {"scoring": machine.workers * machine.pace, "decoding": spare * 1000 / costs.decode_ms}
    return {
        **scoring,
        "network": machine.link * 1e9 / 8 / (costs.read + costs.written),
    }


def plan(machine: Machine, costs: Costs, pictures: float, within_h: float) -> dict[str, float | str]:
    """Machines and hours for so many pictures: as few as do it in time, if the driver lets them."""
    parts = limits(machine, costs)
    first = min(parts, key=parts.__getitem__)
    driver = 1000 / costs.driver_ms
    machines = math.ceil(pictures / (parts[first] * within_h * 3600))
    pace = min(machines * parts[first], driver)
    return {
        "machine": machine.name,
        "per_machine": parts[first],
        "saturates": first if machines * parts[first] <= driver else "driver",
        "machines": machines,
        "hours": pictures / pace / 3600,
        "most_machines": driver / parts[first],
        "storage_gb_s": pace * costs.read / 1e9,
        "read_tb": pictures * costs.read / 1e12,
        "written_gb": pictures * costs.written / 1e9,
    }


def decode_costs(width: int, height: int, rounds: int = 7) -> tuple[float, int]:
    """Milliseconds of one core to decode and resize a noisy JPEG of this size, and its bytes."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8))
    picture = np.asarray(smooth.resize((width, height))).astype(np.int16) + rng.normal(0, 4, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    taken = []
    for _ in range(rounds):
        began = time.thread_time()
        prepare(file.getvalue(), Preprocess())
        taken.append(1000 * (time.thread_time() - began))
    return median(taken), len(file.getvalue())


def known_machines() -> list[Machine]:
    """The kinds whose pace was measured, or published."""
    measured = json.loads((RESULTS / "batch.json").read_text())
    speed = json.loads((RESULTS / "versus_anomalib.json").read_text())["medians"]
    tiny = measured["throughput"]["batch_pictures_per_s"]
    return [
        Machine("2 cores, winspect-tiny", "measured, throughput of batch.json", tiny),
        *(
            Machine(
                f"2 cores, ViT-B-16-plus-240 with maps, {precision}",
                "measured, versus_anomalib.json",
                speed[f"openvino:{precision}"]["images_per_s"],
            )
            for precision in ("fp32", "bf16", "int8")
        ),
        Machine("1 Ascend 910B4, 24 cores", "published: recipe tiles, the report", 91.6, 1, 24, on_cpu=False, link=25),
    ]


def costs_of(width: int, height: int) -> Costs:
    """What a picture of this size costs."""
    measured = json.loads((RESULTS / "batch.json").read_text())
    decode_ms, read = decode_costs(width, height)
    scaling = measured["scaling"]
    return Costs(
        decode_ms=decode_ms,
        read=read,
        written=scaling["runs"]["one_worker"]["bytes_written_per_picture"],
        driver_ms=measured["throughput"]["stages"]["write"]["ms_per_picture"],
    )


def as_table(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Markdown."""
    lines = [
        "| machine | pictures/s each | machines | hours | saturates first | storage reads | most for one driver |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['machine']} | {row['per_machine']:.3g} | {row['machines']:,} | {row['hours']:.1f} "
            f"| {row['saturates']} | {row['storage_gb_s']:.2g} GB/s | {row['most_machines']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=float, action="append", help="how many (default: 1e7 and 1e9)")
    parser.add_argument("--within", type=float, default=24, metavar="HOURS", help="default: 24")
    parser.add_argument("--picture", default="1600x1200", metavar="WIDTHxHEIGHT")
    parser.add_argument("--pace", type=float, help="pictures per second of one accelerator of yours")
    parser.add_argument("--accelerators", type=int, default=8, help="of a machine of yours")
    parser.add_argument("--cores", type=int, default=64, help="of a machine of yours")
    parser.add_argument("--link", type=float, default=25, help="of a machine of yours, Gbit/s")
    args = parser.parse_args()
    width, height = map(int, args.picture.split("x"))
    costs = costs_of(width, height)
    machines = known_machines()
    if args.pace:
        name = f"{args.accelerators} accelerators, {args.cores} cores"
        machines = [Machine(name, "given", args.pace, args.accelerators, args.cores, on_cpu=False, link=args.link)]
    print(
        f"A picture of {args.picture}: {costs.decode_ms:.1f} ms of one core to decode, {costs.read / 1e3:.0f} kB read, "
        f"{costs.written:.0f} bytes written, {costs.driver_ms:.3f} ms of the driver."
    )
    for pictures in args.pictures or RUNS:
        rows = [plan(machine, costs, pictures, args.within) for machine in machines]
        total = rows[0]
        print(
            f"\n{pictures:,.0f} pictures: {total['read_tb']:,.1f} TB read, "
            f"{total['written_gb']:,.1f} GB written.\n\n{as_table(rows)}"
        )


if __name__ == "__main__":
    main()
