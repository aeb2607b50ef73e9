"""Bring the packaged model's few-shot scores to a fixed meaning, and measure it on held-out generated products.

``python -m training.calibrate`` makes products of the held-out families that nothing was chosen on, ten pictures each,
fits the last settings of :class:`FusionSettings` on half of them, writes them to the model's
``config.json``, and prints the other half's figures; then the same for recipe ``fused`` on larger pictures of lines of
products (:mod:`training.lines`, :mod:`training.fused`). A score of 0.5 is where good and defective are as likely.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from training import fused
from training.data import normalised, patch_coverage
from training.generator import HELDOUT, make_pair
from training.lines import scored_lines
from training.losses import PATCH_COVERAGE
from training.measure import auroc
from training.scaling import DEFECTIVE_PATCHES, logistic
from winspect.backbones.bundled import load_tiny
from winspect.backbones.embeddings import STEM
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.text_tower import TextTower
from winspect.inspector.text_encoder import TextEncoder
from winspect.methods.winclip.fusion import FusionSettings, crowding, fused_sums, stem_distance
from winspect.methods.winclip.log import Log
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.methods.winclip.recipes import RECIPES
from winspect.methods.winclip.scoring import class_score, zero_shot_map
from winspect.weights.configs import BUNDLED_CONFIG, BUNDLED_FOLDER, read_bundled

LOG = Log(RECIPES["log"])
FIRST_SEED = 8_000_000
GOOD_TESTED, MOST_SHOTS = 4, 4
SHOTS = (1, 2, 4)
RECIPES_FITTED = ("log", "fused")


@dataclass(frozen=True)
class Scored:
    """One product: its pictures' scores, good ones first, the defective one last.

    Attributes:
        images: method -> shots -> (pictures,); maps: method -> shots -> (patches,) of the defective picture.
        good_maps: shots -> (pictures - 1, patches) log fusion of the good ones.
        coverage: (patches,) how much of each patch the mask covers.
    """

    images: dict[str, dict[int, Tensor]]
    maps: dict[str, dict[int, Tensor]]
    good_maps: dict[int, Tensor]
    coverage: np.ndarray


def score_product(tower: ImageTower, text: Tensor, temperature: float, number: int, settings: FusionSettings) -> Scored:
    """Make product ``number`` and score its pictures: log fusion's sums, zero-shot, and the baselines."""
    pair = make_pair(HELDOUT[number % len(HELDOUT)], FIRST_SEED + number, references=GOOD_TESTED + MOST_SHOTS)
    pictures = np.concatenate([pair.reference_rgb, pair.clean_rgb[None], pair.defect_rgb[None]])
    with torch.inference_mode():
        everything = tower(normalised(pictures), LOG.needs(few_shot=True, maps=True))
        tested = everything.rows(MOST_SHOTS, len(pictures))
        stem = tested.vectors(STEM)
        scores = class_score(tested.image, text, temperature=temperature)
        windows = {k: class_score(v, text, temperature=temperature) for k, v in tested.windows.items()}
        zero_maps = zero_shot_map(scores, windows, tower.grid_hw)
        alone = torch.stack([crowding(picture[None]) for picture in stem])
        scored = Scored({}, {}, {}, patch_coverage(pair.mask))
        _add(scored, "zero-shot", 0, scores, zero_maps.flatten(1))
        _add(scored, "baseline: local deviation", 0, alone.amax(dim=1), alone)
        for shots in SHOTS:
            good = LOG.fit([everything.rows(0, shots)])
            images, maps = fused_sums(tested, scores, zero_maps, good, settings)
            _add(scored, "log fusion", shots, images, maps.flatten(1))
            scored.good_maps[shots] = maps.flatten(1)[:-1]
            plain = stem_distance(stem, good, 0.0)
            _add(scored, "baseline: stem features", shots, plain.amax(dim=1), plain)
    return scored


def _add(scored: Scored, method: str, shots: int, images: Tensor, maps: Tensor) -> None:
    scored.images.setdefault(method, {})[shots] = images
    scored.maps.setdefault(method, {})[shots] = maps[-1]


def figures(products: Sequence[Scored]) -> dict[str, dict[str, list[float]]]:
    """method -> shots -> image AUROC within a product, over all products, and pixel AUROC within a picture."""
    found: dict[str, dict[str, list[float]]] = {}
    for method, by_shots in products[0].images.items():
        for shots in by_shots:
            scores = torch.stack([product.images[method][shots] for product in products]).numpy()
            within = [auroc(row[-1:], row[:-1]) for row in scores]
            pixels = [
                auroc(
                    one.maps[method][shots].numpy()[one.coverage >= PATCH_COVERAGE], _good_patches(one, method, shots)
                )
                for one in products
                if (one.coverage >= PATCH_COVERAGE).any() and (one.coverage == 0).any()
            ]
            pooled = auroc(scores[:, -1], scores[:, :-1].ravel())
            found.setdefault(method, {})[str(shots)] = [float(np.mean(within)), pooled, float(np.mean(pixels))]
    return found


def _good_patches(product: Scored, method: str, shots: int) -> np.ndarray:
    return product.maps[method][shots].numpy()[product.coverage == 0]


def fit(products: Sequence[Scored], settings: FusionSettings) -> FusionSettings:
    """Settings whose scores are the chance of a defect, were half of all pictures, or one in 20 patches, defective."""
    goods = {shots: torch.stack([one.images["log fusion"][shots][:-1] for one in products]).mean() for shots in SHOTS}
    more = float((goods[1] - goods[4]) / 2)
    images, bad_images, patches, bad_patches = [], [], [], []
    for one in products:
        for shots in SHOTS:
            shift = more * float(np.log2(shots))
            images.append(one.images["log fusion"][shots] + shift)
            bad_images.append(torch.arange(len(images[-1])) == len(images[-1]) - 1)
            known = torch.from_numpy((one.coverage >= PATCH_COVERAGE) | (one.coverage == 0))
            patches += [one.maps["log fusion"][shots][known] + shift, one.good_maps[shots].flatten() + shift]
            bad = torch.from_numpy(one.coverage >= PATCH_COVERAGE)[known]
            bad_patches += [bad, torch.zeros(one.good_maps[shots].numel(), dtype=torch.bool)]
    image_scale, image_centre = logistic(torch.cat(images), torch.cat(bad_images))
    map_scale, map_centre = logistic(torch.cat(patches), torch.cat(bad_patches))
    map_centre += math.log(1 / DEFECTIVE_PATCHES - 1) / map_scale
    return replace(
        settings,
        more_references=round(more, 3),
        image_scale=round(image_scale, 3),
        image_centre=round(image_centre, 3),
        map_scale=round(map_scale, 3),
        map_centre=round(map_centre, 3),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__)
    parser.add_argument("--products", type=int, default=120)
    parser.add_argument("--model", type=Path, default=BUNDLED_FOLDER, help="folder whose config.json is completed")
    parser.add_argument("--lines", type=int, default=120)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that make and score lines")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES_FITTED, default=list(RECIPES_FITTED))
    args = parser.parse_args()
    config = read_bundled(args.model)
    tables = []
    if "log" in args.recipes:
        settings, table = _log(args.model, config, args.products)
        config["log_fusion"] = asdict(settings)
        tables.append(table)
    if "fused" in args.recipes:
        lines = list(scored_lines(args.model, args.lines, args.workers))
        fitted, measured = lines[: len(lines) // 2], lines[len(lines) // 2 :]
        expected = fused.fit(fitted)
        config["fused"] = asdict(expected)
        tables.append(fused.figures(measured, expected))
    (args.model / BUNDLED_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("log_fusion", "fused"):
        print(json.dumps(config.get(name), indent=2))
    for table in tables:
        whole = " whole pictures changed |" if "fused" in table else ""
        print(f"| method | references | image AUROC, one product | all products |{whole} pixel AUROC |")
        print("|---|---|---|---|---|" + "---|" * bool(whole))
        for method, by_shots in table.items():
            for shots, values in by_shots.items():
                print(f"| {method} | {shots} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def _log(folder: Path, config: dict[str, Any], count: int) -> tuple[FusionSettings, dict[str, dict[str, list[float]]]]:
    """Settings of recipe ``log`` from the first half of the products, and the other half's figures."""
    model = load_tiny(folder)
    tower = ImageTower(model.visual).eval()
    text_tower = TextTower(model, open_clip.SimpleTokenizer()).eval()
    text = TextEncoder(lambda: text_tower, PromptEnsemble(), None)("object").raw
    settings = FusionSettings()
    products = [score_product(tower, text, config["temperature"], n, settings) for n in range(count)]
    return fit(products[: count // 2], settings), figures(products[count // 2 :])


if __name__ == "__main__":
    main()
