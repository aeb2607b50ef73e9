"""Faster precisions against fp32 on pictures with labels: ``python -m benchmarks.precisions --json FILE``.

The bundled model, zero-shot and 4-shot, on the two packaged sets of real pictures (see ``bundled_model``), and on pairs
of the generator's held-out families, which alone have masks. Every precision scores the same pictures in the same run;
what is reported is the difference of its AUROC from fp32's, beside the bars.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundled_model import SETS
from benchmarks.measuring import machine, write_json
from training.generator import HELDOUT, make_pair
from winspect import WinCLIP
from winspect.engines.gate.comparison import correlation
from winspect.metrics import auroc
from winspect.weights import TINY

PRECISIONS = ("fp32", "bf16", "int8")
BARS = {"bf16": 0.003, "int8": 0.005}
SHOTS = (0, 4)
FIRST_SEED = 8_000_000  # apart from every other seed of the generator's


@dataclass(frozen=True)
class Labelled:
    """Pictures, which of them are defective, and masks (pictures, height, width) where there are any."""

    class_name: str
    pictures: list[Any]
    defective: np.ndarray
    masks: np.ndarray | None = None


def generated(products: int) -> Labelled:
    """A good and a defective picture of each product."""
    pairs = [make_pair(HELDOUT[n % len(HELDOUT)], FIRST_SEED + n, references=0) for n in range(products)]
    pictures = [picture for pair in pairs for picture in (pair.clean_rgb, pair.defect_rgb)]
    masks = np.stack([mask for pair in pairs for mask in (np.zeros_like(pair.mask), pair.mask)])
    return Labelled("object", pictures, np.tile([False, True], products), masks)


def real(name: str, most: int | None) -> Labelled:
    """A packaged set; at most so many pictures of it, evenly spread."""
    whole = SETS[name]()
    rows = np.arange(len(whole.paths)) if most is None else np.linspace(0, len(whole.paths) - 1, most).astype(int)
    return Labelled(whole.class_name, [whole.paths[row] for row in rows], whole.defective[rows])


def figures(model: WinCLIP, data: Labelled, shots: int) -> dict[str, Any]:
    """Scores and maps of all pictures but the references, and their AUROC."""
    model.forget(data.class_name)
    good = np.flatnonzero(~data.defective)[:shots]
    if shots:
        model.reference([data.pictures[row] for row in good], data.class_name)
    kept = np.setdiff1d(np.arange(len(data.pictures)), good)
    results = list(model.predict_many([data.pictures[row] for row in kept], data.class_name))
    scores = np.array([result.anomaly_score for result in results])
    found = {
        "scores": scores,
        "maps": np.stack([result.tile_maps[0] for result in results]),
        "image_auroc": auroc(scores, data.defective[kept]),
    }
    if data.masks is not None:
        maps = np.concatenate([result.anomaly_map.ravel() for result in results])
        found["pixel_auroc"] = auroc(maps, data.masks[kept].ravel())
    return found


def main() -> None:
    """Measure, print, and exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    parser.add_argument("--json", type=Path, help="the file to write")
    parser.add_argument("--most", type=int, help="pictures of each real set at most")
    parser.add_argument("--products", type=int, default=150, help="generated products")
    options = parser.parse_args()
    facts = machine()
    data = {"generated": generated(options.products), **{name: real(name, options.most) for name in SETS}}
    rows, fp32 = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            model = WinCLIP(TINY, precision=precision, cache_dir=folder)
            for name, pictures in data.items():
                for shots in SHOTS:
                    rows.append(_row(name, shots, precision, figures(model, pictures, shots), fp32))
                    print(json.dumps(rows[-1]), flush=True)
    missed = [row for row in rows if max(row["drop"].values(), default=0) > BARS.get(row["precision"], 1)]
    report = {"machine": facts, "model": TINY, "bars": BARS, "rows": rows, "missed": len(missed)}
    write_json(options.json, report, indent=1)
    raise SystemExit(1 if missed else 0)


def _row(name: str, shots: int, precision: str, found: dict[str, Any], fp32: dict[Any, Any]) -> dict[str, Any]:
    first = fp32.setdefault((name, shots), found)
    metrics = [metric for metric in ("image_auroc", "pixel_auroc") if metric in found]
    return {
        "set": name,
        "pictures": len(found["scores"]),
        "shots": shots,
        "precision": precision,
        **{metric: round(found[metric], 5) for metric in metrics},
        "drop": {metric: round(first[metric] - found[metric], 5) for metric in metrics},
        "score_correlation": round(correlation(first["scores"], found["scores"]), 6),
        "map_correlation": round(correlation(first["maps"].ravel(), found["maps"].ravel()), 6),
    }


if __name__ == "__main__":
    main()
