"""Review queue: which judged pictures a person should look at, the most doubtful first."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any, Literal

from winspect.feedback.records import JudgedPicture, Records

Because = Literal["disputed", "review", "audit", "anomalous", "doubt"]
_ORDER: tuple[Because, ...] = ("disputed", "review", "audit", "anomalous", "doubt")


@dataclass(frozen=True)
class Queued:
    """A picture of the queue.

    Attributes:
        because: ``disputed``: people disagree; ``review``: its verdict; ``audit``: drawn by chance, whatever its score;
            ``anomalous``: its verdict; ``doubt``: normal, near the threshold.
        doubt: see :func:`doubt_of`.
    """

    picture: JudgedPicture
    because: Because
    doubt: float

    def document(self) -> dict[str, Any]:
        """The picture as ``--json`` and ``GET /v1/review`` have it."""
        return {**self.picture.document(), "because": self.because, "doubt": round(self.doubt, 6)}


def doubt_of(picture: JudgedPicture) -> float:
    """How little a verdict is to be trusted: 1 at the threshold, towards 0 far from it; 0 without a threshold.

    The distance is that of the score, as a share of the threshold: ``1 / (1 + |score - threshold| / |threshold|)``; of
    two thresholds the nearer one counts. P-values would do for calibrations alone, and are all the same above the
    highest good score.

    >>> at = dict(id="", n=1, time="", path="", class_name="", sha256=None, verdict=None, p_value=None)
    >>> [doubt_of(JudgedPicture(score=score, threshold=0.4, **at)) for score in (0.4, 0.2, 0.8)]
    [1.0, 0.6666666666666666, 0.5]
    """
    score, doubts = picture.score, [0.0]
    for threshold in (picture.threshold, picture.review_threshold):
        if score is not None and threshold is not None:
            distance = abs(score - threshold)
            doubts.append(1.0 if distance == 0 else 1 / (1 + distance / max(abs(threshold), 1e-12)))
    return max(doubts)


def review_queue(records: Records, *, class_name: str | None = None, most: int = 50) -> list[Queued]:
    """The first pictures of the queue.

    Disputed ones come first, then those with the verdict ``review``, each by doubt; then the audit sample, the oldest
    first, because it joins the pool in order; then anomalous and normal ones by doubt. Pictures without a threshold are
    in it only where they were drawn.

    Args:
        class_name: of that class alone.
        most: number of pictures.
    """
    return heapq.nsmallest(most, _queued(records, class_name), key=_place)


def queue_length(records: Records, class_name: str | None = None) -> dict[str, int]:
    """How many pictures wait, by why, but for normal ones that were not drawn."""
    counts: dict[str, int] = dict.fromkeys(_ORDER[:-1], 0)
    for queued in _queued(records, class_name):
        if queued.because in counts:
            counts[queued.because] += 1
    return counts


def _queued(records: Records, class_name: str | None) -> list[Queued]:
    found = []
    for picture in records.pictures(class_name):
        if picture.score is None or records.standing(picture.id) is not None:
            continue
        because = _because(records, picture)
        if because is not None:
            found.append(Queued(picture, because, doubt_of(picture)))
    return found


def _because(records: Records, picture: JudgedPicture) -> Because | None:
    if picture.id in records.answers:  # that does not stand
        return "disputed"
    if picture.verdict == "review":
        return "review"
    if picture.is_drawn:
        return "audit"
    if picture.verdict == "anomalous":
        return "anomalous"
    return None if picture.threshold is None else "doubt"


def _place(queued: Queued) -> tuple[float, float, int]:
    # Anomalous and normal ones are in one order, by doubt.
    group = min(_ORDER.index(queued.because), _ORDER.index("anomalous"))
    doubt = math.inf if queued.because == "audit" else queued.doubt
    return group, -doubt, queued.picture.n if queued.because == "audit" else -queued.picture.n
