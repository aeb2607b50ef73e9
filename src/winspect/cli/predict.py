"""Score pictures.

Score pictures: more is more anomalous, 0 to 1 with recipes paper, tiles and log. Without --reference zero-shot, with it
few-shot.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from winspect.cli.common import Exit, good_samples, mute_stdout
from winspect.cli.decisions import (
    add_decision_options,
    check_decision_options,
    in_words,
    load_calibration,
    load_inspection,
    rule_of,
)
from winspect.cli.options import add_option, add_run_options
from winspect.cli.product_options import use_product
from winspect.errors import SettingsError
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.calibration import Calibration, DecisionRule
    from winspect.outputs.rows import Recorder

_MOST_NAMED = 5


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "pictures", "PICTURE", "files, folders (searched recursively) and globs", nargs="+")
    verdicts = "verdicts, p-values and boxes of defects by a file of `winspect calibrate`; with --out also their masks"
    add_decision_options(parser, calibration=verdicts)
    results = parser.add_argument_group("results")
    add_option(results, "--out", "DIR", "write predictions.jsonl, predictions.csv and heat maps")
    add_option(results, "--no-overlays", None, "no heat maps over the pictures")
    add_option(results, "--raw-maps", None, "also write each map as float32 .npz")
    add_option(results, "--no-masks", None, "no masks and boxes of defects; as --boxes none")
    add_option(results, "--coco", None, "also write the boxes and masks as defects.coco.json")
    add_option(results, "--report", None, "also write report.html: the most anomalous pictures, and scores")
    add_option(results, "--resume", None, "go on with an interrupted run in --out")
    add_run_options(parser, bundle=True)


def run(args: argparse.Namespace) -> int:
    """Score the pictures; returns the exit code."""
    from winspect.methods.batch_method import BatchMethod
    from winspect.outputs.maps import without_own_maps
    from winspect.pictures.find import find_pictures

    use_product(args)
    calibration = load_calibration(args)
    _check_options(args, calibration)
    if args.bundle is None:
        _check_coco(args, rule_of(args, calibration))
    pictures = find_pictures(args.pictures)
    if args.out:
        pictures = without_own_maps(pictures, args.out)
    references = good_samples(args)
    # What follows imports torch, which takes seconds: mistakes in the call have been reported before.
    from winspect.inspector.starting import keep
    from winspect.outputs.coco import write_coco
    from winspect.outputs.predictions import check_report, report_run
    from winspect.outputs.rows import Recorder, row_of, still_to_do
    from winspect.system.run_folder import locked

    if args.report:
        check_report()  # before anything is scored
    inspection = load_inspection(args, references, calibration)
    model, class_option = inspection.model, inspection.class_option
    _check_coco(args, inspection.rule)
    # Boxes are not printed; and scores alone are much less work.
    is_scores_alone = not (args.out or args.json or inspection.rule.rules)
    rule = replace(inspection.rule, regions=None) if is_scores_alone else inspection.rule
    overlays = bool(args.out) and not args.no_overlays
    needs_maps = overlays or args.raw_maps or rule.regions is not None
    model.prepare_engine(**class_option, maps=needs_maps)
    with locked(args.out) if args.out else nullcontext():
        recorder = None
        if args.out:
            kinds = {"overlays": overlays, "raw_maps": args.raw_maps}
            run = {**inspection.document(), **kinds, "stretch": args.stretch}
            score_range = inspection.heat_range() if overlays and not args.stretch else None
            recorder = Recorder(args.out, run, rule=rule, **kinds, score_range=score_range, resume=args.resume)
        to_do = still_to_do(pictures, recorder) if recorder else pictures
        with _Printer(args, len(pictures), recorder) as printer:
            with recorder or nullcontext():
                # A batch is scored beside each other: also the pictures that have their rows already.
                known = len(pictures) - len(to_do) if isinstance(model.method, BatchMethod) else 0
                scored = pictures if known else to_do
                results = model.predict_many(scored, **class_option, keep_pictures=overlays, maps=needs_maps)
                for result in islice(results, known, None):
                    coloured = replace(result, heat_range=None) if args.stretch else result
                    printer.show(recorder.add(coloured) if recorder else row_of(rule.decide(result)))
            if args.coco:
                write_coco(args.out)
            if args.report:
                report_run(args.out, model=model.describe(), bit_depth=model.bit_depth)
    keep(model, **class_option)
    return printer.exit_code


def _check_options(args: argparse.Namespace, calibration: Calibration | None) -> None:
    if args.no_masks:
        if not (args.calibration or args.bundle):
            raise SettingsError("--no-masks needs --calibration FILE: it says which pixels are defects")
        if args.coco or args.boxes not in (None, "none"):
            other = "--coco" if args.coco else f"--boxes {args.boxes}"
            raise SettingsError(f"got {other} and --no-masks: COCO's regions are the masks'; leave one of them out")
        args.boxes = "none"
    check_decision_options(args, calibration)
    for name in ("resume", "raw_maps", "coco", "report"):
        if getattr(args, name) and not args.out:
            raise SettingsError(f"--{name.replace('_', '-')} needs --out DIR")


def _check_coco(args: argparse.Namespace, rule: DecisionRule) -> None:
    if args.coco and args.boxes == "none":
        raise SettingsError("got --coco and --boxes none: leave one of them out")
    if args.coco and rule.regions is None:
        if not (args.calibration or args.bundle):
            raise SettingsError(
                "--coco needs --calibration FILE: it says which pixels are defects; or --pixel-threshold SCORE"
            )
        made_on = "has no calibration of this class" if rule.calibration is None else "was made on scores alone"
        raise SettingsError(
            f"--coco: {args.calibration or args.bundle} {made_on}; calibrate without --scores-only to find regions"
        )


class _Printer:
    """Rows on stdout as they come, progress on stderr. The end of the with-block prints the summary.

    With ``--json``, stdout is a JSON document, written row by row, that is whole however the run ends.

    Attributes:
        exit_code: at the end of the with-block, which an interruption ends, too.
    """

    def __init__(self, args: argparse.Namespace, total: int, recorder: Recorder | None) -> None:
        from winspect.outputs.rows import Counts

        self.args, self.total, self.recorder = args, total, recorder
        self.counts = replace(recorder.counts) if recorder else Counts()  # with those of the rows that were there
        self.resumed = self.counts.rows
        self.seen: list[str] = []

    def __enter__(self) -> _Printer:
        from tqdm import tqdm

        self.began = time.perf_counter()
        bar: dict[str, Any] = {"file": sys.stderr, "disable": None, "leave": False}
        self.progress = tqdm(total=self.total, initial=self.resumed, unit="picture", **bar)
        if self.args.json:
            sys.stdout.write('{"schema": 1, "results": [')
        return self

    def show(self, row: dict[str, Any]) -> None:
        """Print the next row. When its reader goes away, a run that writes to a folder goes on."""
        from winspect.pictures.fingerprints import SEEN

        is_first = self.counts.rows == self.resumed
        self.counts.add(row)
        if SEEN in (row["warning"] or ""):
            self.seen.append(row["path"])
        try:
            if self.args.json:
                sys.stdout.write(("" if is_first else ",") + "\n  " + json.dumps(row))
            else:
                line, message = in_words(row)
                for text, stream in ((line, sys.stdout), (message and f"winspect: {message}", sys.stderr)):
                    if text is not None:
                        self.progress.write(printable(text), file=stream)
            sys.stdout.flush()  # a program that reads along sees each row when it is there
        except BrokenPipeError:
            if self.recorder is None:
                raise
            mute_stdout()
        self.progress.update()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self.progress.close()
        is_interrupted = isinstance(error, KeyboardInterrupt)
        summary = {
            "pictures": self.total,
            "done": self.recorder.written if self.recorder else self.counts.rows,
            "resumed": self.resumed,
            "failed": self.counts.failed,
            "warned": self.counts.warned,
            "anomalous": self.counts.anomalous,
            "review": self.counts.review,
            "judged_by_themselves": self.seen,
            "interrupted": is_interrupted,
            "seconds": round(time.perf_counter() - self.began, 3),
            "out": str(self.args.out) if self.args.out else None,
            "error": None if is_interrupted else error and str(error),
        }
        if self.args.json:
            sys.stdout.write("\n], " + json.dumps(summary)[1:] + "\n")
        sys.stdout.flush()
        self.exit_code = Exit.SOME_FAILED if summary["failed"] else Exit.DONE
        if is_interrupted:
            self.exit_code = Exit.INTERRUPTED
        if error is None or is_interrupted:
            _print_summary(summary)
        return is_interrupted


def _print_summary(summary: dict[str, Any]) -> None:
    from winspect.outputs.rows import count_of_warnings

    if seen := summary["judged_by_themselves"]:
        named = ", ".join(seen[:_MOST_NAMED]) + (", ..." if len(seen) > _MOST_NAMED else "")
        say(f"{len(seen)} judged by themselves, being good samples or copies; do not count them: {named}")
    done, out = f"{summary['done']} of {summary['pictures']} pictures", summary["out"]
    where = count_of_warnings(summary["warned"]) + (f"; results in {out}" if out else "")
    say(f"{done} in {summary['seconds']:.1f} s, {summary['failed']} failed{where}")
    if summary["interrupted"]:
        hint = "the same command with --resume goes on" if out else "with --out DIR a run can be resumed"
        say(f"interrupted after {done}; {hint}")
