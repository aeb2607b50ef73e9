"""The options that say what is inspected and what decides: for predict, watch and batch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import DEFAULT_CLASS, check_recipe, given, load_predictor, roi_of
from winspect.cli.options import add_options
from winspect.cli.product_options import mark_of, section_of
from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.calibration import Calibration, DecisionRule, Rules, Verdicts
    from winspect.drift import DriftSettings
    from winspect.feedback import FeedbackSettings
    from winspect.inspector.base import Predictor
    from winspect.pictures.heatmaps import ScoreRange
    from winspect.pictures.roi import Roi


def add_decision_options(parser: argparse.ArgumentParser, **helps: str) -> None:
    """Add the class, good samples, what decides, and which defects get boxes."""
    scored = ("--product", "--class", "--reference", "--shots", "--threshold", "--calibration")
    verdicts = ("--review", "--review-threshold", "--rules")
    add_options(parser, *scored, *verdicts, "--stretch", "--boxes", "--pixel-threshold", "--min-area", **helps)


def check_decision_options(
    args: argparse.Namespace, calibration: Calibration | None = None, *, alone_in: str | None = None
) -> None:
    """Refuse what is wrong whatever the model is: thresholds that scores never cross, a recipe that cannot do this.

    Args:
        calibration, alone_in: see :func:`winspect.cli.common.check_recipe`.
    """
    scored_as = args.category_name or DEFAULT_CLASS
    if (method := check_recipe(args, calibration, alone_in=alone_in, scored_as=scored_as)) is not None:
        _check_thresholds(args, method.score_range)
    if args.boxes == "none" and (args.pixel_threshold is not None or args.min_area is not None):
        raise SettingsError("got --boxes none beside --pixel-threshold or --min-area: leave one of them out")
    verdicts_of(args)
    if args.bundle is None or calibration is not None:  # a bundle's own calibration is known only later
        rule_of(args, calibration)


def _check_thresholds(args: argparse.Namespace, score_range: tuple[float, float]) -> None:
    from winspect.calibration.judgement import check_threshold

    check_threshold(args.threshold, score_range, "--threshold")
    check_threshold(args.review_threshold, score_range, "--review-threshold")
    check_threshold(args.pixel_threshold, score_range, "--pixel-threshold")


def load_calibration(args: argparse.Namespace) -> Calibration | None:
    """The calibration asked for. Its class is the class of a verb that has one, where none is named."""
    if args.calibration is None:
        return None
    from winspect.calibration import Calibration

    calibration = Calibration.load(args.calibration)
    if getattr(args, "category_name", None) is None:
        args.category_name = calibration.class_name
    return calibration


def rule_of(args: argparse.Namespace, calibration: Calibration | None, roi: Roi | None = None) -> DecisionRule:
    """What decides by the options.

    Args:
        roi: of the model; None for that of the options.

    Raises:
        SettingsError: a value out of range.
    """
    from winspect.calibration.judgement import DecisionRule, chosen_regions, needs_defects

    calibrated = None if calibration is None else calibration.regions
    verdicts, rules = verdicts_of(args)
    roi = roi_of(args) if roi is None else roi
    decides = calibration is not None or verdicts.threshold is not None
    ruled = bool(rules) or (decides and needs_defects(verdicts, rules, roi))
    if verdicts.review is not None and calibration is None:
        raise SettingsError(
            "--review needs --calibration FILE, whose scores keep the rate; beside --threshold use --review-threshold"
        )
    regions = chosen_regions(args.boxes, args.pixel_threshold, args.min_area, calibrated, ruled=ruled)
    return DecisionRule(
        verdicts.threshold, calibration, regions, verdicts=verdicts, rules=rules, roi=roi, product=mark_of(args)
    )


def verdicts_of(args: argparse.Namespace) -> tuple[Verdicts, Rules]:
    """Levels of the verdict and rules, by ``--rules`` and the options beside it; a threshold becomes ``args``'s.

    Raises:
        SettingsError: they contradict each other, or a value is out of range.
    """
    from winspect.calibration.rules_file import chosen_verdicts

    levels = {"review": args.review, "threshold": args.threshold, "review_threshold": args.review_threshold}
    verdicts, rules = chosen_verdicts(args.rules, **levels, names=("--review", "--threshold", "--review-threshold"))
    args.threshold = verdicts.threshold
    return verdicts, rules


def check_regions(args: argparse.Namespace, calibration: Calibration | None) -> None:
    """Refuse boxes where nothing says which pictures, or which pixels, are anomalous."""
    decides = calibration is not None or verdicts_of(args)[0].threshold is not None
    pixels = args.pixel_threshold is not None or (calibration is not None and calibration.pixel_threshold is not None)
    if args.boxes == "anomalous" and not (decides or pixels):
        raise SettingsError("--boxes anomalous needs --threshold, --calibration or --pixel-threshold: they say what is")
    if (args.boxes == "all" or args.min_area is not None) and not pixels:
        option = "--boxes all" if args.boxes == "all" else "--min-area"
        raise SettingsError(
            f"{option} needs --pixel-threshold, or a --calibration made with maps (without --scores-only): they say "
            "which pixels are defects"
        )


def drift_settings(args: argparse.Namespace) -> DriftSettings | None:
    """What the drift alarm watches by the options, or by the settings of a product in their place; None for nothing.

    Raises:
        SettingsError: no probability.
    """
    if getattr(args, "drift", None) is None:
        return None
    from winspect.drift import DriftSettings

    if isinstance(args.drift, DriftSettings):
        return args.drift
    try:
        return DriftSettings(rate=args.drift)
    except SettingsError as error:
        raise SettingsError(f"--drift: {error}") from error


def feedback_settings(args: argparse.Namespace) -> FeedbackSettings:
    """How feedback is taken by the options.

    Raises:
        SettingsError: no share.
    """
    if (section := section_of(args, "feedback")) is not None:
        return section
    from winspect.feedback import FeedbackSettings

    try:
        return FeedbackSettings(**given(args, "audit_rate"))
    except SettingsError as error:
        raise SettingsError(f"--audit-rate: {error}") from error


@dataclass(frozen=True)
class Inspection:
    """What a run inspects with.

    Attributes:
        model: knows its good samples; :meth:`Predictor.prepare_engine` is the caller's.
        rule: decides on its results.
        class_option: the class, as an argument of the model's methods; empty where none was named.
        references: the good samples that the model was given.
    """

    model: Predictor
    rule: DecisionRule
    class_option: dict[str, Any]
    references: list[Path]

    def heat_range(self) -> ScoreRange | None:
        """The scale of the run's heat maps; None for one of each map's own."""
        good_levels = partial(self.model.good_levels, **self.class_option)
        return self.rule.heat_range(good_levels, self.model.method.score_range)

    def document(self) -> dict[str, Any]:
        """What scores and decides, for ``run.json``."""
        samples = self.model.references_of(**self.class_option)
        return {
            **self.model.describe(),
            "class": self.class_option.get("category_name"),
            "references": [str(path) for path in self.references],
            "references_sha256": sorted(sample.sha256 or sample.path for sample in samples),
            **self.rule.document(),
        }


def load_inspection(args: argparse.Namespace, references: list[Path], calibration: Calibration | None) -> Inspection:
    """Load the model, let it learn the good samples, and check that the calibration is the model's.

    A bundle says more than a model: its only class is the class, where none is named, and has its calibration.
    """
    model = load_predictor(args, calibration)
    _check_thresholds(args, model.method.score_range)  # a bundle's recipe is known only now
    calibration = calibration or _bundled(args, model)
    class_option = {} if args.category_name is None else {"category_name": args.category_name}
    if references:
        references = references[: model.reference(references, **class_option, shots=args.shots, progress=True)]
    model.prepare_class(**class_option)
    if calibration is not None:
        calibration.check_model(model, args.category_name)
    check_regions(args, calibration)
    return Inspection(model, rule_of(args, calibration, model.roi), class_option, references)


def _bundled(args: argparse.Namespace, model: Predictor) -> Calibration | None:
    from winspect.inspector.edge import EdgePredictor

    if not isinstance(model, EdgePredictor):
        return None
    if args.category_name is None and len(model.classes) == 1:
        (args.category_name,) = model.classes
    if args.category_name is None:
        raise SettingsError(f"--class: name one of the bundle's classes, {', '.join(model.classes)}")
    # With other good samples than the bundle's, or a given threshold, its calibration decides nothing.
    is_replaced = args.reference or args.threshold is not None
    return None if is_replaced else model.calibration(args.category_name)


def in_words(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """A row as the line for stdout (score, verdict, p-value, path, reason), and the message for stderr, or None."""
    if row["error"]:
        return None, f"failed: {row['error']['message']}"
    verdict = "" if row["verdict"] is None else f"  {row['verdict']:9}"
    verdict += f"  p {row['p_value']:.4f}" if "p_value" in row else ""
    reason = f"  ({row['reason']})" if row.get("reason") else ""
    warning = row["warning"] and f"warning: {row['path']}: {row['warning']}"
    return f"{row['anomaly_score']:.4f}{verdict}  {row['path']}{reason}", warning
