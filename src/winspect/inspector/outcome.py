"""From scores to the results a user gets, and the warning when they cannot be right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from winspect.errors import PictureError
from winspect.methods.result import CONSTANT_SPREAD, Result, map_spread
from winspect.methods.winclip.judge import PictureScores
from winspect.pictures.tiles import Prepared


class ConstantMapWarning(UserWarning):
    """Every map of a batch is constant: the windows are broken, or the pictures are blank."""


def result_of(item: Prepared, category_name: str, scores: PictureScores, precision: str, *, maps: bool) -> Result:
    """The result of a prepared picture; an error where its score, or its map, is not a number."""
    if not (math.isfinite(scores.score) and np.isfinite(scores.tile_maps).all()):
        reason = f"the model's score in {precision} is not a number: use precision fp32 or bf16, or check the weights"
        return Result(item.name, category_name, error=PictureError(item.name, reason), warning=item.warning)
    return Result(
        path=item.name,
        category_name=category_name,
        anomaly_score=scores.score,
        tile_maps=scores.tile_maps if maps else None,
        tile_boxes=tuple(item.boxes),
        size_wh=item.size_wh,
        picture_rgb=item.rgb,
        warning=item.warning,
    )


def warn_if_constant(results: Sequence[Result]) -> None:
    """Warn when not one map of a batch varies."""
    maps = [result.tile_maps for result in results if result.tile_maps is not None]
    if maps and all(map_spread(tile_maps) < CONSTANT_SPREAD for tile_maps in maps):
        warnings.warn(
            f"all anomaly maps of {len(maps)} pictures from {results[0].path} on are constant: the pictures are "
            "blank, or the windows of this model are broken; do not trust these maps",
            ConstantMapWarning,
            stacklevel=3,
        )
