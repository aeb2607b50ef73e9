"""Score pictures of two products with the bundled model and write a report.

Score 32 pictures (solar cells, simulated fabric), few-shot and zero-shot; write a report.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import Exit, load_model, print_result, print_table
from winspect.cli.options import add_option, add_run_options
from winspect.system.terminal import say, show

if TYPE_CHECKING:
    from winspect.evaluation.demo import Scored


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "--out", "DIR", "default: runs/demo", default=Path("runs/demo"))
    add_run_options(parser, model="default: winspect-tiny, the bundled model")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; returns the exit code."""
    from winspect.evaluation.demo import DEMO_SETS, run_demo, score_sets
    from winspect.weights import TINY

    sets = [make() for make in DEMO_SETS]
    began = time.perf_counter()
    args.model = args.model or TINY
    model = load_model(args)
    say(f"{model.model} loaded in {time.perf_counter() - began:.1f} s")
    scored = list(score_sets(model, sets))
    report = run_demo(args.out, model, scored)
    rows = [_row(part) for part in scored]
    document = {"schema": 1, **model.describe(), "sets": rows, "out": str(args.out), "report": str(report)}
    print_result(args, document, partial(_print, scored, rows))
    say(f"heat maps, predictions.jsonl and the report are in {args.out}; open {report}")
    return Exit.DONE


def _row(part: Scored) -> dict[str, Any]:
    return {
        "set": part.data.title,
        "shots": part.shots,
        "pictures": len(part.results),
        "image_auroc": part.image_auroc,
        "ms_per_picture": round(1000 * part.seconds / len(part.results), 1),
    }


def _print(scored: list[Scored], rows: list[dict[str, Any]]) -> None:
    for part in scored:
        print(f"\n{part.data.title}, {part.way}")
        for result, (path, defective) in zip(part.results, part.data.pictures, strict=True):
            label = "defective" if defective else "good"
            show(f"  {result.anomaly_score:.4f}  {label:9}  {path.parent.name}/{path.name}")
    print()
    lines = [["set", "shots", "pictures", "image AUROC", "ms/picture"]]
    for row in rows:
        auroc = "undefined" if row["image_auroc"] is None else f"{row['image_auroc']:.3f}"
        lines.append([row["set"], str(row["shots"]), str(row["pictures"]), auroc, str(row["ms_per_picture"])])
    print_table(lines)
    print("(few pictures: rough figures; those of the whole sets are in the bundled model's card)")
