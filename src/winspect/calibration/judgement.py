"""Judgements: the only place where a result becomes a verdict, a p-value and defects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from winspect.calibration.regions import RegionRule
from winspect.errors import SettingsError
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range

if TYPE_CHECKING:
    from winspect.calibration.calibration import Calibration
    from winspect.calibration.defects import Defects
    from winspect.methods.result import Result

Verdict = Literal["normal", "anomalous"]
Boxes = Literal["none", "anomalous", "all"]


def verdict_of(score: float, threshold: float, *, anomalous_at: bool) -> Verdict:
    """The verdict on a score; more is more anomalous.

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
        example = (low + high) / 2 if math.isfinite(high) else low + 1
        up_to = f"run from {low:g} to {high:g}" if math.isfinite(high) else f"are {low:g} or more"
        raise SettingsError(f"{name}: got {threshold}, need a score such as {example:g}: scores of this recipe {up_to}")


@dataclass(frozen=True)
class ProductRevision:
    """The product that a verdict is of, as rows have it.

    Attributes:
        name: of the product.
        revision: from 1; it rises with each recorded change.
    """

    name: str
    revision: int


@dataclass(frozen=True)
class Judgement:
    """A result and what was decided on it. Two are equal when they decide the same.

    Attributes:
        result: of the model.
        verdict: None where there is no score, or no threshold.
        threshold: what the score was compared with; None without one.
        p_value: 1/(n+1) to 1, small is anomalous; None without a calibration, and where there is no score.
        is_calibrated: whether a calibration was asked.
        defects: regions of defects; None where none were looked for, or there is no map.
        product: whose rule decided; None for no product's.
    """

    result: Result = field(compare=False, repr=False)
    verdict: Verdict | None
    threshold: float | None
    p_value: float | None
    is_calibrated: bool = field(default=False, repr=False)
    defects: Defects | None = field(default=None, compare=False, repr=False)
    product: ProductRevision | None = None

    @property
    def boxes(self) -> list[list[int]] | None:
        """x0, y0, x1, y1 in pixels of each defect, the last two exclusive; None where none were looked for."""
        return None if self.defects is None else [list(box) for box in self.defects.boxes]


@dataclass(frozen=True)
class DecisionRule:
    """What decides on results.

    Attributes:
        threshold: replaces the calibration's; None for that one, or for no verdicts.
        calibration: gives p-values, and verdicts where there is no ``threshold``: anomalous is what lies above its own.
        regions: which defects are looked for; None for none.
        anomalous_at: whether a score at ``threshold`` is anomalous, or only what lies above it.
        product: whose rule this is; None for no product's.
    """

    threshold: float | None = None
    calibration: Calibration | None = None
    regions: RegionRule | None = None
    anomalous_at: bool = True
    product: ProductRevision | None = None

    def decide(self, result: Result) -> Judgement:
        """Decide on a result. That the model is the calibration's is :meth:`Calibration.check_model`'s to check.

        Raises:
            SettingsError: the calibration is for another class.
        """
        verdicts, score = self.verdicts_only(), result.anomaly_score
        verdict = p_value = defects = None
        if self.calibration is not None:
            _check_class(self.calibration, result)
            p_value = None if score is None else self.calibration.p_value(score)
        if score is not None and verdicts.threshold is not None:
            verdict = verdict_of(score, verdicts.threshold, anomalous_at=verdicts.anomalous_at)
        if self.regions is not None:
            defects = self.regions.find(result, verdict)
        return Judgement(
            result, verdict, verdicts.threshold, p_value, self.calibration is not None, defects, self.product
        )

    def verdicts_only(self) -> DecisionRule:
        """The rule of the same verdicts without p-values and defects: small enough to travel with each picture."""
        if self.threshold is None and self.calibration is not None:
            return DecisionRule(self.calibration.threshold, anomalous_at=False)
        return DecisionRule(self.threshold, anomalous_at=self.anomalous_at)

    def heat_range(
        self, good_levels: Callable[[], Sequence[float]], limits: ScoreRange = UNIT_RANGE
    ) -> ScoreRange | None:
        """The scores at which the colours of heat maps start and are strongest, for a whole run.

        Args:
            good_levels: gives the largest map values of good samples (see :meth:`Predictor.good_levels`). Called only
                where no calibration with maps says what good pictures reach.
            limits: the method's range; see :func:`winspect.pictures.heatmaps.run_range`.
        """
        threshold = None if self.regions is None else self.regions.pixel_threshold
        if self.calibration is None or self.calibration.map_maxima is None:
            return run_range(good_levels(), threshold, limits)
        threshold = self.calibration.pixel_threshold if threshold is None else threshold
        return run_range(self.calibration.map_maxima, threshold, limits)

    def document(self) -> dict[str, Any]:
        """What decides, as ``run.json`` has it."""
        calibration = self.calibration and {
            "made": self.calibration.date,
            "max_false_alarms": self.calibration.max_false_alarms,
            "threshold": self.calibration.threshold,
            "pixel_threshold": self.calibration.pixel_threshold,
        }
        boxes = None if self.regions is None else asdict(self.regions)
        product = {} if self.product is None else {"product": asdict(self.product)}
        return {"threshold": self.threshold, "calibration": calibration, "boxes": boxes, **product}


def _check_class(calibration: Calibration, result: Result) -> None:
    if class_key(result.category_name) != class_key(calibration.class_name):
        raise SettingsError(
            f"{result.path}: scored as {result.category_name!r}, but the calibration is for {calibration.class_name!r}"
        )


def chosen_regions(
    boxes: Boxes | None, pixel_threshold: float | None, min_area: float | None, calibrated: RegionRule | None
) -> RegionRule | None:
    """Which defects are looked for: what somebody chose, completed by a calibration's rule; None for none.

    Args:
        boxes: which pictures get boxes; None for ``anomalous`` where something says which pixels are defects.
        pixel_threshold, min_area: as of :class:`RegionRule`; None for the calibration's, and the default.
        calibrated: :attr:`Calibration.regions`, if there is a calibration.

    Raises:
        SettingsError: a value out of range.
    """
    if pixel_threshold is None and calibrated is not None:
        pixel_threshold = calibrated.pixel_threshold
    if boxes == "none" or (boxes is None and pixel_threshold is None):
        return None
    return RegionRule(pixel_threshold, min_area, boxes or "anomalous")
