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

from winspect.backbones.bundled import load_tiny
from winspect.backbones.embeddings import Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.methods.fused.method import Fused, fine_maps
from winspect.methods.winclip.fusion import FusionSettings
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
        maps: float16 (3, pictures, 56, 56), logarithms.
    """

    samples: int
    left_out: np.ndarray
    crowdings: np.ndarray
    values: np.ndarray
    defective: np.ndarray
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
    pictures = np.concatenate([line.good_rgb, line.defective_rgb])
    with torch.inference_mode():
        everything = embedded(tower, method, pictures)
        random = np.random.default_rng(FIRST_SEED + number)
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
    tested = [number for number in range(len(everything.image)) if number not in shown]
    values = method.values(everything.map(lambda array: array[tested]), known)
    return Draw(
        samples=len(shown),
        left_out=method.left_out(samples, known, rows, range(len(shown))),
        crowdings=np.array(method.crowdings(samples)),
        values=values.tiles,
        defective=np.array(tested) >= GOOD,
        maps=np.stack([maps.numpy() for maps in fine_maps(values)]).astype(np.float16),
    )
