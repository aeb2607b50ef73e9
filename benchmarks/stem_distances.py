"""Which distance a memory of the bundled model's stem should use: `python -m benchmarks.stem_distances --out FILE`.

Generated products that the model was not trained on, 12 good and 8 defective pictures of each; the first 1 or 4 good
ones are references. A picture's score is the mean of the largest half percent of its patches' distances to the
nearest of theirs: by cosine, as AnomalyDINO compares patches, or by Euclidean distance; of the stem's maps as they
are, or standardised by channel. Prints image AUROC within a product.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.measuring import machine, write_json
from training.generator import HELDOUT
from training.generator.pair import make_line
from training.measure import auroc
from winspect.backbones.bundled import STEM_LEVELS
from winspect.backbones.embeddings import STEM_8, STEM_16, Needs
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import LoadedCLIP, load
from winspect.pictures.pool import prepare_many
from winspect.system.arrays import mean_of_largest
from winspect.weights import TINY

LEVELS = {STEM_8: 1, STEM_16: 2}
SHOTS, TOP_SHARE, SEED, GOOD, DEFECTIVE = (1, 4), 0.005, 7_000_000, 12, 8


def distances(queries: Tensor, memory: Tensor, *, cosine: bool) -> Tensor:
    """Of each patch to the nearest of a memory: (patches,)."""
    if cosine:
        return 1 - (normalize(queries, dim=1) @ normalize(memory, dim=1).T).amax(dim=1)
    return torch.cdist(queries, memory).amin(dim=1)


def layers(pictures: np.ndarray, size: int, loaded: LoadedCLIP) -> dict[tuple[str, str], Tensor]:
    """(layer, "standardised" or "as it is") -> (pictures, patches, channels)."""
    tower, stem = ImageTower(loaded.model.visual).eval(), loaded.model.visual.conv1
    means, deviations = stem.stem_mean.split(STEM_LEVELS), stem.stem_std.split(STEM_LEVELS)
    parts: dict[tuple[str, str], list[Tensor]] = {}
    for picture in prepare_many(list(pictures), replace(loaded.preprocess, size=size)):
        with torch.inference_mode():
            embeddings = tower(torch.from_numpy(picture.tiles), Needs(layers=tuple(LEVELS)))
        for layer, level in LEVELS.items():
            vectors = embeddings.vectors(layer)
            parts.setdefault((layer, "standardised"), []).append((vectors - means[level]) / deviations[level])
            parts.setdefault((layer, "as it is"), []).append(vectors)
    return {name: torch.cat(vectors) for name, vectors in parts.items()}


def aurocs(vectors: Tensor, *, cosine: bool) -> list[float]:
    """Image AUROC of a product, for each of :data:`SHOTS`."""
    tested, figures = range(max(SHOTS), len(vectors)), []
    for shots in SHOTS:
        memory = vectors[:shots].flatten(0, 1)
        scores = np.array([mean_of_largest(distances(vectors[n], memory, cosine=cosine), TOP_SHARE) for n in tested])
        good = GOOD - max(SHOTS)
        figures.append(float(auroc(scores[good:], scores[:good])))
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--products", type=int, default=30)
    parser.add_argument("--size", type=int, default=448)
    args = parser.parse_args()
    loaded = load(TINY)
    found: dict[tuple[str, str, str], list[list[float]]] = {}
    for number in range(args.products):
        try:
            line = make_line(HELDOUT[number % len(HELDOUT)], SEED + number, good=GOOD, defective=DEFECTIVE)
        except RuntimeError:  # no visible defect
            continue
        pictures = np.concatenate([line.good_rgb, line.defective_rgb])
        for (layer, values), vectors in layers(pictures, args.size, loaded).items():
            for distance in ("cosine", "euclidean"):
                figures = aurocs(vectors, cosine=distance == "cosine")
                found.setdefault((layer, values, distance), []).append(figures)
    rows = [
        {"layer": layer, "values": values, "distance": distance, "products": len(figures)}
        | {f"{shots}-shot": round(float(mean), 3) for shots, mean in zip(SHOTS, np.mean(figures, axis=0), strict=True)}
        for (layer, values, distance), figures in found.items()
    ]
    for row in rows:
        print(json.dumps(row), flush=True)
    write_json(args.out, {"machine": machine(), "size": args.size, "rows": rows})


if __name__ == "__main__":
    main()
