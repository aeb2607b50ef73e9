"""Judgements: the only place where a result becomes a verdict, a p-value and defects.

The score comes first: above the threshold a picture is ``anomalous``, above that of review it is ``review``, else
``normal``. Then each defect takes the verdict of the first rule it meets (:mod:`winspect.calibration.rules`), or else
the score's, and the picture the gravest of its defects; with all of them ignored it is ``normal``. A picture that was
not aligned is never ``normal``: it is at least ``review``.

The promise of a calibration, for new good pictures of the same line: at most ``max_false_alarms`` of them are
``anomalous``, and at most the rate of review are ``review`` or ``anomalous``.

* Two levels of one calibration are two conformal thresholds on the same scores; each keeps its rate.
* A rule without ``raises`` never makes a picture graver than its score does: what it changes only lowers both rates.
* Rules that raise look at defects whose peak lies above the pixel threshold. Of good pictures at most the rate of that
  threshold has any such place, whatever rules say of it. So they take half of ``max_false_alarms``: one half finds the
  pixel threshold, the other the threshold of scores, and by the union bound their sum is kept.
* An area of the region of interest with a rate of its own has the conformal threshold of that rate, found on the
  largest map value of each good picture in it. Its rate, too, is taken from ``max_false_alarms``.
* Thresholds that somebody chose (of scores, of pixels, of an area) are outside the promise, and so are pictures that
  were not aligned.

An area with a threshold of its own decides on itself: above it a picture is ``anomalous`` whatever rules say, and a
defect whose highest place lies in it and not above it is ignored, unless it has met a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from winspect.calibration.areas import AreaLevel, area_names, chosen_levels, with_levels
from winspect.calibration.conformal import check_rate, conformal_threshold
from winspect.calibration.regions import RegionRule
from winspect.calibration.rules import Rules, check_part
from winspect.calibration.ruling import only, rule_on
from winspect.calibration.verdicts import Verdict, Verdicts, check_above
from winspect.errors import SettingsError
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, run_range

if TYPE_CHECKING:
    from winspect.calibration.calibration import Calibration
    from winspect.calibration.defects import Defects
    from winspect.methods.result import Result
    from winspect.pictures.roi import Roi

Boxes = Literal["none", "anomalous", "all"]


def verdict_of(score: float, threshold: float, *, anomalous_at: bool, review: float | None = None) -> Verdict:
    """The verdict on a score; more is more anomalous.

    Only a comparison that holds makes a picture normal: where score or threshold is not a number it is anomalous.

    Args:
        anomalous_at: whether the threshold itself is anomalous (``--threshold``), or only what lies above it
            (calibrations). The same holds for ``review``.
        review: where review begins, not above ``threshold``; None for two verdicts.

    >>> verdict_of(0.5, 0.5, anomalous_at=True), verdict_of(0.5, 0.5, anomalous_at=False)
    ('anomalous', 'normal')
    >>> verdict_of(0.45, 0.5, anomalous_at=False, review=0.4)
    'review'
    >>> verdict_of(float("nan"), 0.5, anomalous_at=False)
    'anomalous'
    """

    def is_below(level: float) -> bool:
        return score < level if anomalous_at else score <= level

    if not is_below(threshold):
        return "anomalous"
    return "normal" if review is None or is_below(review) else "review"


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
        review_threshold: the score above which ``review`` begins; None for two verdicts.
        reason: of a verdict, in words: ``region 2: area 14 mm2 > 5``; None for a normal picture without any, and where
            two thresholds alone decide.
        is_explained: whether a reason was looked for.
    """

    result: Result = field(compare=False, repr=False)
    verdict: Verdict | None
    threshold: float | None
    p_value: float | None
    is_calibrated: bool = field(default=False, repr=False)
    defects: Defects | None = field(default=None, compare=False, repr=False)
    product: ProductRevision | None = None
    review_threshold: float | None = field(default=None, repr=False)
    reason: str | None = None
    is_explained: bool = field(default=False, repr=False)

    @property
    def boxes(self) -> list[list[int]] | None:
        """x0, y0, x1, y1 in pixels of each defect, the last two exclusive; None where none were looked for."""
        return None if self.defects is None else [list(box) for box in self.defects.boxes]


@dataclass(frozen=True)
class Levels:
    """Scores at which verdicts begin; None for no verdicts, and for two of them."""

    anomalous: float | None = None
    review: float | None = None


@dataclass(frozen=True)
class DecisionRule:
    """What decides on results.

    Attributes:
        threshold: replaces the calibration's; None for that one, or for no verdicts.
        calibration: gives p-values, and verdicts where there is no ``threshold``: anomalous is what lies above its own.
        regions: which defects are looked for; None for none.
        anomalous_at: whether a score at ``threshold`` is anomalous, or only what lies above it.
        verdicts: where review begins, and the scale of lengths; its threshold is ``threshold``.
        rules: on defects.
        roi: region of interest, whose areas have names and thresholds; None for whole pictures.
        product: whose rule this is; None for no product's.

    Raises:
        SettingsError: a review rate without a calibration, or not above its own rate; rules that lack what they need.
    """

    threshold: float | None = None
    calibration: Calibration | None = None
    regions: RegionRule | None = None
    anomalous_at: bool = True
    verdicts: Verdicts = field(default_factory=Verdicts)
    rules: Rules = field(default_factory=Rules)
    roi: Roi | None = None
    product: ProductRevision | None = None

    def __post_init__(self) -> None:
        if self.threshold is None and self.verdicts.threshold is not None:
            object.__setattr__(self, "threshold", self.verdicts.threshold)
        if self.verdicts.review is not None:
            if self.calibration is None or self.threshold is not None:
                raise SettingsError(
                    f"review: got the rate {self.verdicts.review:g} without a calibration that keeps it; give one, or "
                    "scores: threshold and review_threshold"
                )
            check_above(self.verdicts.review, self.calibration.max_false_alarms)
        self._check_rules()

    def _check_rules(self) -> None:
        names = area_names(self.roi)
        self.rules.check(self.verdicts.mm_per_pixel, names)
        for name in self.verdicts.roi:
            check_part("verdict", name, names)
        if self.threshold is None and self.calibration is None:
            if self.rules or self.verdicts.roi:
                raise SettingsError("rules: need a calibration or a threshold: they decide on what no rule is met by")
            return
        if not needs_defects(self.verdicts, self.rules, self.roi):
            return
        if self.regions is None:
            raise SettingsError("rules: need the defects of pictures: leave out boxes none")
        if self.rules.raises and self.regions is not None and self.regions.pixel_threshold is None:
            raise SettingsError(
                "rules: raises needs a pixel threshold, or a calibration made with maps: defects of a normal picture "
                "are what lies above it"
            )
        _ = self.levels, self._regions, self.areas  # too few pictures for a share of the rate are an error now

    @property
    def levels(self) -> Levels:
        """Scores at which verdicts begin, by what was chosen or by the calibration."""
        if self.threshold is not None:
            return Levels(self.threshold, self.verdicts.review_threshold)
        if self.calibration is None:
            return Levels()
        rate, scores = check_rate(self.calibration.max_false_alarms), self.calibration.scores
        review = self.calibration.review if self.verdicts.review is None else self.verdicts.review
        taken = self._rate_of_areas + self._rate_of_rules
        level = None if review is None else conformal_threshold(scores, check_rate(review, "review") - taken)
        return Levels(conformal_threshold(scores, rate - taken), level)

    @property
    def areas(self) -> list[AreaLevel]:
        """Thresholds of areas' own: those that somebody chose, and those of a rate, by the calibration."""
        if self.threshold is None and self.calibration is None:
            return []
        return [
            *chosen_levels(self.roi),
            *(AreaLevel(name, self._area_threshold(name, rate)) for name, rate in self.verdicts.roi.items()),
        ]

    def _area_threshold(self, name: str, rate: float) -> float:
        calibration = self.calibration
        if calibration is None or self.threshold is not None:
            raise SettingsError(f"verdict: roi: {name}: got a rate without a calibration that keeps it; give one")
        if name not in calibration.area_maxima:
            raise SettingsError(
                f"verdict: roi: {name}: the calibration knows nothing of this area: calibrate again with this region "
                "of interest, and with maps"
            )
        return conformal_threshold(calibration.area_maxima[name], rate)

    @property
    def _rate_of_areas(self) -> Fraction:
        """The share of ``max_false_alarms`` that areas with rates of their own take."""
        taken = sum((check_rate(rate) for rate in self.verdicts.roi.values()), Fraction(0))
        if self.calibration is not None and taken >= check_rate(self.calibration.max_false_alarms):
            raise SettingsError(
                f"verdict: roi: got rates of {float(taken):g} together, need less than the calibration's "
                f"max_false_alarms ({self.calibration.max_false_alarms:g}), of which they are a part"
            )
        return taken

    @property
    def _rate_of_rules(self) -> Fraction:
        """The share of ``max_false_alarms`` that rules which raise take: half of what areas leave."""
        calibration, regions = self.calibration, self.regions
        if not self.rules.raises or calibration is None or regions is None:
            return Fraction(0)
        is_calibrated = regions.pixel_threshold == calibration.pixel_threshold
        left = check_rate(calibration.max_false_alarms) - self._rate_of_areas
        return left / 2 if is_calibrated else Fraction(0)

    @property
    def _regions(self) -> RegionRule | None:
        """Which defects rules are asked about: of all pictures, where they may raise a verdict."""
        if self.regions is None or not self.rules.raises:
            return self.regions
        pixel_threshold = self.regions.pixel_threshold
        if (rate := self._rate_of_rules) and self.calibration is not None and self.calibration.map_maxima is not None:
            pixel_threshold = conformal_threshold(self.calibration.map_maxima, rate)
        return replace(self.regions, pixel_threshold=pixel_threshold, pictures="all")

    @property
    def is_explained(self) -> bool:
        """Whether judgements have reasons: where there is more than one threshold."""
        return self.levels.review is not None or bool(self.rules) or bool(self.areas)

    def decide(self, result: Result) -> Judgement:
        """Decide on a result. That the model is the calibration's is :meth:`Calibration.check_model`'s to check.

        Raises:
            SettingsError: the calibration is for another class.
        """
        levels, score, regions = self.levels, result.anomaly_score, self._regions
        p_value = defects = reason = None
        if self.calibration is not None:
            check_class(self.calibration, result)
            p_value = None if score is None else self.calibration.p_value(score)
        verdict = self._verdict_of(score, levels)
        is_explained = self.is_explained or result.alignment is not None
        if verdict is not None and is_explained:
            verdict, reason, defects = self._explained(result, verdict, levels)
        elif regions is not None:
            defects = regions.find(result, verdict)
        return Judgement(
            result,
            verdict,
            levels.anomalous,
            p_value,
            self.calibration is not None,
            defects,
            product=self.product,
            review_threshold=levels.review,
            reason=reason,
            is_explained=is_explained,
        )

    def _verdict_of(self, score: float | None, levels: Levels) -> Verdict | None:
        if score is None or levels.anomalous is None:
            return None
        return verdict_of(score, levels.anomalous, anomalous_at=self._at, review=levels.review)

    @property
    def _at(self) -> bool:
        return self.anomalous_at and self.threshold is not None

    def _explained(
        self, result: Result, verdict: Verdict, levels: Levels
    ) -> tuple[Verdict, str | None, Defects | None]:
        """The verdict by score, rules, areas and alignment, its reason, and the defects that are left."""
        reason = None
        if verdict != "normal":
            level = levels.anomalous if verdict == "anomalous" else levels.review
            reason = f"score {result.anomaly_score:.4g} {'>=' if self._at else '>'} {level:.4g}"
        defects = None
        if (regions := self._regions) is not None and self.regions is not None:
            ruling = rule_on(result, verdict, regions, self.rules, self.verdicts.mm_per_pixel, self.areas, self.roi)
            verdict, reason, defects = ruling.verdict, ruling.reason or reason, ruling.defects
        if verdict == "normal" and result.alignment is not None and not result.alignment.aligned:
            verdict, reason = "review", f"not aligned: {result.alignment.reason}"
        if defects is not None and verdict == "normal" and self.regions is not None and self.regions.pictures != "all":
            defects = only(defects, ())
        return verdict, reason, defects

    def verdicts_only(self) -> DecisionRule:
        """The rule of the same verdicts without p-values: small enough to travel with each picture.

        It looks for defects only where rules ask about them.
        """
        levels, regions = self.levels, self._regions if self.rules or self.areas else None
        if regions is not None and self.regions is not None:
            regions = replace(regions, pictures=self.regions.pictures)
        review = levels.review if levels.review != levels.anomalous else None  # no score lies between
        verdicts = Verdicts(None, levels.anomalous, review, self.verdicts.mm_per_pixel)
        return DecisionRule(
            levels.anomalous,
            None,
            regions,
            self._at,
            verdicts=verdicts,
            rules=self.rules,
            roi=with_levels(self.roi, self.areas),
        )

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
        more: dict[str, Any] = {"verdict": self.verdicts.document(), "rules": self.rules.document()}
        more["areas"] = {level.name: level.threshold for level in self.areas}
        used = {name: value for name, value in more.items() if value and value != {"threshold": self.threshold}}
        return {"threshold": self.threshold, "calibration": calibration, "boxes": boxes, **used, **product}


def check_class(calibration: Calibration | None, result: Result) -> None:
    """Refuse a result of another class than the calibration's. Raises SettingsError."""
    if calibration is not None and class_key(result.category_name) != class_key(calibration.class_name):
        raise SettingsError(
            f"{result.path}: scored as {result.category_name!r}, but the calibration is for {calibration.class_name!r}"
        )


def needs_defects(verdicts: Verdicts, rules: Rules, roi: Roi | None) -> bool:
    """Whether verdicts depend on the defects of pictures, and not on their scores alone."""
    return bool(rules or verdicts.roi or chosen_levels(roi))


def chosen_regions(
    boxes: Boxes | None,
    pixel_threshold: float | None,
    min_area: float | None,
    calibrated: RegionRule | None,
    *,
    ruled: bool = False,
) -> RegionRule | None:
    """Which defects are looked for: what somebody chose, completed by a calibration's rule; None for none.

    Args:
        boxes: which pictures get boxes; None for ``anomalous`` where something says which pixels are defects.
        pixel_threshold, min_area: as of :class:`RegionRule`; None for the calibration's, and the default.
        calibrated: :attr:`Calibration.regions`, if there is a calibration.
        ruled: rules ask about defects: the region of the highest value is looked for even where nothing else is said.

    Raises:
        SettingsError: a value out of range.
    """
    if pixel_threshold is None and calibrated is not None:
        pixel_threshold = calibrated.pixel_threshold
    if boxes == "none" or (boxes is None and pixel_threshold is None and not ruled):
        return None
    return RegionRule(pixel_threshold, min_area, boxes or "anomalous")
