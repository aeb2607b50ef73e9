"""The bundled model on real pictures it was never trained or chosen on: ``python -m benchmarks.bundled_model``.

Two sets that come as packages (``pip install "winspect[demo]"``): woven textile (1000 good, 500 with a local and 500
with a global change) and solar cells in electroluminescence (2624, of which those with a defect probability of at
least 0.5 count as defective). Prints the model card's table: image AUROC zero-shot, 1-shot and 4-shot (mean and
standard deviation over draws of the references, which are then left out), beside baselines that need no training.
Recipe ``fused`` takes the most time: ``--device cuda`` runs it on a GPU, ``--methods fused`` alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.measuring import write_json
from training.measure import auroc
from winspect.backbones.embeddings import LAST, STEM, Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import LoadedCLIP, load
from winspect.backbones.text_tower import TextTower
from winspect.datasets.packaged import DEFECTIVE_FROM, open_textile, package_folder, read_cells
from winspect.engines.torch_engine import TorchEngine
from winspect.errors import PictureError
from winspect.inspector.text_encoder import TextEncoder
from winspect.methods.fused.method import Fused
from winspect.methods.method import CutPicture
from winspect.methods.registry import get_method
from winspect.methods.winclip.fusion import (
    FusionSettings,
    crowding,
    log_fusion,
    look_distance,
    stem_distance,
)
from winspect.methods.winclip.log import Log
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.methods.winclip.recipes import RECIPES
from winspect.methods.winclip.scoring import class_score, combine, few_shot_map, zero_shot_map
from winspect.pictures.pool import prepare_many
from winspect.weights import TINY
from winspect.weights.configs import BUNDLED_FOLDER, read_bundled

LOG = Log(RECIPES["log"])
SHOTS = (1, 4)
GRID_HW = (15, 15)
Scores = dict[str, np.ndarray]
FUSED, OTHERS = "fused", "others"
_BATCH = 16


@dataclass(frozen=True)
class RealSet:
    """Pictures with labels, and the subsets that are reported: name -> which pictures belong to it."""

    name: str
    class_name: str
    paths: list[Path]
    defective: np.ndarray
    subsets: dict[str, np.ndarray]


@dataclass(frozen=True)
class Encoded:
    """All pictures of a set: embeddings of one tile each, and 30 x 30 thumbnails (pictures, 2700)."""

    embeddings: Embeddings
    thumbnails: Tensor
    text: Tensor


def textile() -> RealSet:
    """Package conformal-clip-data (MIT)."""
    items = open_textile().items
    kind = np.array([item.defect_type for item in items])
    subsets = {"all": kind != "", "local": kind != "global", "global": kind != "local"}
    return RealSet("textile", "textile", [item.path for item in items], kind != "good", subsets)


def solar_cells() -> RealSet:
    """Package elpv-dataset (pictures CC BY-NC-SA 4.0)."""
    folder = package_folder("elpv")
    names, probabilities, kinds = zip(*read_cells(folder), strict=True)
    probability, kind = np.array(probabilities), np.array(kinds)
    subsets = {
        "all": probability >= 0,
        "experts certain": (probability == 0) | (probability == 1),
        "mono": kind == "mono",
        "poly": kind == "poly",
    }
    paths = [folder / name for name in names]
    return RealSet("solar cells", "solar cell", paths, probability >= DEFECTIVE_FROM, subsets)


SETS = {"textile": textile, "solar": solar_cells}


def encode(pictures: RealSet) -> Encoded:
    """Embed every picture once, whole, as recipe ``paper`` does."""
    loaded = load(TINY)
    engine = TorchEngine(ImageTower(loaded.model.visual).eval(), torch.device("cpu"))
    embeddings, thumbnails = [], []
    for item in prepare_many(pictures.paths, loaded.preprocess):
        if isinstance(item, PictureError):
            raise item
        tile = torch.from_numpy(item.tiles)
        embeddings.append(engine.encode(tile, LOG.needs(few_shot=True, maps=True)))
        thumbnails.append(avg_pool2d(tile, 8).flatten(1))
    return Encoded(Embeddings.concatenate(embeddings), torch.cat(thumbnails), class_text(loaded, pictures))


def class_text(loaded: LoadedCLIP, pictures: RealSet) -> Tensor:
    """The prompts of a set's class, (2, 128)."""
    tower = TextTower(loaded.model, loaded.tokenizer).eval()
    return TextEncoder(lambda: tower, PromptEnsemble(), None)(pictures.class_name).raw


def encode_for_fused(pictures: RealSet, device: torch.device) -> tuple[Fused, Embeddings, Tensor]:
    """Recipe ``fused``, every picture embedded as it needs it, about 1 MB each, and the text."""
    loaded = load(TINY)
    recipe: Any = get_method(FUSED)
    method = recipe.for_model(loaded.scoring, TINY)
    engine = TorchEngine(ImageTower(loaded.model.visual).eval(), device)
    embeddings = []
    needs = method.needs(few_shot=True, maps=True)
    needs = replace(needs, layers=(*needs.layers, *method.needs(few_shot=False, maps=True).layers))
    for item in prepare_many(pictures.paths, method.preprocess(loaded.preprocess, 16)):
        if isinstance(item, PictureError):
            raise item
        embeddings.append(engine.encode(torch.from_numpy(item.tiles), needs))
    return method, Embeddings.concatenate(embeddings), class_text(loaded, pictures)


def fused_scores(method: Fused, embeddings: Embeddings, shots: Sequence[int]) -> Scores:
    """Scores of every picture by recipe ``fused``, pictures ``shots`` being the references."""
    references = method.fit([embeddings.rows(shot, shot + 1) for shot in shots])
    scores = []
    for start in range(0, len(embeddings.image), _BATCH):
        part = embeddings.rows(start, start + _BATCH)
        cut = [CutPicture(1)] * len(part.image)
        scores += [found.score for found in method.score(part, cut, text=None, references=references)]
    return {FUSED: np.array(scores)}


def chosen(embeddings: Embeddings, rows: Sequence[int] | Tensor) -> Embeddings:
    """Some pictures of a set."""
    return embeddings.map(lambda tensor: tensor[rows])


def local_deviation(stem: Tensor) -> Tensor:
    """A baseline without text and without references: (batch, patches, channels) to (batch,).

    The distance of the oddest patch to the nearest patches of the same picture that are not its neighbours.
    """
    return torch.stack([crowding(picture[None]).amax() for picture in stem])


def zero_shot(encoded: Encoded, temperature: float) -> tuple[Tensor, Tensor]:
    """Image scores (pictures,) and maps (pictures, 15, 15)."""
    embeddings = encoded.embeddings
    images, *windows = (
        class_score(vectors, encoded.text, temperature=temperature)
        for vectors in (embeddings.image, *embeddings.windows.values())
    )
    return images, zero_shot_map(images, dict(zip(embeddings.windows, windows, strict=True)), GRID_HW)


def few_shot(encoded: Encoded, shots: Sequence[int], zero: tuple[Tensor, Tensor], settings: FusionSettings) -> Scores:
    """Scores of every picture by every method, pictures ``shots`` being the references."""
    embeddings, references = encoded.embeddings, chosen(encoded.embeddings, list(shots))
    good = LOG.fit([references])
    association = few_shot_map(
        embeddings.vectors(LAST),
        embeddings.windows,
        references.vectors(LAST).flatten(0, 1),
        {scale: windows.flatten(0, 1) for scale, windows in references.windows.items()},
        GRID_HW,
    )
    stem = stem_distance(embeddings.vectors(STEM), good, crowding_power=0.0)
    thumbnails = torch.cdist(encoded.thumbnails, encoded.thumbnails[list(shots)])
    return {
        name: value.numpy()
        for name, value in {
            "log fusion": log_fusion(embeddings, *zero, good, settings)[0],
            "paper's sum": combine(*zero, association)[0],
            "baseline: stem features": stem.amax(dim=1),
            "baseline: stem mean and deviation": look_distance(embeddings.vectors(STEM), good),
            "baseline: 30 x 30 pixels": thumbnails.amin(dim=1),
        }.items()
    }


def subset_aurocs(scores: np.ndarray, pictures: RealSet, left_out: Sequence[int] = ()) -> dict[str, float]:
    """Image AUROC within each subset, the references left out."""
    tested = np.ones(len(scores), bool)
    tested[list(left_out)] = False
    return {
        name: auroc(scores[tested & rows & pictures.defective], scores[tested & rows & ~pictures.defective])
        for name, rows in pictures.subsets.items()
    }


def measure(pictures: RealSet, draws: int, methods: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Every figure of one set: method -> shots -> subset -> [mean, standard deviation over draws]."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    if OTHERS in methods:
        config = read_bundled(BUNDLED_FOLDER)
        settings = FusionSettings(**config["log_fusion"])
        encoded = encode(pictures)
        zero = zero_shot(encoded, config["temperature"])
        for name, scores in {
            "zero-shot at 240 pixels": zero[0],
            "zero-shot at 240 pixels, largest of the map": zero[1].flatten(1).amax(dim=1),
            "baseline: local deviation": local_deviation(encoded.embeddings.vectors(STEM)),
        }.items():
            figures = subset_aurocs(scores.numpy(), pictures)
            found[name] = {"0": {subset: [value, 0.0] for subset, value in figures.items()}}
        _add_draws(found, pictures, draws, lambda shots: few_shot(encoded, shots, zero, settings))
    if FUSED in methods:
        with torch.inference_mode():
            method, embeddings, text = encode_for_fused(pictures, device)
            zero, _ = method.zero_shot_maps(embeddings, text)
            figures = subset_aurocs(zero.cpu().numpy(), pictures)
            found["fused, zero-shot"] = {"0": {subset: [value, 0.0] for subset, value in figures.items()}}
            _add_draws(found, pictures, draws, lambda shots: fused_scores(method, embeddings, shots))
    return {"pictures": len(pictures.paths), "defective": int(pictures.defective.sum()), "image_auroc": found}


def _add_draws(
    found: dict[str, dict[str, dict[str, list[float]]]],
    pictures: RealSet,
    draws: int,
    score: Callable[[Sequence[int]], Scores],
) -> None:
    for shots in SHOTS:
        runs = [_one_draw(pictures, shots, draw, score) for draw in range(draws)]
        for name in runs[0]:
            found.setdefault(name, {})[str(shots)] = {
                subset: [float(np.mean(values)), float(np.std(values))]
                for subset in pictures.subsets
                for values in [[run[name][subset] for run in runs]]
            }


def _one_draw(
    pictures: RealSet, shots: int, draw: int, score: Callable[[Sequence[int]], Scores]
) -> dict[str, dict[str, float]]:
    good = np.flatnonzero(~pictures.defective)
    references = np.random.default_rng(draw).choice(good, shots, replace=False).tolist()
    return {name: subset_aurocs(values, pictures, references) for name, values in score(references).items()}


def table(name: str, figures: dict[str, Any]) -> str:
    """The figures of one set in Markdown, a row per method."""
    subsets = list(next(iter(next(iter(figures["image_auroc"].values())).values())))
    lines = [
        f"**{name}**: {figures['pictures']} pictures, {figures['defective']} defective",
        "",
        "| method | references | " + " | ".join(subsets) + " |",
        "|---|---|" + "---|" * len(subsets),
    ]
    for method, by_shots in figures["image_auroc"].items():
        for shots, values in by_shots.items():
            cells = [
                f"{mean:.3f}" + (f" ± {deviation:.3f}" if shots != "0" else "") for mean, deviation in values.values()
            ]
            lines.append(f"| {method} | {shots} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundled_model", description=__doc__)
    parser.add_argument("--draws", type=int, default=5, help="draws of the references")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=[FUSED, OTHERS], default=[OTHERS, FUSED])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="of recipe fused")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    args = parser.parse_args()
    figures = {}
    for pictures in (SETS[name]() for name in args.sets):
        figures[pictures.name] = measure(pictures, args.draws, args.methods, args.device)
        print(table(pictures.name, figures[pictures.name]), end="\n\n", flush=True)
    write_json(args.json, figures)


if __name__ == "__main__":
    main()
