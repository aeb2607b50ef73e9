"""Find the threshold that keeps false alarms below a rate.

Score good pictures of a line and write the threshold above which a new good picture of it scores with a probability of
at most --max-false-alarms (docs/thresholds.md). For `winspect predict --calibration`.

exit codes: 0 done; 1 the held-out pictures contradict the calibration, which is not written; 2 usage error, as too few
pictures; 3 done, but some pictures could not be read (each named)
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import (
    DEFAULT_CLASS,
    Exit,
    check_recipe,
    given,
    good_samples,
    load_model,
    print_result,
    when_interrupted,
)
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.cli.product_options import use_product
from winspect.errors import OutputError, SettingsError
from winspect.system.files import make_folder
from winspect.system.terminal import say, show

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.product.document import Product

_DEFAULT_RATE = 0.01


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    normals = "good pictures: files, folders (searched recursively) and globs"
    add_option(parser, "normals", "NORMALS", normals, nargs="+")
    out = "the calibration to write (JSON; default with --product: NAME.calibration.json beside it)"
    add_option(parser, "--out", "FILE", out)
    rate = f"(default: {_DEFAULT_RATE}); a rate of 1/k needs k - 1 pictures"
    share = f"the share of good pictures that may be flagged, as in 0.05 or 5%% {rate}"
    add_option(parser, "--max-false-alarms", "RATE", share, default=_DEFAULT_RATE)
    add_options(
        parser,
        *("--product", "--review", "--class", "--reference", "--shots"),
        product="calibrate a product of `winspect product`: it then names the calibration, as a new revision",
        review="also a verdict review: of good pictures at most this share is review or anomalous; predict can ask for "
        "another rate later",
        category_name="what the part is called (default: object)",
        reference="good samples: calibrate few-shot scores",
    )
    add_option(parser, "--held-out", "DIR|FILE", "further good pictures, to check the rate on; may fail", nargs="+")
    defective = "pictures of defective parts: also an F1-optimal threshold"
    add_option(parser, "--defective", "DIR|FILE", defective, nargs="+")
    add_option(parser, "--scores-only", None, "no pixel threshold: much less work where the recipe allows it")
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; returns the exit code."""
    from winspect.calibration.conformal import SUSPICIOUS, check_enough
    from winspect.calibration.verdicts import check_above
    from winspect.inspector.calibrating import calibrate
    from winspect.pictures.find import find_pictures

    use_product(args, calibrating=True)
    args.out = args.out or _default_out(args)
    category_name = DEFAULT_CLASS if args.category_name is None else args.category_name
    check_above(args.review, args.max_false_alarms, "--review")
    check_recipe(args, alone_in="a calibrated line", scored_as=category_name)
    normals = find_pictures(args.normals)
    check_enough(len(normals), args.max_false_alarms)
    references = good_samples(args)
    shown = {path.resolve() for path in references[: args.shots]}
    left = [path for path in normals if path.resolve() not in shown]
    check_enough(len(left), args.max_false_alarms, references=len(normals) - len(left))
    further: dict[str, Any] = {
        name: find_pictures(paths) for name, paths in given(args, "held_out", "defective").items()
    }
    if args.out.is_dir():
        raise OutputError(f"{args.out}: this is a folder; name a file, such as {args.out / 'calibration.json'}")
    make_folder(args.out.parent)  # before minutes of scoring
    # This imports torch, which takes seconds: mistakes in the call have been reported before.
    model = load_model(args)
    if references:
        model.reference(references, category_name, shots=args.shots, progress=True)
    with when_interrupted(f"{args.out} was not written"):
        calibration = calibrate(
            model,
            normals,
            category_name,
            max_false_alarms=args.max_false_alarms,
            review=args.review,
            maps=not args.scores_only,
            progress=True,
            **further,
        )
    revision = None
    contradicted = calibration.held_out is not None and calibration.held_out.chance < SUSPICIOUS
    if not contradicted:
        calibration.save(args.out)
        revision = _record(args)
    out = None if contradicted else str(args.out)
    # The file's entries but for its lists of scores
    entries = {name: value for name, value in calibration.document().items() if name not in ("scores", "map_maxima")}
    product = {} if revision is None else {"product": {"name": revision.name, "revision": revision.revision}}
    lines = _lines(calibration, out) + ([] if revision is None else [f"{revision.title} decides by it"])
    print_result(args, {"out": out, **product, **entries}, partial(show, *lines))
    return _report_trouble(calibration, args.out, contradicted)


def _default_out(args: argparse.Namespace) -> Path:
    """Where the calibration of a product is written."""
    if args.product is None:
        raise SettingsError("--out: name the calibration to write, as in --out part.json; or --product FILE")
    return args.product.with_name(f"{args.product.stem}.calibration.json")


def _record(args: argparse.Namespace) -> Product | None:
    """Let the product name the calibration; None without a product."""
    if args.product_used is None:
        return None
    from winspect.product.named_files import relative
    from winspect.product.recording import record

    file = relative(args.out, args.product.parent)

    def edit(text: Any) -> None:
        text["calibration"] = {"file": file}

    return record(args.product, verb="calibrate --product", edit=edit)[0]


def _lines(calibration: Calibration, out: str | None) -> list[str]:
    from winspect.calibration.conformal import rate_bound

    rate = f"{calibration.max_false_alarms:g}"
    shots = len(calibration.identity.references)
    lines = [
        f"{calibration.pictures} good pictures of {calibration.class_name!r}, "
        f"{f'{shots} references' if shots else 'zero-shot'}, at most {rate} of new ones flagged",
        f"threshold        {calibration.threshold:.6g}; its own rate is at most "
        f"{rate_bound(calibration.pictures, calibration.max_false_alarms):.3g} with 95 % confidence",
    ]
    if calibration.review is not None:
        lines.append(
            f"review           {calibration.review_threshold:.6g}; at most {calibration.review:g} of good pictures are "
            "review or anomalous"
        )
    if calibration.pixel_threshold is not None:
        lines.append(f"pixel threshold  {calibration.pixel_threshold:.6g}")
    if (held_out := calibration.held_out) is not None:
        lines.append(
            f"held out         {held_out.alarms} of {held_out.pictures} good pictures flagged; as many or more have a "
            f"chance of {held_out.chance:.3g}"
        )
    if (defective := calibration.defective) is not None:
        lines.append(f"defective        {defective.found} of {defective.pictures} found at this threshold")
        lines.append(
            f"best F1          {defective.f1:.4f} on these pictures, at --threshold {defective.f1_threshold:.6g}"
        )
    return [*lines, f"written to {out}"] if out else lines


def _report_trouble(calibration: Calibration, out: Path, contradicted: bool) -> int:
    """Report on stderr what went wrong; returns the exit code. Each picture left out has been named already."""
    unreadable = sum(left_out.because == "unreadable" for left_out in calibration.left_out)
    if calibration.left_out:
        say(f"{len(calibration.left_out)} pictures left out, {unreadable} of them unreadable")
    if contradicted:
        say(
            f"the held-out pictures are flagged more often than {calibration.max_false_alarms:g}: they are "
            f"not from the line calibrated on, or the line has changed; {out} was not written"
        )
        return Exit.CHECK_FAILED
    return Exit.SOME_FAILED if unreadable else Exit.DONE
