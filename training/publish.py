"""Put the better of the trained seeds into the package: ``python -m training.publish --runs runs/tiny``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.model import save_tiny
from winspect.backbones.bundled import load_tiny
from winspect.weights.configs import BUNDLED_FOLDER, read_bundled


def best_seed(runs: Path) -> Path:
    """The seed's folder with the highest mean of zero-shot and 1-shot AUROC on the held-out families.

    Raises:
        SystemExit: no seed below ``runs`` is trained to its end.
    """
    figures = {path.parent: json.loads(path.read_text()) for path in sorted(runs.glob("seed-*/figures.json"))}
    if not figures:
        raise SystemExit(
            f"{runs}: no trained seed (seed-*/figures.json); run python -m training.train --out {runs} first"
        )
    return max(figures, key=lambda folder: figures[folder]["zero"] + figures[folder]["one"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.publish", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="the --out folder of training.train")
    parser.add_argument("--to", type=Path, default=BUNDLED_FOLDER)
    args = parser.parse_args()
    folder = best_seed(args.runs)
    trained = folder / "winspect-tiny"
    config = read_bundled(trained)
    config["training"] = {
        "seed": int(folder.name.removeprefix("seed-")),
        **json.loads((folder / "figures.json").read_text()),
    }
    save_tiny(load_tiny(trained), config, args.to)
    print(f"{folder.name} -> {args.to}")


if __name__ == "__main__":
    main()
