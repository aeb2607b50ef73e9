"""What watch, service, cluster and evaluation need of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from winspect.methods.identity import Identified
from winspect.methods.result import Result
from winspect.pictures.fingerprints import Fingerprint


class Scorer(Protocol):
    """Scores pictures; :class:`winspect.inspector.base.Predictor` is one."""

    def predict_many(
        self, pictures: Iterable[Any], category_name: str = ..., *, keep_pictures: bool = ..., maps: bool = ...
    ) -> Iterator[Result]:
        """Results, in order; a picture that cannot be used gives a result with its error."""


class CalibratedScorer(Scorer, Identified, Protocol):
    """A scorer with an identity: what a calibration is made with, and compared with before it is used."""

    def references_of(self, category_name: str = ...) -> tuple[Fingerprint, ...]:
        """Names and hashes of a class's good samples, in order."""
