"""Scoring pictures beside each other, for methods that score none alone. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from winspect.backbones.embeddings import Embeddings
from winspect.errors import PictureError, SourceError
from winspect.methods.batch_method import Batch, BatchScores
from winspect.methods.result import Result, result_of
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Prepared

logger = logging.getLogger(__name__)

_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Compared:
    """A batch whose pictures were scored beside each other.

    Attributes:
        results: of all pictures, in order; of those that cannot be used with the error.
        apart: float32 (results, results), see :class:`~winspect.methods.batch_method.BatchScores`; NaN for those that
            cannot be used.
        warning: what to know before the scores are used, else None.
    """

    results: list[Result]
    apart: np.ndarray
    warning: str | None


def compare(
    batch: Batch,
    items: Iterable[Prepared | PictureError],
    category_name: str,
    encode: Callable[[np.ndarray], Embeddings],
    *,
    tiles_at_once: int,
    precision: str,
    score_range: ScoreRange,
) -> Compared:
    """Score all pictures beside each other.

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
    failed = [item for item in order if isinstance(item, PictureError)]
    try:
        scores = batch.scores()
    except SourceError as error:
        if not failed:
            raise
        named = "; ".join(map(str, failed[:_MOST_NAMED])) + "; ..." * (len(failed) > _MOST_NAMED)
        raise SourceError(f"{error}; {len(failed)} cannot be used: {named}") from error
    usable = [item for item in order if isinstance(item, Prepared)]
    places = [place for place, item in enumerate(order) if isinstance(item, Prepared)]
    apart = np.full((len(order), len(order)), np.nan, np.float32)
    apart[np.ix_(places, places)] = scores.apart
    warning = scores.warning([item.name for item in usable])
    peaks = [float(found.tile_maps.max()) for found in scores.pictures if found.tile_maps is not None]
    heat_range = run_range(peaks, limits=score_range)  # most of a batch is good
    results = _results(order, scores, category_name, precision, heat_range)
    return Compared(list(results), apart, warning)


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
    heat_range: ScoreRange | None,
) -> Iterator[Result]:
    numbers = iter(range(len(scores.pictures)))
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
