"""What verbs that judge have in common: the class, good samples, what decides, and a result as a line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import check_shots, load_predictor
from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.predicting import Predictor
    from winspect.thresholds import Calibration


def add_judging_options(parser: argparse.ArgumentParser, *, calibration_help: str) -> None:
    """``--class``, ``--reference``, ``--shots``, ``--threshold`` and ``--calibration``."""
    parser.add_argument(
        "--class",
        dest="category_name",
        metavar="NAME",
        help="what the part is called (default: the calibration's class, or object)",
    )
    parser.add_argument("--reference", nargs="+", metavar="DIR|FILE", help="good samples: judge few-shot")
    parser.add_argument("--shots", type=int, metavar="K", help="use the first K good samples (default: all)")
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="scores from here on are anomalous")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help=calibration_help)


def check_judging_options(args: argparse.Namespace) -> None:
    """Refuse a threshold that the recipe's scores never cross, and shots of nothing."""
    check_shots(args)
    if args.threshold is not None:
        from winspect.recipes import get_recipe
        from winspect.thresholds.verdict import check_threshold

        check_threshold(args.threshold, get_recipe(args.recipe or "paper").score_range, "--threshold")


def load_calibration(args: argparse.Namespace) -> Calibration | None:
    """The calibration asked for. Its class is the class, where none is named."""
    if args.calibration is None:
        return None
    from winspect.thresholds import Calibration

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
    from winspect.thresholds.verdict import check_threshold

    model = load_predictor(args, calibration)
    check_threshold(args.threshold, model.recipe.score_range, "--threshold")  # a bundle's recipe is known only now
    calibration = calibration or _bundled(args, model)
    if references:
        references = references[: model.reference(references, **category_of(args), shots=args.shots)]
    model.prepare_class(**category_of(args))
    if calibration is not None:
        calibration.check_model(model, args.category_name)
    return model, references, calibration


def _bundled(args: argparse.Namespace, model: Predictor) -> Calibration | None:
    from winspect.edge import EdgePredictor

    if not isinstance(model, EdgePredictor):
        return None
    if args.category_name is None and len(model.classes) == 1:
        (args.category_name,) = model.classes
    if args.category_name is None:
        raise SettingsError(f"--class: name one of the bundle's classes, {', '.join(model.classes)}")
    # With other good samples than the bundle's, or an own threshold, its calibration decides nothing.
    own = args.reference or args.threshold is not None
    return None if own else model.calibration(args.category_name)


def category_of(args: argparse.Namespace) -> dict[str, str]:
    """The class as an argument of the model's methods; nothing where none was named."""
    return {} if args.category_name is None else {"category_name": args.category_name}


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
    }


def line_of(row: dict[str, Any]) -> str:
    """The row of a picture that was judged, in words: score, verdict, p-value, path."""
    verdict = "" if row["verdict"] is None else f"  {row['verdict']:9}"
    verdict += f"  p {row['p_value']:.4f}" if "p_value" in row else ""
    return f"{row['anomaly_score']:.4f}{verdict}  {row['path']}"
