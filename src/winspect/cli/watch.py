"""``winspect watch``: judge pictures as they arrive in a folder or from a camera, for days."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import EXIT_DONE, good_samples, mute_stdout
from winspect.cli.decisions import add_decision_options, in_words, load_calibration, load_inspection
from winspect.cli.options import add_model_options, add_output_options
from winspect.cli.watch_options import (
    FOLDER_OPTIONS,
    add_camera_options,
    add_folder_options,
    add_picture_options,
    check_decides,
    check_options,
)
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.cli.decisions import Inspection
    from winspect.inspector.base import Predictor
    from winspect.watch.results import WatchResults
    from winspect.watch.status import Status


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "watch",
        help="judge pictures as they arrive, in a folder or from a camera",
        description="Judge pictures as they arrive, until Ctrl-C or SIGTERM: the current picture is finished first. "
        "Each day's results go to predictions-YYYY-MM-DD.jsonl (UTC) in --out, each row on the disk before the next "
        "picture; a later start goes on where this one ended. See docs/watch.md.",
        epilog="exit codes: 0 stopped by Ctrl-C or SIGTERM, or a video file has ended; 2 wrong use",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder; or a camera: rtsp:// or http:// (MJPEG), /dev/video0 or its number, @FILE with the URL in it; "
        "or a video file",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the results go, and what is known of earlier runs"
    )
    add_decision_options(parser)
    parser.add_argument(
        "--report", type=float, default=60.0, metavar="SECONDS", help="a line of status on stderr so often; 0: never"
    )
    add_picture_options(parser.add_argument_group("pictures kept in --out"))
    add_folder_options(parser.add_argument_group("folders"))
    add_camera_options(parser.add_argument_group("cameras and videos"))
    add_model_options(parser, bundle=True)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch; returns the exit code."""
    from winspect.system.files import make_folder
    from winspect.watch.results import WatchResults
    from winspect.watch.run import stopping

    source = _source(args)
    check_options(args, source)
    calibration = load_calibration(args)
    references = good_samples(args)
    make_folder(args.out)
    # What follows imports torch, which takes seconds: mistakes in the call have been reported before.
    inspection = load_inspection(args, references, calibration)
    check_decides(args, inspection.rule.calibration)
    stop = threading.Event()
    has_maps = args.maps not in (None, "none") and not args.stretch
    score_range = inspection.heat_range() if has_maps else None
    kept = _given(args, "maps", "keep_maps", "frames", "keep_frames")
    with WatchResults(args.out, stop=stop, rule=inspection.rule, score_range=score_range, **kept) as results:
        inspection.model.prepare_engine(**inspection.class_option, maps=results.wants_maps)
        results.describe(_shown(source), inspection.document())
        with stopping(stop):
            _watch(args, source, inspection, results, stop)
    sys.stdout.flush()
    return EXIT_DONE


def _source(args: argparse.Namespace) -> Any:
    """What is watched: a folder or a video file (Path), a URL (str), a device (int)."""
    from winspect.watch.events import need_watchfiles
    from winspect.watch.video import camera_source, need_opencv

    if os.path.isdir(args.source):
        need_watchfiles()
        return Path(args.source)
    source = camera_source(args.source)
    need_opencv()
    return source


def _shown(source: Any) -> str:
    """The source as it may be written: where it really is, without its password."""
    from winspect.watch.video import masked

    if isinstance(source, Path):
        return os.path.realpath(source)
    return f"device {source}" if isinstance(source, int) else masked(source)


def _watch(
    args: argparse.Namespace, source: Any, inspection: Inspection, results: WatchResults, stop: threading.Event
) -> None:
    options: dict[str, Any] = {"category": inspection.class_option, "show": _Rows(as_json=args.json).show}
    if not isinstance(source, Path):
        _watch_camera(args, source, inspection.model, results, stop, options)
    elif source.is_file():
        from winspect.watch.run import watch_video
        from winspect.watch.video import Video

        status = _status(args, lambda: "")
        watch_video(inspection.model, Video(source, **_given(args, "every_s")), results, status=status, **options)
        status.last_line()
    else:
        _watch_folder(args, source, inspection.model, results, stop, options)


def _watch_folder(
    args: argparse.Namespace,
    source: Path,
    model: Predictor,
    results: WatchResults,
    stop: threading.Event,
    options: dict[str, Any],
) -> None:
    from winspect.watch.folder import WatchedFolder
    from winspect.watch.journal import Journal
    from winspect.watch.results import JOURNAL_FILE
    from winspect.watch.run import watch_folder

    given = _given(args, *(name for name in FOLDER_OPTIONS if name != "existing"))
    with Journal(args.out / JOURNAL_FILE, args.out) as journal:
        folder = WatchedFolder(source, journal, stop=stop, ignore=results.own_folders, **given)
        if args.existing == "skip" and journal.is_new:
            say(f"{folder.leave_out_existing()} pictures that are there already are left alone")
        status = _status(args, folder.behind_in_words)
        say(f"watching {source}; results in {args.out}; Ctrl-C ends it")
        watch_folder(model, folder, journal, results, status=status, **options)
        status.last_line()


def _watch_camera(
    args: argparse.Namespace,
    source: str | int,
    model: Predictor,
    results: WatchResults,
    stop: threading.Event,
    options: dict[str, Any],
) -> None:
    from winspect.watch.camera import Camera
    from winspect.watch.run import watch_camera

    camera = Camera(source, stop=stop, **_given(args, "frozen_s"))

    def behind() -> str:
        silent = f"no picture for {camera.silent_s:.0f} s" if camera.silent_s else ""
        skipped = f"{camera.skipped} frames skipped, judging takes longer than --every" if camera.skipped else ""
        return ", ".join(filter(None, (silent, skipped)))

    status = _status(args, behind)
    say(f"watching {camera.shown}; results in {args.out}; Ctrl-C ends it")
    watch_camera(model, camera, results, status=status, **_given(args, "every_s"), **options)
    status.last_line()


def _status(args: argparse.Namespace, behind: Callable[[], str]) -> Status:
    from winspect.watch.status import Status

    return Status(say, every_s=args.report, behind=behind)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


class _Rows:
    """Rows on stdout as they come. When their reader goes away, the watch goes on."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, row: dict[str, Any]) -> None:
        """The next row: a line of JSON, or of words as ``winspect predict`` has it."""
        try:
            if self.as_json:
                print(json.dumps(row), flush=True)
                return
            line, message = in_words(row)
            if line is not None:
                print(printable(line), flush=True)
            if message is not None:
                say(message)
        except BrokenPipeError:
            mute_stdout()
