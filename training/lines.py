"""Product lines in large pictures, and what each part of recipe ``fused`` gives for them: made by worker processes.

The generator draws at 240 pixels, the size that the model is trained at; here it draws at :data:`SIDE`, so that a
picture of 448 pixels has defects as small and textures as fine as a camera's. The side is a constant of a process
(``training.generator.noise.SIZE``, read from the environment), so each line is made and scored in a process that was
started for it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from training.changes import change_whole
from winspect.backbones.bundled import load_tiny
from winspect.backbones.embeddings import STEM, Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.methods.fused.method import Fused, fine_maps
from winspect.methods.method import References
from winspect.methods.winclip.fusion import FusionSettings, fused_sums
from winspect.methods.winclip.recipes import RECIPES
from winspect.weights.configs import read_bundled

SIDE = 480
GOOD, DEFECTIVE = 12, 8
DRAWS = {1: 4, 2: 3, 4: 2, 8: 1}
"""How often so many references are drawn from a line's good pictures."""
FIRST_SEED = 7_200_000
_SIDE_VARIABLE = "WINSPECT_GENERATOR_SIDE"
_BATCH = 4


@dataclass(frozen=True)
class Draw:
    """One draw of references, and what the parts give for the line's other pictures.

    Attributes:
        samples: number of references.
        left_out: (n, 4) values of references against the others; crowdings: (4,).
        values: (pictures, 4), good pictures first; defective: bool (pictures,).
        changed: (pictures, 4) of good pictures that were changed as a whole.
        log, log_changed: (pictures,) of both, what recipe ``log`` makes of them.
        maps: float16 (3, pictures, 56, 56), logarithms.
    """

    samples: int
    left_out: np.ndarray
    crowdings: np.ndarray
    values: np.ndarray
    defective: np.ndarray
    changed: np.ndarray
    log: np.ndarray
    log_changed: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True)
class ScoredLine:
    """A line; ``coverage``: (DEFECTIVE, 56, 56), how much of each patch a mask covers."""

    family: str
    draws: list[Draw]
    coverage: np.ndarray


def scored_lines(folder: Path, count: int, workers: int) -> Iterator[ScoredLine]:
    """Lines 0 to ``count`` of the held-out families, scored by the model in ``folder``.

    The few on which no defect shows are left out.
    """
    earlier = os.environ.get(_SIDE_VARIABLE)
    os.environ[_SIDE_VARIABLE] = str(SIDE)
    try:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            yield from (line for line in pool.imap(partial(_scored, folder), range(count)) if line is not None)
    finally:
        if earlier is None:
            del os.environ[_SIDE_VARIABLE]
        else:
            os.environ[_SIDE_VARIABLE] = earlier


def _scored(folder: Path, number: int) -> ScoredLine | None:
    from training.generator import HELDOUT
    from training.generator.pair import make_line

    torch.set_num_threads(1)
    family = HELDOUT[number % len(HELDOUT)]
    try:
        line = make_line(family, FIRST_SEED + number, good=GOOD, defective=DEFECTIVE)
    except RuntimeError:
        return None
    tower, method = _model(folder)
    random = np.random.default_rng(FIRST_SEED + number)
    changed = np.stack([change_whole(rgb, random) for rgb in line.good_rgb])
    pictures = np.concatenate([line.good_rgb, line.defective_rgb, changed])
    with torch.inference_mode():
        everything = embedded(tower, method, pictures)
        draws = [
            _draw(method, everything, sorted(random.choice(GOOD, samples, replace=False).tolist()))
            for samples, times in DRAWS.items()
            for _ in range(times)
        ]
    masks = torch.from_numpy(line.masks).float()
    return ScoredLine(family, draws, adaptive_avg_pool2d(masks[:, None], draws[0].maps.shape[-2:])[:, 0].numpy())


@lru_cache(maxsize=1)
def _model(folder: Path) -> tuple[ImageTower, Fused]:
    """The model, loaded once in a process; what was fitted for the method is not read."""
    weights = FusionSettings(**read_bundled(folder)["log_fusion"])
    return ImageTower(load_tiny(folder).visual).eval(), Fused(RECIPES["fused"], weights=weights)


def embedded(tower: ImageTower, method: Fused, pictures: np.ndarray) -> Embeddings:
    """Pictures, uint8 (n, side, side, 3), as the method sees them."""
    size = (method.fitted.size,) * 2
    resized = np.stack([np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC)) for rgb in pictures])
    pixels: Any = (torch.from_numpy(resized).float().movedim(-1, 1) - 127) / 128
    needs = method.needs(few_shot=True, maps=True)
    return Embeddings.concatenate([tower(part, needs) for part in pixels.split(_BATCH)])


def _draw(method: Fused, everything: Embeddings, shown: Sequence[int]) -> Draw:
    samples = [everything.rows(number, number + 1) for number in shown]
    known, rows = method.memories(samples)
    tested = [number for number in range(GOOD + DEFECTIVE) if number not in shown]
    others = [GOOD + DEFECTIVE + number for number in range(GOOD) if number not in shown]
    values, changed = (
        method.values(everything.map(lambda array, which=which: array[which]), known) for which in (tested, others)
    )
    log, log_changed = (_log_sums(method, everything, known, which) for which in (tested, others))
    return Draw(
        samples=len(shown),
        left_out=method.left_out(samples, known, rows, range(len(shown))),
        crowdings=np.array(method.crowdings(samples)),
        values=values.tiles,
        defective=np.array(tested) >= GOOD,
        changed=changed.tiles,
        log=log,
        log_changed=log_changed,
        maps=np.stack([maps.numpy() for maps in fine_maps(values)]).astype(np.float16),
    )


def _log_sums(method: Fused, everything: Embeddings, known: References, which: Sequence[int]) -> np.ndarray:
    some = everything.map(lambda array: array[which])
    neutral = torch.full_like(some.patches[STEM][..., 0], 0.5)  # a zero-shot score of 0.5 adds nothing
    sums, _ = fused_sums(some, neutral[:, 0, 0], neutral, known, method.weights, stride=method.recipe.stride)
    return sums.numpy()
