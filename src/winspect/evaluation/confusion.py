"""Verdicts of a category at a threshold: a calibration's, or the one of the largest F1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.evaluation.compare_scores import best_threshold

if TYPE_CHECKING:
    from winspect.calibration import Calibration


@dataclass(frozen=True)
class Confusion:
    """Counts of pictures.

    Attributes:
        threshold: of the scores. ``max_false_alarms``: the rate it was calibrated for; None for the threshold of the
            largest F1, which was chosen on these very pictures.
        found, missed: defective pictures with the verdict anomalous, and normal.
        false_alarms, passed: normal pictures with the verdict anomalous, and normal.
        review: the rate of the calibration for ``review``; None for two verdicts.
        found_to_review, alarms_to_review: defective and normal pictures with the verdict review.
    """

    threshold: float
    max_false_alarms: float | None
    found: int
    missed: int
    false_alarms: int
    passed: int
    review: float | None = None
    found_to_review: int = 0
    alarms_to_review: int = 0


def confusion(rows: Iterable[Mapping[str, Any]], calibration: Calibration | None = None) -> Confusion | None:
    """Count the verdicts of a category.

    Args:
        rows: label and score of each picture; those without a score are passed over.
        calibration: of these scores: anomalous is what lies above its threshold. None for the threshold of the largest
            F1, from which on a score is anomalous.

    Returns:
        The counts; None without a calibration where the pictures are not of both kinds.

    >>> rows = [("normal", 0.1), ("normal", 0.4), ("anomalous", 0.3), ("anomalous", 0.9), ("normal", None)]
    >>> confusion([{"label": label, "score": score} for label, score in rows])
    Confusion(threshold=0.3, max_false_alarms=None, found=2, missed=0, false_alarms=1, passed=1, review=None, \
found_to_review=0, alarms_to_review=0)
    """
    scored = [row for row in rows if row["score"] is not None]
    scores = np.array([row["score"] for row in scored], np.float64)
    defective = np.array([row["label"] == "anomalous" for row in scored], bool)
    threshold = best_threshold(scores, defective) if calibration is None else calibration.threshold
    if threshold is None:
        return None
    flagged = scores >= threshold if calibration is None else scores > threshold
    level = None if calibration is None else calibration.review_threshold
    doubtful = np.zeros(len(scores), bool) if level is None else (scores > level) & ~flagged
    counts = {
        name: int((kind & verdict).sum())
        for name, kind, verdict in (
            ("found", defective, flagged),
            ("missed", defective, ~flagged & ~doubtful),
            ("false_alarms", ~defective, flagged),
            ("passed", ~defective, ~flagged & ~doubtful),
            ("found_to_review", defective, doubtful),
            ("alarms_to_review", ~defective, doubtful),
        )
    }
    return Confusion(
        threshold=threshold,
        max_false_alarms=None if calibration is None else calibration.max_false_alarms,
        review=None if calibration is None else calibration.review,
        **counts,
    )
