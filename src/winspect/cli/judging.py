"""What verbs that judge have in common: the class, good samples, what decides, and a result as a line."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import check_shots, load_predictor
from winspect.cli.options import add_options
from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.calibration import Calibration, RegionRule
    from winspect.inspector.base import Predictor
    from winspect.pictures.heatmaps import ScoreRange


def add_judging_options(parser: argparse.ArgumentParser, **helps: str) -> None:
    """Add the class, good samples, what decides, and which defects get boxes."""
    what = ("--class", "--reference", "--shots", "--threshold", "--calibration")
    boxes = ("--stretch", "--boxes", "--pixel-threshold", "--min-area")
    add_options(parser, *what, *boxes, **helps)


def check_judging_options(args: argparse.Namespace) -> None:
    """Refuse a threshold that the recipe's scores never cross, and shots of nothing."""
    check_shots(args)
    if args.threshold is not None:
        from winspect.calibration.verdict import check_threshold
        from winspect.methods.winclip.recipes import get_recipe

        check_threshold(args.threshold, get_recipe(args.recipe or "paper").score_range, "--threshold")
    region_rule(args, None)


def load_calibration(args: argparse.Namespace) -> Calibration | None:
    """The calibration asked for. Its class is the class, where none is named."""
    if args.calibration is None:
        return None
    from winspect.calibration import Calibration

    calibration = Calibration.load(args.calibration)
    if args.category_name is None:
        args.category_name = calibration.class_name
    return calibration


def load_judge(
    args: argparse.Namespace, references: list[Path], calibration: Calibration | None
) -> tuple[Predictor, list[Path], Calibration | None]:
    """The model, ready to judge the class; the good samples it was shown; and what decides.

    A bundle says more than a model: its only class is the class, where none is named, and has its calibration.
    """
    from winspect.calibration.verdict import check_threshold

    model = load_predictor(args, calibration)
    check_threshold(args.threshold, model.recipe.score_range, "--threshold")  # a bundle's recipe is known only now
    calibration = calibration or _bundled(args, model)
    if references:
        references = references[: model.reference(references, **category_of(args), shots=args.shots, progress=True)]
    model.prepare_class(**category_of(args))
    if calibration is not None:
        calibration.check_model(model, args.category_name)
    check_regions(args, calibration)
    return model, references, calibration


def _bundled(args: argparse.Namespace, model: Predictor) -> Calibration | None:
    from winspect.inspector.edge import EdgePredictor

    if not isinstance(model, EdgePredictor):
        return None
    if args.category_name is None and len(model.classes) == 1:
        (args.category_name,) = model.classes
    if args.category_name is None:
        raise SettingsError(f"--class: name one of the bundle's classes, {', '.join(model.classes)}")
    # With other good samples than the bundle's, or an own threshold, its calibration decides nothing.
    own = args.reference or args.threshold is not None
    return None if own else model.calibration(args.category_name)


def category_of(args: argparse.Namespace) -> dict[str, Any]:
    """The class as an argument of the model's methods; nothing where none was named."""
    return {} if args.category_name is None else {"category_name": args.category_name}


def region_rule(args: argparse.Namespace, calibration: Calibration | None) -> RegionRule | None:
    """Which defects get boxes; None for none: nothing says where a defect begins, or they are not asked for.

    Raises:
        SettingsError: options that do not fit together, or a value out of range.
    """
    from winspect.calibration.judgement import chosen_regions
    from winspect.calibration.verdict import check_threshold
    from winspect.methods.winclip.recipes import get_recipe

    check_threshold(args.pixel_threshold, get_recipe(args.recipe or "paper").score_range, "--pixel-threshold")
    if args.boxes == "none" and (args.pixel_threshold is not None or args.min_area is not None):
        raise SettingsError("got --boxes none beside --pixel-threshold or --min-area: leave one of them out")
    calibrated = None if calibration is None else calibration.regions
    return chosen_regions(args.boxes, args.pixel_threshold, args.min_area, calibrated)


def heat_range_of(args: argparse.Namespace, model: Predictor, calibration: Calibration | None) -> ScoreRange | None:
    """The scale of the run's heat maps; None for stretched ones."""
    from winspect.pictures.heatmaps import run_range

    if args.stretch:
        return None
    threshold = args.pixel_threshold
    if calibration is not None and calibration.map_maxima is not None:
        return run_range(calibration.map_maxima, calibration.pixel_threshold if threshold is None else threshold)
    return run_range(model.good_levels(**category_of(args)), threshold)


def check_regions(args: argparse.Namespace, calibration: Calibration | None) -> None:
    """Refuse boxes where nothing says which pictures, or which pixels, are anomalous."""
    decides = calibration is not None or args.threshold is not None
    pixels = args.pixel_threshold is not None or (calibration is not None and calibration.pixel_threshold is not None)
    if args.boxes == "anomalous" and not (decides or pixels):
        raise SettingsError("--boxes anomalous needs --threshold, --calibration or --pixel-threshold: they say what is")
    if (args.boxes == "all" or args.min_area is not None) and not pixels:
        option = "--boxes all" if args.boxes == "all" else "--min-area"
        raise SettingsError(
            f"{option} needs --pixel-threshold, or a --calibration made with maps (without --scores-only): they say "
            "which pixels are defects"
        )


def describe_run(
    args: argparse.Namespace, model: Predictor, references: list[Path], calibration: Calibration | None
) -> dict[str, Any]:
    """What judges and decides, for ``run.json``."""
    return {
        **model.describe(),
        "class": args.category_name,
        "references": [str(path) for path in references],
        "references_sha256": sorted(shown.sha256 or shown.path for shown in model.references_of(**category_of(args))),
        "threshold": args.threshold,
        "calibration": calibration
        and {
            "made": calibration.date,
            "max_false_alarms": calibration.max_false_alarms,
            "threshold": calibration.threshold,
            "pixel_threshold": calibration.pixel_threshold,
        },
        "boxes": (rule := region_rule(args, calibration)) and asdict(rule),
    }


def line_of(row: dict[str, Any]) -> str:
    """The row of a picture that was judged, in words: score, verdict, p-value, path."""
    verdict = "" if row["verdict"] is None else f"  {row['verdict']:9}"
    verdict += f"  p {row['p_value']:.4f}" if "p_value" in row else ""
    return f"{row['anomaly_score']:.4f}{verdict}  {row['path']}"
