"""What each recipe costs: `python -m benchmarks.recipe_costs --json benchmarks/results/recipe_costs.json`.

The table of docs/methods.md: milliseconds of one core per picture, from file to map, and peak memory of a process of
its own, for the bundled model and for two real architectures with random weights (speed does not depend on them),
OpenVINO in fp32. It is the processor's time, which other programs change less than the clock's. Few-shot recipes have
four good samples. `mutual` has all pictures in one batch, and each its share of the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.few_shot_speed import MODEL as DINO
from benchmarks.few_shot_speed import PART, run_child, timm_weights
from benchmarks.measuring import machine, random_weights, write_json

CLIP, TINY = "ViT-B-16-plus-240", "winspect-tiny"


@dataclass(frozen=True)
class Case:
    """A recipe on a model."""

    model: str
    recipe: str
    references: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the table."""
        return " ".join([self.model, self.recipe, "few-shot" if self.references else "without good samples"])


CASES = (
    Case(TINY, "fused", references=False),
    Case(TINY, "fused"),
    Case(TINY, "log"),
    Case(TINY, "memory", settings={"layer": "stem_8"}),
    Case(TINY, "subspace", settings={"size": 240}),
    Case(TINY, "mutual", references=False),
    Case(f"timm/{DINO}", "memory"),
    Case(f"timm/{DINO}", "subspace", settings={"size": 448, "rotations": 7}),
    Case(f"timm/{DINO}", "mutual", references=False, settings={"size": 448}),
    Case(CLIP, "paper", references=False),
    Case(CLIP, "paper"),
    Case(CLIP, "memory", settings={"size": 240}),
    Case(CLIP, "subspace", settings={"size": 240, "rotations": 7}),
    Case(CLIP, "mutual", references=False),
)


def measure(case: Case, variant: str, weights: dict[str, Path], folder: Path, threads: int) -> dict[str, Any]:
    """Figures of a case."""
    options: dict[str, Any] = {"model": case.model, "recipe": case.recipe, "settings": case.settings}
    if case.model in weights:
        options["weights"] = str(weights[case.model])
    found = run_child(
        sys.executable,
        variant,
        sorted((PART / "test").rglob("*.jpg")),
        options,
        scratch=folder,
        threads=threads,
        samples=sorted((PART / "train" / "good").iterdir()) if case.references else (),
        flags=("--batch",) if case.recipe == "mutual" else (),
    )
    return {
        "case": case.name,
        "settings": case.settings,
        "processor_ms": round(1000 * statistics.median(found["processor_s"]), 1),
        "wall_ms": round(1000 * statistics.median(found["pictures_s"]), 1),
        "learn_s": found["fit_s"] and round(found["fit_s"], 1),
        "peak_rss_mb": round(found["peak_rss_mb"]),
    }


def main() -> None:
    """Measure each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="openvino:fp32", help="ENGINE:PRECISION")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    facts, rows = machine("cpu"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {CLIP: random_weights(CLIP, folder), f"timm/{DINO}": timm_weights(DINO, folder)}
        for case in CASES:
            rows.append(measure(case, args.variant, weights, folder, args.threads))
            print(json.dumps(rows[-1]), flush=True)
    after = machine("cpu")["load_average_before"]
    report = {
        "machine": {**facts, "load_average_after": after},
        "variant": args.variant,
        "threads": args.threads,
        "pictures": 12,
        "rows": rows,
    }
    write_json(args.json, report)


if __name__ == "__main__":
    main()
