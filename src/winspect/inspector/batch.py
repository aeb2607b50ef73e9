"""Scoring pictures beside each other, for methods that score none alone. No torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from winspect.backbones.embeddings import Embeddings
from winspect.errors import PictureError, SourceError
from winspect.methods.batch_method import Batch, BatchScores
from winspect.methods.method import PictureScores
from winspect.methods.result import Result, result_of
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Prepared

logger = logging.getLogger(__name__)

_MOST_NAMED = 5
_NO_NUMBER = PictureScores(math.nan, None)


@dataclass(frozen=True, eq=False)
class Compared:
    """A batch whose pictures were scored beside each other.

    Attributes:
        results: of all pictures, in order; of those that cannot be used with the error.
        apart: float32 (results, results), see :class:`~winspect.methods.batch_method.BatchScores`; NaN for those that
            cannot be used.
        warning: what to know before the scores are used, else None.
        refusal: too few pictures can be used, so that all results are errors; else None.
    """

    results: list[Result]
    apart: np.ndarray
    warning: str | None
    refusal: SourceError | None = None


def compare(
    batch: Batch,
    items: Iterable[Prepared | PictureError],
    category_name: str,
    embed: Callable[[Sequence[Prepared]], Embeddings],
    *,
    tiles_at_once: int,
    precision: str,
    score_range: ScoreRange,
) -> Compared:
    """Score all pictures beside each other.

    Args:
        batch: an empty one of the method's, with room for all pictures.
        items: prepared for the method; of a picture that cannot be used the error becomes the result.
        embed: embeds the tiles of pictures, one behind the other.
        tiles_at_once: how many are embedded together.
        precision: of the encoder, for messages.
        score_range: of the method.
    """
    order, comparable = _added(batch, items, embed, tiles_at_once)
    try:
        scores = batch.scores()
    except SourceError as error:
        return _refused(error, order, comparable, category_name, precision)
    usable = [item for item in order if isinstance(item, Prepared)]
    places = [place for place, item in enumerate(order) if isinstance(item, Prepared)]
    apart = np.full((len(order), len(order)), np.nan, np.float32)
    apart[np.ix_(places, places)] = scores.apart
    warning = scores.warning([item.name for item in usable])
    peaks = [float(found.tile_maps.max()) for found in scores.pictures if found.tile_maps is not None]
    heat_range = run_range(peaks, limits=score_range)  # most of a batch is good
    results = _results(order, scores, category_name, precision, score_range, heat_range)
    return Compared(list(results), apart, warning)


def _added(
    batch: Batch,
    items: Iterable[Prepared | PictureError],
    embed: Callable[[Sequence[Prepared]], Embeddings],
    tiles_at_once: int,
) -> tuple[list[Prepared | PictureError], list[bool]]:
    """Add all pictures to a batch.

    Returns:
        The items, without their pixels; and of each, whether it can be compared.
    """
    order: list[Prepared | PictureError] = []
    comparable: list[bool] = []
    places: list[int] = []
    waiting: list[Prepared] = []

    def add_waiting() -> None:
        for place, can_be in zip(places, batch.add(embed(waiting)), strict=True):
            comparable[place] = can_be
        places.clear()
        waiting.clear()

    for item in items:
        if isinstance(item, Prepared):
            places.append(len(order))
            waiting.append(item)
            order.append(replace(item, tiles=item.tiles[:, :, :0, :0]))  # the batch keeps what it needs of them
        else:
            order.append(item)
        comparable.append(False)
        if len(waiting) >= tiles_at_once:
            add_waiting()
    if waiting:
        add_waiting()
    return order, comparable


def _refused(
    error: SourceError,
    order: Sequence[Prepared | PictureError],
    comparable: Sequence[bool],
    category_name: str,
    precision: str,
) -> Compared:
    """Errors for all pictures of a batch: what is wrong with one, or that too few others can be used."""
    results = [
        Result(item.path, category_name, error=item)
        if isinstance(item, PictureError)
        else result_of(item, category_name, _NO_NUMBER, precision)
        for item in order
    ]
    failed = [str(result.error) for result, can_be in zip(results, comparable, strict=True) if not can_be]
    named = "; ".join(failed[:_MOST_NAMED]) + "; ..." * (len(failed) > _MOST_NAMED)
    reason = f"{error}; {len(failed)} cannot be used: {named}" if failed else str(error)
    results = [
        replace(result, error=PictureError(result.path, reason)) if can_be else result
        for result, can_be in zip(results, comparable, strict=True)
    ]
    return Compared(results, np.full((len(order), len(order)), np.nan, np.float32), None, SourceError(reason))


def results_of(comparing: Callable[[], Compared]) -> Iterator[Result]:
    """The results of a comparison that is made when the first is asked for; the log has the warning."""
    compared = comparing()
    if compared.warning is not None:
        logger.warning("%s", compared.warning)
    yield from compared.results


def _results(
    order: Sequence[Prepared | PictureError],
    scores: BatchScores,
    category_name: str,
    precision: str,
    score_range: ScoreRange,
    heat_range: ScoreRange | None,
) -> Iterator[Result]:
    numbers = iter(range(len(scores.pictures)))
    for item in order:
        if isinstance(item, PictureError):
            yield Result(item.path, category_name, error=item)
            continue
        number = next(numbers)
        result = result_of(item, category_name, scores.pictures[number], precision, score_range)
        if result.error is None:
            warning = joined(result.warning, _half_of(scores, number))
            result = replace(result, warning=warning, heat_range=heat_range)
        yield result


def _half_of(scores: BatchScores, number: int) -> str | None:
    """The warning of a picture that is in one of two halves of its batch."""
    for which, half in enumerate(scores.halves or (), 1):
        if number in half:
            return (
                f"it is one of {len(half)} pictures, about half of the batch (cluster {which} of 2), that differ from "
                "the other half: what they share counts as normal"
            )
    return None
