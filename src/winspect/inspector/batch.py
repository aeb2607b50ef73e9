"""Scoring pictures beside each other, for methods that score none alone. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from winspect.backbones.embeddings import Embeddings
from winspect.errors import PictureError
from winspect.methods.batch_method import Batch, BatchScores
from winspect.methods.result import Result, result_of
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Prepared

logger = logging.getLogger(__name__)


def score_batch(
    batch: Batch,
    items: Iterable[Prepared | PictureError],
    category_name: str,
    encode: Callable[[np.ndarray], Embeddings],
    *,
    tiles_at_once: int,
    precision: str,
    score_range: ScoreRange,
) -> Iterator[Result]:
    """Results of all pictures, in order, once the last of them has been read.

    Args:
        batch: an empty one of the method's, with room for all pictures.
        items: prepared for the method; of a picture that cannot be used the error becomes the result.
        encode: embeds normalised tiles (tiles, 3, height, width).
        tiles_at_once: how many are embedded together.
        precision: of the encoder, for messages.
        score_range: of the method.

    Raises:
        SourceError: too few pictures that can be used.
    """
    order: list[Prepared | PictureError] = []
    waiting: list[np.ndarray] = []

    def encode_waiting() -> None:
        if waiting:
            batch.add(encode(np.concatenate(waiting)))
            waiting.clear()

    for item in items:
        if isinstance(item, Prepared):
            waiting.append(item.tiles)
            order.append(replace(item, tiles=item.tiles[:, :, :0, :0]))  # the batch keeps what it needs of them
        else:
            order.append(item)
        if len(waiting) >= tiles_at_once:
            encode_waiting()
    encode_waiting()
    scores = batch.scores()
    usable = [item for item in order if isinstance(item, Prepared)]
    warning = scores.warning([item.name for item in usable])
    if warning is not None:
        logger.warning("%s", warning)
    peaks = [float(found.tile_maps.max()) for found in scores.pictures if found.tile_maps is not None]
    heat_range = run_range(peaks, limits=score_range)  # most of a batch is good
    numbers = iter(range(len(usable)))
    for item in order:
        if isinstance(item, PictureError):
            yield Result(item.path, category_name, error=item)
            continue
        number = next(numbers)
        result = result_of(item, category_name, scores.pictures[number], precision)
        if result.error is None:
            warning = joined(result.warning, _half_of(scores, number))
            result = replace(result, warning=warning, heat_range=heat_range)
        yield result


def _half_of(scores: BatchScores, number: int) -> str | None:
    """The warning of a picture that is in one of two halves of its batch."""
    half = next((half for half in scores.halves or () if number in half), None)
    if half is None:
        return None
    return (
        f"it is one of {len(half)} pictures, about half of the batch, that differ from the other half: what they share "
        "counts as normal"
    )
