"""Score pictures.

Score pictures. Scores run from 0 to 1; 1 is most anomalous. Without --reference zero-shot, with it few-shot.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from winspect.cli.common import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED, good_samples, mute_stdout
from winspect.cli.decisions import (
    add_decision_options,
    check_decision_options,
    in_words,
    load_calibration,
    load_inspection,
    rule_of,
)
from winspect.cli.options import add_model_options, add_output_options
from winspect.errors import SettingsError
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.calibration import DecisionRule
    from winspect.outputs.recorder import Recorder

_MOST_NAMED = 5


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, folders (searched recursively) and globs"
    )
    add_decision_options(
        parser,
        calibration="verdicts, p-values and boxes of defects by a file of `winspect calibrate`; with --out also "
        "their masks",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out", type=Path, metavar="DIR", help="write predictions.jsonl, predictions.csv and heat maps"
    )
    results.add_argument("--no-overlays", action="store_true", help="no heat maps over the pictures")
    results.add_argument("--raw-maps", action="store_true", help="also write each map as float32 .npz")
    results.add_argument("--no-masks", action="store_true", help="no masks and boxes of defects; as --boxes none")
    results.add_argument("--coco", action="store_true", help="also write the boxes and masks as defects.coco.json")
    results.add_argument("--resume", action="store_true", help="go on with an interrupted run in --out")
    add_model_options(parser, bundle=True)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score the pictures; returns the exit code."""
    from winspect.outputs.recorder import without_own_maps
    from winspect.pictures.find import find_pictures

    _check_options(args)
    calibration = load_calibration(args)
    if args.bundle is None:
        _check_coco(args, rule_of(args, calibration))
    pictures = find_pictures(args.pictures)
    if args.out:
        pictures = without_own_maps(pictures, args.out)
    references = good_samples(args)
    # What follows imports torch, which takes seconds: mistakes in the call have been reported before.
    from winspect.outputs.coco import write_coco
    from winspect.outputs.recorder import Recorder, still_to_do
    from winspect.outputs.rows import row_of
    from winspect.system.run_folder import locked

    inspection = load_inspection(args, references, calibration)
    model, class_option = inspection.model, inspection.class_option
    _check_coco(args, inspection.rule)
    # Boxes are not printed; and scores alone are much less work.
    rule = inspection.rule if args.out or args.json else replace(inspection.rule, regions=None)
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
            try:
                with recorder or nullcontext():
                    for result in model.predict_many(to_do, **class_option, keep_pictures=overlays, maps=needs_maps):
                        printer.show(recorder.add(result) if recorder else row_of(rule.decide(result)))
                if args.coco:
                    write_coco(args.out)
            except KeyboardInterrupt:
                printer.interrupted = True
    return printer.exit_code


def _check_options(args: argparse.Namespace) -> None:
    if args.no_masks:
        if not (args.calibration or args.bundle):
            raise SettingsError("--no-masks needs --calibration FILE: it says which pixels are defects")
        if args.coco or args.boxes not in (None, "none"):
            other = "--coco" if args.coco else f"--boxes {args.boxes}"
            raise SettingsError(f"got {other} and --no-masks: COCO's regions are the masks'; leave one of them out")
        args.boxes = "none"
    check_decision_options(args)
    for name in ("resume", "raw_maps", "coco"):
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
    """

    def __init__(self, args: argparse.Namespace, total: int, recorder: Recorder | None) -> None:
        from winspect.outputs.rows import Counts

        self.args, self.total, self.recorder = args, total, recorder
        self.counts = replace(recorder.counts) if recorder else Counts()  # with those of the rows that were there
        self.resumed = self.counts.rows
        self.interrupted = False
        self.seen: list[str] = []

    def __enter__(self) -> _Printer:
        from tqdm import tqdm

        self.began = time.perf_counter()
        self.progress = tqdm(
            total=self.total, initial=self.resumed, unit="picture", file=sys.stderr, disable=None, leave=False
        )
        if self.args.json:
            sys.stdout.write('{"schema": 1, "results": [')
        return self

    def show(self, row: dict[str, Any]) -> None:
        """Print the next row. When its reader goes away, a run that writes to a folder goes on."""
        try:
            self._show(row)
        except BrokenPipeError:
            if self.recorder is None:
                raise
            mute_stdout()

    def _show(self, row: dict[str, Any]) -> None:
        from winspect.pictures.fingerprints import SEEN

        is_first = self.counts.rows == self.resumed
        self.counts.add(row)
        if SEEN in (row["warning"] or ""):
            self.seen.append(row["path"])
        if self.args.json:
            sys.stdout.write(("" if is_first else ",") + "\n  " + json.dumps(row))
        else:
            line, message = in_words(row)
            self._write(line, sys.stdout)
            self._write(message and f"winspect: {message}", sys.stderr)
        sys.stdout.flush()  # a program that reads along sees each row when it is there
        self.progress.update()

    def _write(self, line: str | None, stream: TextIO) -> None:
        if line is not None:
            self.progress.write(printable(line), file=stream)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.progress.close()
        seconds = time.perf_counter() - self.began
        done = self.recorder.written if self.recorder else self.counts.rows
        out = str(self.args.out) if self.args.out else None
        if self.args.json:
            summary = {
                "pictures": self.total,
                "done": done,
                "resumed": self.resumed,
                "failed": self.counts.failed,
                "warned": self.counts.warned,
                "judged_by_themselves": self.seen,
                "interrupted": self.interrupted,
                "seconds": round(seconds, 3),
                "out": out,
                "error": error and str(error),
            }
            sys.stdout.write("\n], " + json.dumps(summary)[1:] + "\n")
        sys.stdout.flush()
        if kind is None:
            self._print_summary(done, seconds, out)

    def _print_summary(self, done: int, seconds: float, out: str | None) -> None:
        from winspect.outputs.rows import count_of_warnings

        if self.seen:
            named = ", ".join(self.seen[:_MOST_NAMED]) + (", ..." if len(self.seen) > _MOST_NAMED else "")
            say(f"{len(self.seen)} judged by themselves, being good samples or copies; do not count them: {named}")
        where = count_of_warnings(self.counts.warned) + (f"; results in {out}" if out else "")
        say(f"{done} of {self.total} pictures in {seconds:.1f} s, {self.counts.failed} failed{where}")
        if self.interrupted:
            hint = "the same command with --resume goes on" if out else "with --out DIR a run can be resumed"
            say(f"interrupted after {done} of {self.total} pictures; {hint}")

    @property
    def exit_code(self) -> int:
        """0, 3 when pictures failed, or 130 after an interruption."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.counts.failed else EXIT_DONE
