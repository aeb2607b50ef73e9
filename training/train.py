"""Train the bundled model: ``python -m training.train --out runs/tiny --seed 0``.

Pictures are generated and run through the stem once, into ``--out``; then the rest of the model is trained on them.
A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from pathlib import Path

import torch
from torch import nn

from training import losses
from training.data import CLEAN, DEFECT, FIRST_REFERENCE, MakePair, PairSet, Recipe, pair_set, stem_statistics
from training.generator import HELDOUT, TRAIN, make_pair
from training.measure import heldout_figures
from training.model import (
    CONFIG,
    GRID,
    PromptTokens,
    average_prompts,
    embed,
    encode_prompts,
    logits,
    new_model,
    save_tiny,
    to_text_space,
    transform,
    window_embeddings,
    with_full_vocabulary,
)
from winspect.backbones.windows import window_indices

PRODUCTS_A_STEP = 12
PICTURES = (CLEAN, DEFECT, FIRST_REFERENCE)
MUON_LR, ADAMW_LR = 4e-3, 1.5e-3
WARMUP_STEPS = 50
AVERAGE_DECAY = 0.998
WINDOWS_EACH = 3
HELDOUT_FIRST_SEED, TRAIN_FIRST_SEED = 5_000_000, 0
WEIGHTS = {"image": 1.0, "ranking": 0.5, "patch": 0.5, "window": 1.0, "nearest": 1.0, "text": 0.5}


class Trainee(nn.Module):
    """The model and what only its training needs: scale and shift that turn log distances into logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.nearest_scale = nn.Parameter(torch.tensor(2.0))
        self.nearest_shift = nn.Parameter(torch.tensor(4.0))
        self.prompts = PromptTokens()

    def forward(self, features: torch.Tensor, coverage: torch.Tensor, rng: random.Random) -> dict[str, torch.Tensor]:
        """``(B, 3, 176, 15, 15)`` features and ``(B, 225)`` coverage to the named loss terms."""
        visual, products = self.model.visual, len(features)
        tokens = embed(visual, features.flatten(0, 1))
        out = transform(visual.transformer, tokens)
        text, terms = self._text(rng, features.device)
        image = logits(to_text_space(visual, out[:, 0]), *text).reshape(products, 3)
        is_defect = torch.tensor([0, 1, 0], device=image.device).expand(products, 3)
        terms["image"] = losses.balanced_bce(image, is_defect)
        terms["ranking"] = losses.ranking(image[:, DEFECT], image[:, CLEAN])
        patches = out[:, 1:].reshape(products, 3, GRID * GRID, -1)
        labels = losses.labels_of_patches(coverage)
        labels = torch.cat([torch.zeros_like(labels), labels], dim=1)
        terms["patch"] = losses.balanced_bce(logits(to_text_space(visual, patches[:, :2].flatten(1, 2)), *text), labels)
        terms["nearest"] = self._nearest(patches, labels)
        tokens = tokens.reshape(products, 3, *tokens.shape[1:])
        terms["window"] = self._windows(tokens, coverage, rng.choice((2, 3)), text)
        return terms

    def _text(
        self, rng: random.Random, device: torch.device
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
        blanks, normalise_each = rng.choice((1, 1, 2, 2, 3, 4)), rng.random() < 0.5
        sides = []
        for tokens in self.prompts(blanks):
            some = torch.tensor(sorted(rng.sample(range(len(tokens)), 40)))
            sides.append(encode_prompts(self.model, tokens[some].to(device)))
        text = tuple(average_prompts(side, normalise_each=normalise_each) for side in sides)
        return (text[0], text[1]), {"text": losses.text_separation(*sides)}

    def _nearest(self, patches: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        reference = patches[:, FIRST_REFERENCE]
        distance = losses.nearest_distance(patches[:, :2].flatten(1, 2), reference)
        logit = self.nearest_scale * (distance + 1e-3).log() + self.nearest_shift
        largest = logit.reshape(len(patches), 2, -1).amax(dim=2)
        return losses.balanced_bce(logit, labels) + 0.5 * losses.ranking(largest[:, DEFECT], largest[:, CLEAN])

    def _windows(
        self, tokens: torch.Tensor, coverage: torch.Tensor, scale: int, text: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Some defective and some good windows of each defective picture, and the same places of its clean twin."""
        patches = torch.tensor(window_indices((GRID, GRID), scale), device=tokens.device)
        labels = losses.labels_of_windows(coverage, patches)
        noise = torch.rand(labels.shape, device=tokens.device)
        chosen = torch.cat(
            [(noise + 2 * (labels == wanted)).topk(WINDOWS_EACH, dim=1).indices for wanted in (1, 0)], dim=1
        )
        labels = labels.gather(1, chosen)
        found = window_embeddings(
            self.model.visual, tokens[:, :2].flatten(0, 1), patches[chosen].repeat_interleave(2, dim=0)
        )
        both = torch.stack([torch.zeros_like(labels), labels], dim=1).flatten(0, 1)
        return losses.balanced_bce(logits(found, *text), both)


def augmented(features: torch.Tensor) -> torch.Tensor:
    """Stem features under a changed look: gain and shift of each channel, the same for the pictures of one product,
    and noise. Cheap variety where the pictures themselves are cached."""
    products, _, channels = features.shape[:3]
    look = (products, 1, channels, 1, 1)
    strength = torch.rand((products, 1, 1, 1, 1), device=features.device) * 0.3
    gain = (torch.randn(look, device=features.device) * strength).exp()
    shift = torch.randn(look, device=features.device) * strength
    noise = torch.randn_like(features) * strength * 0.2
    return features * gain + shift + noise


def optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum) for the matrices of the transformers, AdamW for all else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trainee.named_parameters():
        if parameter.requires_grad:
            (matrices if "resblocks" in name and parameter.ndim == 2 else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.05),
        torch.optim.AdamW(others, lr=ADAMW_LR, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def learning_rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short climb, then a cosine down to nothing."""
    climb = min(1.0, (step + 1) / WARMUP_STEPS)
    return climb * 0.5 * (1 + math.cos(math.pi * step / steps))


class Run:
    """One training run in a folder: its state can be written, and read again."""

    def __init__(self, trainee: Trainee, folder: Path, *, seed: int, steps: int) -> None:
        self.trainee, self.folder, self.seed, self.steps = trainee, folder, seed, steps
        self.optimizers = optimizers(trainee)
        self.average = copy.deepcopy(trainee)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        state = {
            "step": self.step,
            "steps": self.steps,
            "seed": self.seed,
            "trainee": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
        }
        torch.save(state, self.checkpoint.with_suffix(".part"))
        os.replace(self.checkpoint.with_suffix(".part"), self.checkpoint)

    def resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        if (state["steps"], state["seed"]) != (self.steps, self.seed):
            raise SystemExit(
                f"{self.checkpoint}: a run of {state['steps']} steps with seed {state['seed']}; "
                "take another --out, or the same --steps and --seed"
            )
        self.trainee.load_state_dict(state["trainee"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def advance(self, pairs: PairSet) -> dict[str, float]:
        """One step. Its random choices follow from the seed and its number alone, so a resumed run repeats them."""
        rng = random.Random(f"{self.seed}/{self.step}")
        torch.manual_seed(rng.getrandbits(62))
        device = next(self.trainee.parameters()).device
        reference = rng.randrange(FIRST_REFERENCE, pairs.features.shape[1])
        features, coverage = pairs.batch(rng.sample(range(len(pairs)), PRODUCTS_A_STEP), (CLEAN, DEFECT, reference))
        terms = self.trainee(augmented(features.to(device)), coverage.to(device), rng)
        total = sum((WEIGHTS[name] * term for name, term in terms.items()), start=torch.zeros((), device=device))
        if not torch.isfinite(total):
            raise SystemExit(f"step {self.step}: the loss is {total.item()}; lower the learning rate")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimizer, full in zip(self.optimizers, (MUON_LR, ADAMW_LR), strict=True):
            optimizer.param_groups[0]["lr"] = full * learning_rate(self.step, self.steps)
            optimizer.step()
        self._average()
        self.step += 1
        return {name: term.item() for name, term in terms.items()}

    @torch.no_grad()
    def _average(self) -> None:
        """The running mean of the weights, over about the last 500 steps, early on over a tenth of the steps so far."""
        share = max(1 - AVERAGE_DECAY, 9 / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.trainee.parameters(), strict=True):
            mean.lerp_(now, share)


def train(run: Run, pairs: PairSet, heldout: PairSet, *, check_every: int = 100) -> dict[str, float]:
    """Train to the last step, with checkpoints; write the averaged weights and return their held-out figures."""
    started, figures, first = time.monotonic(), {}, run.step
    recent: dict[str, float] = {}
    while run.step < run.steps:
        for name, value in run.advance(pairs).items():
            recent[name] = 0.98 * recent.get(name, value) + 0.02 * value
        if run.step % check_every == 0 or run.step == run.steps:
            run.save()
            figures = heldout_figures(run.average.model, heldout)
            speed = (run.step - first) / (time.monotonic() - started)
            _log(
                f"step {run.step} ({speed:.2f}/s) "
                + " ".join(f"{k}={v:.3f}" for k, v in recent.items())
                + " | held out "
                + " ".join(f"{k}={v:.3f}" for k, v in figures.items())
            )
    save_tiny(with_full_vocabulary(run.average.model), CONFIG, run.folder / "winspect-tiny")
    (run.folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def prepare(
    folder: Path,
    make: MakePair,
    train_families: tuple[str, ...],
    heldout_families: tuple[str, ...],
    *,
    products: int,
    heldout: int,
    workers: int,
) -> tuple[PairSet, PairSet, tuple[torch.Tensor, torch.Tensor]]:
    """Training and held-out products in ``folder``, and the stem statistics they were standardised with."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stem-statistics.pt"
    if not path.exists():
        torch.save(stem_statistics(make, train_families, count=min(512, products), workers=workers), path)
    mean, std = torch.load(path, weights_only=True)
    made = [
        pair_set(folder / name, make, recipe, (mean, std), workers=workers, log=_log)
        for name, recipe in (
            ("heldout", Recipe(heldout_families, heldout, HELDOUT_FIRST_SEED, 4)),
            ("train", Recipe(train_families, products, TRAIN_FIRST_SEED, 2)),
        )
    ]
    return made[1], made[0], (mean, std)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for pictures' features, checkpoints and weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--products", type=int, default=5000, help="generated training products, four pictures each")
    parser.add_argument("--heldout", type=int, default=500, help="products of families that are never trained on")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that generate pictures")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs, heldout, statistics = prepare(
        args.out / "pictures",
        make_pair,
        TRAIN,
        HELDOUT,
        products=args.products,
        heldout=args.heldout,
        workers=args.workers,
    )
    torch.manual_seed(args.seed)
    folder = args.out / f"seed-{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(Trainee(new_model(*statistics)).to(device), folder, seed=args.seed, steps=args.steps)
    if run.checkpoint.exists():
        run.resume()
        _log(f"goes on at step {run.step}")
    figures = train(run, pairs, heldout)
    _log(f"done: {folder / 'winspect-tiny'} " + " ".join(f"{k}={v:.4f}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
