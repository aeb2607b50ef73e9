"""Alarms for a model that fails in silence: maps that say nothing though every number looks like one.

The known case: every window attends to the other windows instead of to its own patches. All window embeddings are then
one vector, all maps are constant, and image figures hardly move.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from winspect.errors import PictureError
from winspect.methods.result import CONSTANT_SPREAD
from winspect.pictures.tiles import Cut, prepare

if TYPE_CHECKING:
    from torch import Tensor

    from winspect.inspector.winclip import WinCLIP

EQUAL_COSINE = 0.99999
"""Windows whose mean pairwise cosine is above this are equal. Measured, as one minus that cosine: photographs give
0.007 and more, evenly coloured pictures 0.0002 and more (position embeddings keep their windows apart), windows that
attend to each other 0 up to rounding, in fp32 and in bf16."""

PROBES = 2
"""Pictures per category whose window embeddings are looked at: a pass each, which is little beside the category's."""


def map_alarm(spreads: Sequence[float]) -> str | None:
    """The alarm for the maps of a category, when more than half of them are constant; else None.

    Args:
        spreads: :func:`winspect.methods.result.map_spread` of each picture.
    """
    constant = sum(spread < CONSTANT_SPREAD for spread in spreads)
    if 2 * constant <= len(spreads):
        return None
    return (
        f"{constant} of {len(spreads)} anomaly maps are constant (log odds within {CONSTANT_SPREAD:g}): the windows of "
        "this model are broken, or the pictures are blank"
    )


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine of all pairs of two or more vectors (n, width)."""
    from torch.nn.functional import normalize

    unit = normalize(vectors.double(), dim=-1)
    total = unit.sum(dim=0)
    return float((total @ total - len(unit)) / (len(unit) * (len(unit) - 1)))


def embedding_alarm(model: WinCLIP, pictures: Sequence[Path]) -> str | None:
    """The alarm for window embeddings that are all equal within each of the first pictures; else None.

    Pictures that cannot be read are passed over.
    """
    tiles = []
    for path in pictures[: 2 * PROBES]:
        try:
            tiles.append(prepare(path, model.preprocess, Cut(bit_depth=model.bit_depth)).tiles)
        except PictureError:
            continue
    if not tiles or not model.method.needs(few_shot=False, maps=True).scales:
        return None
    import torch  # not at the top: figures are also made where no model runs

    batch = torch.from_numpy(np.concatenate(tiles[:PROBES]))
    embeddings = model.engine.encode(batch, model.method.needs(few_shot=False, maps=True))
    for scale, windows in embeddings.windows.items():
        if windows.shape[1] > 1 and min(mean_cosine(of_tile) for of_tile in windows) > EQUAL_COSINE:
            return (
                f"all window embeddings of scale {scale} are equal (mean cosine above {EQUAL_COSINE}): the windows of "
                "this model are broken, or the pictures are blank"
            )
    return None
