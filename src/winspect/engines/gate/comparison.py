"""Compares a precision's scores with those of fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from winspect.metrics import auroc


@dataclass(frozen=True)
class Bar:
    """Limits that a precision must keep.

    Attributes:
        auroc_drop: image AUROC it may lose against fp32 on the gate's pictures, at most.
        correlation: Pearson's correlation with fp32, of scores and of map values, at least.
    """

    auroc_drop: float
    correlation: float


BARS: Mapping[str, Bar] = MappingProxyType(
    {"bf16": Bar(auroc_drop=0.003, correlation=0.99), "int8": Bar(auroc_drop=0.005, correlation=0.99)}
)


@dataclass(frozen=True)
class GateScores:
    """Scores and maps of the gate's pictures.

    Attributes:
        scores: float (pictures,).
        maps: float (pictures, rows, columns).
    """

    scores: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True)
class GateResult:
    """How a precision did.

    Attributes:
        precision: which.
        pictures: how many were scored.
        score_correlation, map_correlation: with fp32, -1 to 1.
        image_auroc, image_auroc_fp32: on the gate's pictures, 0 to 1.
        reasons: why it did not pass; empty where it did.
    """

    precision: str
    pictures: int
    score_correlation: float
    map_correlation: float
    image_auroc: float
    image_auroc_fp32: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        return not self.reasons

    def describe(self) -> dict[str, Any]:
        """For results files."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"{self.precision} against fp32 on {self.pictures} pictures: "
            f"scores correlate {self.score_correlation:.4f}, maps {self.map_correlation:.4f}, "
            f"image AUROC {self.image_auroc:.4f} (fp32 {self.image_auroc_fp32:.4f})"
        )


def compare(precision: str, fp32: GateScores, candidate: GateScores, labels: np.ndarray) -> GateResult:
    """Check a precision's scores against fp32's.

    Args:
        labels: bool (pictures,), true has a defect; both kinds among them.
    """
    bar = BARS[precision]
    scores, maps = (
        correlation(getattr(fp32, name).ravel(), getattr(candidate, name).ravel()) for name in ("scores", "maps")
    )
    before, after = auroc(fp32.scores, labels), auroc(np.nan_to_num(candidate.scores), labels)
    if before is None or after is None:
        raise ValueError("the gate needs good and defective pictures")
    reasons = [
        f"{name} correlate {value:.4f} with fp32's, need {bar.correlation}"
        for name, value in (("scores", scores), ("maps", maps))
        if not value >= bar.correlation
    ]
    if before - after > bar.auroc_drop:
        reasons.append(f"image AUROC falls from {before:.4f} to {after:.4f}, by more than {bar.auroc_drop}")
    return GateResult(precision, len(labels), scores, maps, after, before, tuple(reasons))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation, -1 to 1; 0 where a side is constant or not finite."""
    first, second = first - first.mean(dtype=np.float64), second - second.mean(dtype=np.float64)
    spread = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / spread) if np.isfinite(spread) and spread > 0 else 0.0
