"""``winspect predict``: judge one picture or thousands."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from winspect.cli.common import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED, expand_references, mute_stdout
from winspect.cli.judging import (
    add_judging_options,
    category_of,
    check_judging_options,
    describe_run,
    heat_range_of,
    line_of,
    load_calibration,
    load_judge,
    region_rule,
)
from winspect.cli.options import add_model_options, add_output_options
from winspect.errors import SettingsError, SourceError
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.outputs.recorder import Recorder

_NAMED = 5


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "predict",
        help="judge pictures",
        description="Judge pictures. Scores run from 0 to 1; 1 is most anomalous. Without --reference zero-shot, "
        "with it few-shot.",
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, folders (searched recursively) and globs"
    )
    add_judging_options(
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge the pictures; returns the exit code."""
    from winspect.pictures.find import find_pictures

    _check_options(args)
    calibration = load_calibration(args)
    if args.bundle is None:
        _check_coco(args, calibration)
    pictures = _without_results(find_pictures(args.pictures), args.out)
    references = expand_references(args.reference) if args.reference else []
    # What follows imports torch, which takes seconds: what is wrong with the call has been said before.
    from winspect.calibration import DecisionRule
    from winspect.outputs.coco import write_coco
    from winspect.outputs.recorder import still_to_do
    from winspect.outputs.rows import row_of
    from winspect.system.run_folder import locked

    model, references, calibration = load_judge(args, references, calibration)
    _check_coco(args, calibration)
    regions = region_rule(args, calibration) if args.out or args.json else None
    # Scores alone are much less work.
    maps = regions is not None or (bool(args.out) and (args.raw_maps or not args.no_overlays))
    model.prepare_engine(**category_of(args), maps=maps)
    rule = DecisionRule(args.threshold, calibration, regions)
    with locked(args.out) if args.out else nullcontext():
        recorder = None
        if args.out:
            look = {"score_range": heat_range_of(args, model, calibration)} if not args.no_overlays else {}
            recorder = _recorder(args, describe_run(args, model, references, calibration), {"rule": rule, **look})
        to_do = still_to_do(pictures, recorder) if recorder else pictures
        with _Printer(args, len(pictures), recorder) as printer:
            try:
                with recorder or nullcontext():
                    keep = recorder is not None and recorder.maps.overlays
                    for result in model.predict_many(to_do, **category_of(args), keep_pictures=keep, maps=maps):
                        row = recorder.add(result) if recorder else row_of(rule.decide(result))
                        printer.show(row)
                if args.coco:
                    write_coco(args.out)
            except KeyboardInterrupt:
                printer.interrupted = True
    return printer.exit_code


def _without_results(pictures: list[Path], out: Path | None) -> list[Path]:
    """The pictures but for the heat maps of an earlier run, where the results lie in the folder that is searched."""
    if out is None:
        return pictures
    from winspect.system.files import MAPS_FOLDER

    maps = (out / MAPS_FOLDER).resolve()
    kept = [picture for picture in pictures if picture.parent.resolve() != maps]
    if not kept:
        raise SourceError(f"all {len(pictures)} pictures are heat maps in {maps}: name the pictures, or another --out")
    return kept


def _recorder(args: argparse.Namespace, run: dict[str, Any], deciding: dict[str, Any]) -> Recorder:
    from winspect.outputs.recorder import Recorder

    run |= {"overlays": not args.no_overlays, "raw_maps": args.raw_maps, "stretch": args.stretch}
    return Recorder(
        args.out,
        run,
        overlays=not args.no_overlays,
        raw_maps=args.raw_maps,
        **deciding,
        resume=args.resume,
    )


def _check_options(args: argparse.Namespace) -> None:
    if args.no_masks:
        if not (args.calibration or args.bundle):
            raise SettingsError("--no-masks needs --calibration FILE: it says which pixels are defects")
        if args.coco or args.boxes not in (None, "none"):
            other = "--coco" if args.coco else f"--boxes {args.boxes}"
            raise SettingsError(f"got {other} and --no-masks: COCO's regions are the masks'; leave one of them out")
        args.boxes = "none"
    check_judging_options(args)
    for name in ("resume", "raw_maps", "coco"):
        if getattr(args, name) and not args.out:
            raise SettingsError(f"--{name.replace('_', '-')} needs --out DIR")


def _check_coco(args: argparse.Namespace, calibration: Calibration | None) -> None:
    if args.coco and args.boxes == "none":
        raise SettingsError("got --coco and --boxes none: leave one of them out")
    if args.coco and region_rule(args, calibration) is None:
        if not (args.calibration or args.bundle):
            raise SettingsError(
                "--coco needs --calibration FILE: it says which pixels are defects; or --pixel-threshold SCORE"
            )
        made_on = "has no calibration of this class" if calibration is None else "was made on scores alone"
        raise SettingsError(
            f"--coco: {args.calibration or args.bundle} {made_on}; calibrate without --scores-only to find regions"
        )


class _Printer:
    """What the terminal, or a program, sees of a run: rows as they come on stdout, progress on stderr.

    With ``--json``, stdout is one JSON document, written row by row, that is whole however the run ends.
    """

    def __init__(self, args: argparse.Namespace, total: int, recorder: Recorder | None) -> None:
        self.args, self.total, self.recorder = args, total, recorder
        self.judged = 0
        self.resumed, self.failed, self.warned = (
            (len(recorder.done), recorder.failed, recorder.warned) if recorder else (0, 0, 0)
        )
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
        """The next row. When its reader goes away, a run that writes to a folder goes on."""
        try:
            self._show(row)
        except BrokenPipeError:
            if self.recorder is None:
                raise
            mute_stdout()

    def _show(self, row: dict[str, Any]) -> None:
        from winspect.pictures.fingerprints import SEEN

        self.judged += 1
        self.failed += row["error"] is not None
        self.warned += row["warning"] is not None
        if SEEN in (row["warning"] or ""):
            self.seen.append(row["path"])
        if self.args.json:
            sys.stdout.write(("," if self.judged > 1 else "") + "\n  " + json.dumps(row))
        elif row["error"]:
            self._write(f"winspect: failed: {row['error']['message']}", sys.stderr)
        else:
            self._write(line_of(row), sys.stdout)
            if row["warning"]:
                self._write(f"winspect: warning: {row['path']}: {row['warning']}", sys.stderr)
        sys.stdout.flush()  # a program that reads along sees each row when it is there
        self.progress.update()

    def _write(self, line: str, stream: TextIO) -> None:
        self.progress.write(printable(line), file=stream)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.progress.close()
        seconds = time.perf_counter() - self.began
        done = self.recorder.written if self.recorder else self.judged
        out = str(self.args.out) if self.args.out else None
        if self.args.json:
            summary = {
                "pictures": self.total,
                "done": done,
                "resumed": self.resumed,
                "failed": self.failed,
                "warned": self.warned,
                "judged_by_themselves": self.seen,
                "interrupted": self.interrupted,
                "seconds": round(seconds, 3),
                "out": out,
                "error": error and str(error),
            }
            sys.stdout.write("\n], " + json.dumps(summary)[1:] + "\n")
        sys.stdout.flush()
        if kind is None:
            from winspect.methods.result import count_of_warnings

            where = count_of_warnings(self.warned) + (f"; results in {out}" if out else "")
            if self.seen:
                named = ", ".join(self.seen[:_NAMED]) + (", ..." if len(self.seen) > _NAMED else "")
                say(f"{len(self.seen)} judged by themselves, being good samples or copies; do not count them: {named}")
            say(f"{done} of {self.total} pictures in {seconds:.1f} s, {self.failed} failed{where}")
            if self.interrupted:
                hint = "the same command with --resume goes on" if out else "with --out DIR a run can be resumed"
                say(f"interrupted after {done} of {self.total} pictures; {hint}")

    @property
    def exit_code(self) -> int:
        """0, 3 when pictures failed, or 130 after an interruption."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.failed else EXIT_DONE
