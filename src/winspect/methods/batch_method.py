"""The contract of a method that scores pictures beside each other instead of one by one. Arrays only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from winspect.errors import SettingsError
from winspect.methods.method import Embeddings, Method, PictureScores

_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class BatchScores:
    """Scores of a batch.

    Attributes:
        pictures: in the order in which they were added. A picture whose vectors are not numbers has the score NaN and
            no map; it was left out, and the others are scored without it.
        halves: numbers of the pictures of two clusters of similar size, neither of which says anything of the other:
            a change that about half of the batch shares is normal there. Those of the first group that falls into
            such clusters; None where none does.
        apart: float32 (N, N), how far the picture of a row is from that of a column; NaN where they were not compared.
    """

    pictures: list[PictureScores]
    halves: tuple[tuple[int, ...], tuple[int, ...]] | None
    apart: np.ndarray

    def warning(self, names: Sequence[str]) -> str | None:
        """What to know before these scores are used; None where they say what they should.

        Args:
            names: of the pictures, in the order in which they were added.
        """
        if self.halves is None:
            return None
        first, second = (_some([names[number] for number in half]) for half in self.halves)
        return (
            f"the batch falls into two clusters of {len(self.halves[0])} and {len(self.halves[1])} pictures: what sets "
            "them apart counts as normal, and is in no score. If one of them is defective, show the other as good "
            f"samples with recipe memory. First: {first}. Second: {second}"
        )


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are more; each picture's row says that it is in a half."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


class Batch(Protocol):
    """Pictures that are scored beside each other."""

    def add(self, embeddings: Embeddings) -> list[bool]:
        """Take the next pictures, a tile each; nothing of ``embeddings`` is kept as it is.

        Returns:
            Whether each can be compared: its vectors are numbers.
        """

    def scores(self) -> BatchScores:
        """Score the pictures that were added.

        Raises:
            SourceError: too few of them.
        """


class BatchMethod(Method):
    """A method that needs no good samples, but other pictures: it scores batches, never a picture alone."""

    reads_text = False

    @abstractmethod
    def batch(self, count: int) -> Batch:
        """An empty batch for so many pictures at most.

        Raises:
            SourceError: too few.
            SettingsError: too few for a setting.
        """

    def fit(self, samples: Sequence[Embeddings]) -> NoReturn:
        """Refuse good samples.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(
            f"recipe {self.name} compares the pictures of a batch with each other and takes no good samples; choose "
            "recipe memory or subspace to show some"
        )

    def check_good_samples(self, category_name: str, *, are_there: bool) -> None:
        """Refuse good samples, as :meth:`fit` does."""
        if are_there:
            self.fit([])

    def check_alone(self, place: str) -> NoReturn:
        """See :class:`Method`: always refuses."""
        raise SettingsError(
            f"recipe {self.name} compares the pictures of a batch with each other, and {place} has no batch: "
            "choose references with `winspect references DIR`, then recipe memory or subspace"
        )

    def score(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refuse pictures outside of a batch, as :meth:`check_alone` does."""
        self.check_alone("a single picture")
