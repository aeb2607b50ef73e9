"""Generated pictures as stem features: made once by worker processes, kept in a memory-mapped file.

One row of the file is one product: ``2 + R`` pictures (its clean sample, the same with a defect, ``R`` further good
samples) as ``(176, 15, 15)`` float16 stem features. A run that was stopped goes on with the rows not yet done.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.model import GRID
from training.stem import pretrained_stem
from winspect.backbones.bundled import STEM_CHANNELS, HybridPatchEmbed

CLEAN, DEFECT, FIRST_REFERENCE = 0, 1, 2
_PATCH = 16

MakePair = Callable[..., object]
Statistics = tuple[torch.Tensor, torch.Tensor]
_STATISTICS_FIRST_SEED = 9_000_000


@dataclass(frozen=True)
class PairSet:
    """Stem features of generated products.

    Attributes:
        features: float16 ``(products, 2 + R, 176, 15, 15)``, standardised; row 0 clean, row 1 defective, then good.
        coverage: float16 ``(products, 225)``, the share of each patch of the defective picture that its mask covers.
        families: the product family of each row.
    """

    features: np.ndarray
    coverage: np.ndarray
    families: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: Sequence[int], pictures: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(rows, pictures, 176, 15, 15)`` and coverage ``(rows, 225)``, float32.

        Args:
            rows: product numbers.
            pictures: ``(CLEAN, DEFECT, FIRST_REFERENCE)`` or some of them.
        """
        features = np.stack([self.features[row][list(pictures)] for row in rows])
        return torch.from_numpy(features).float(), torch.from_numpy(self.coverage[list(rows)]).float()


@dataclass(frozen=True)
class Recipe:
    """Which products to make: ``count`` of them, families in turn, numbered seeds from ``first_seed`` on."""

    families: tuple[str, ...]
    count: int
    first_seed: int
    references: int

    def family(self, row: int) -> str:
        return self.families[row % len(self.families)]


def patch_coverage(mask: np.ndarray) -> np.ndarray:
    """``(240, 240)`` bool mask to ``(225,)`` float16: the share of each patch that is masked."""
    side = mask.shape[0] // _PATCH
    return mask.reshape(side, _PATCH, side, _PATCH).mean(axis=(1, 3)).reshape(-1).astype(np.float16)


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """``(B, 240, 240, 3)`` uint8 RGB to the model's input ``(B, 3, 240, 240)``."""
    return (torch.from_numpy(pictures).float().movedim(-1, 1) - 127) / 128


def stem_statistics(make_pair: MakePair, families: Sequence[str], *, count: int, workers: int) -> Statistics:
    """Mean and deviation of each of the 176 stem channels over ``count`` clean generated pictures."""
    recipe = Recipe(tuple(families), count, _STATISTICS_FIRST_SEED, 0)
    features = np.stack([features[CLEAN] for _, features, _ in _made(make_pair, recipe, range(count), None, workers)])
    flat = torch.from_numpy(features).float().movedim(1, -1).reshape(-1, STEM_CHANNELS)
    return flat.mean(dim=0).half().float(), flat.std(dim=0).half().float()


def pair_set(
    folder: Path,
    make_pair: MakePair,
    recipe: Recipe,
    statistics: Statistics,
    *,
    workers: int,
    log: Callable[[str], None] = print,
) -> PairSet:
    """The products of ``recipe``, generated into ``folder`` where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    _check_same_recipe(folder / "recipe.json", recipe)
    shape = (recipe.count, 2 + recipe.references, STEM_CHANNELS, GRID, GRID)
    features = _mapped(folder / "features.npy", np.float16, shape)
    coverage = _mapped(folder / "coverage.npy", np.float16, (recipe.count, GRID * GRID))
    done = _mapped(folder / "done.npy", np.uint8, (recipe.count,))
    todo = np.flatnonzero(done == 0).tolist()
    for number, (row, stem, mask) in enumerate(_made(make_pair, recipe, todo, statistics, workers), start=1):
        features[row] = stem
        coverage[row] = patch_coverage(mask)
        done[row] = 1
        if number % 500 == 0 or number == len(todo):
            log(f"{folder.name}: {number} of {len(todo)} products made")
    return PairSet(features, coverage, tuple(recipe.family(row) for row in range(recipe.count)))


def _check_same_recipe(path: Path, recipe: Recipe) -> None:
    wanted = json.loads(json.dumps(vars(recipe)))
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise SystemExit(f"{path}: the pictures there were made by another recipe; take another --out")
    path.write_text(json.dumps(wanted) + "\n")


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _made(
    make_pair: MakePair, recipe: Recipe, rows: Sequence[int], statistics: Statistics | None, workers: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(row, stem features (2 + R, 176, 15, 15), mask), in the order of ``rows``, from ``workers`` processes."""
    jobs = [(make_pair, recipe.family(row), recipe.first_seed + row, recipe.references, row) for row in rows]
    if workers == 0:
        _start_worker(statistics)
        yield from map(_make, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_single_worker, (statistics,)) as pool:
        yield from pool.imap(_make, jobs, chunksize=8)


_worker: dict[str, HybridPatchEmbed] = {}
"""The stem of this process, under the name ``embed``: a worker is started once and makes many products."""


def _start_worker(statistics: Statistics | None) -> None:
    embed = HybridPatchEmbed(1).requires_grad_(False).eval()
    embed.stem.load_state_dict(pretrained_stem().state_dict())
    if statistics is not None:
        embed.stem_mean.copy_(statistics[0])
        embed.stem_std.copy_(statistics[1])
    _worker["embed"] = embed


def _start_single_worker(statistics: Statistics | None) -> None:
    torch.set_num_threads(1)
    _start_worker(statistics)


def _make(job: tuple[MakePair, str, int, int, int]) -> tuple[int, np.ndarray, np.ndarray]:
    make_pair, family, seed, references, row = job
    pair: Any = make_pair(family, seed, references=references)
    pictures = np.concatenate([pair.clean_rgb[None], pair.defect_rgb[None], pair.reference_rgb])
    return row, _worker["embed"].stem_features(normalised(pictures)).half().numpy(), pair.mask
