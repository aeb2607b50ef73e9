"""Choosing the good samples to show from a folder of pictures that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from winspect.errors import SettingsError, SourceError
from winspect.inspector.base import Picture, Predictor
from winspect.methods.batch_method import BatchMethod
from winspect.methods.choosing import choose
from winspect.methods.method import Method
from winspect.methods.result import Result


@dataclass(frozen=True, eq=False)
class ChosenReferences:
    """What is to be shown of a folder, and what is not.

    Attributes:
        pictures: how many there are.
        kept: in the order in which they were chosen: the first K of them are the choice of K.
        outliers: pictures whose scores are above ``limit``, the most anomalous first.
        limit: of the scores of normal pictures.
        failed: pictures that cannot be used.
        warning: what to know before the choice is used, else None.
    """

    pictures: int
    kept: tuple[Result, ...]
    outliers: tuple[Result, ...]
    limit: float
    failed: tuple[Result, ...]
    warning: str | None

    def document(self) -> dict[str, Any]:
        """As JSON: ``path`` and ``score`` of each picture."""
        return {
            "pictures": self.pictures,
            "kept": [_entry(result) for result in self.kept],
            "outliers": [_entry(result) for result in self.outliers],
            "limit": self.limit,
            "failed": [{"path": result.path, "error": str(result.error)} for result in self.failed],
            "warning": self.warning,
        }


def check_choice(method: Method, pictures: int, keep: int) -> None:
    """Refuse what cannot be chosen, before a model is loaded.

    Raises:
        SettingsError: the method does not compare the pictures of a batch, or ``keep`` is less than 1.
        SourceError: too few pictures.
    """
    if not isinstance(method, BatchMethod):
        raise SettingsError(
            f"recipe {method.name} scores each picture alone; references are chosen with recipe mutual, which compares "
            "the pictures of a batch"
        )
    if keep < 1:
        raise SettingsError(f"keep: got {keep}, need a number of pictures from 1")
    method.batch(pictures)  # refuses too few
    if keep > pictures:
        raise SourceError(f"asked for {keep} of {pictures} pictures: keep fewer, or give more pictures")


def choose_references(
    model: Predictor,
    pictures: Sequence[Picture],
    *,
    keep: int,
    progress: bool = False,
) -> ChosenReferences:
    """Choose the most normal, most varied pictures of an unlabelled batch: see :mod:`winspect.methods.choosing`.

    Args:
        model: with recipe ``mutual``.
        pictures: at least 4.
        keep: how many to choose.
        progress: show it on stderr, where that is a terminal.

    Raises:
        SettingsError: another recipe, or ``keep`` is less than 1.
        SourceError: too few pictures, or fewer than ``keep`` that are no outliers.
    """
    check_choice(model.method, len(pictures), keep)
    compared = model.compare(pictures, progress=progress)
    results = compared.results
    scores = np.array([np.nan if result.anomaly_score is None else result.anomaly_score for result in results])
    chosen = choose(scores, compared.apart, keep)
    return ChosenReferences(
        pictures=len(results),
        kept=tuple(results[number] for number in chosen.kept),
        outliers=tuple(results[number] for number in chosen.outliers),
        limit=chosen.limit,
        failed=tuple(result for result in results if result.error is not None),
        warning=compared.warning,
    )


def _entry(result: Result) -> dict[str, Any]:
    return {"path": result.path, "score": result.anomaly_score, "warning": result.warning}
