"""The verdict rule: the only place where a score is compared with a threshold, and thresholds are checked."""

from __future__ import annotations

import math
from typing import Literal

from winspect.errors import SettingsError

Verdict = Literal["normal", "anomalous"]


def verdict_of(score: float, threshold: float, *, anomalous_at: bool) -> Verdict:
    """The verdict on a score; 1 is most anomalous.

    Only a comparison that holds makes a picture normal: where score or threshold is not a number it is anomalous.

    Args:
        anomalous_at: whether the threshold itself is anomalous (``--threshold``), or only what lies above it
            (calibrations).

    >>> verdict_of(0.5, 0.5, anomalous_at=True), verdict_of(0.5, 0.5, anomalous_at=False)
    ('anomalous', 'normal')
    >>> verdict_of(float("nan"), 0.5, anomalous_at=False)
    'anomalous'
    """
    is_normal = score < threshold if anomalous_at else score <= threshold
    return "normal" if is_normal else "anomalous"


def check_threshold(threshold: float | None, score_range: tuple[float, float], name: str = "threshold") -> None:
    """Refuse a threshold that no score of a recipe can lie on both sides of.

    Args:
        threshold: None for no threshold.
        score_range: lowest and highest score; see :attr:`winspect.methods.winclip.recipes.Recipe.score_range`.
        name: of the option, for the error.

    Raises:
        SettingsError: not a number, or outside the range.
    """
    if threshold is None:
        return
    low, high = score_range
    if not (isinstance(threshold, int | float) and math.isfinite(threshold) and low <= threshold <= high):
        raise SettingsError(
            f"{name}: got {threshold}, need a score such as {(low + high) / 2:g}: scores of this recipe run from "
            f"{low:g} to {high:g}"
        )
