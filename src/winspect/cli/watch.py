"""``winspect watch``: score pictures as they arrive in a folder or from a camera, for days."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import EXIT_DONE, good_samples, mute_stdout
from winspect.cli.decisions import add_decision_options, in_words, load_calibration, load_inspection
from winspect.cli.options import add_model_options, add_output_options
from winspect.cli.watch_options import FOLDER, KEPT, add_watch_options, check_decides, check_options, given
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.watch.run import Station


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "watch",
        help="score pictures as they arrive, in a folder or from a camera",
        description="Score pictures as they arrive, until Ctrl-C or SIGTERM: the current picture is finished first. "
        "Each day's results go to predictions-YYYY-MM-DD.jsonl (UTC) in --out, each row on the disk before the next "
        "picture; a later start goes on where this one ended. See docs/watch.md.",
        epilog="exit codes: 0 stopped by Ctrl-C or SIGTERM, or a video file has ended; 2 usage error",
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
    add_watch_options(parser)
    add_model_options(parser, bundle=True)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch; returns the exit code."""
    from winspect.system.files import make_folder
    from winspect.watch.results import WatchResults
    from winspect.watch.run import Station, stopping
    from winspect.watch.status import Status

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
    kept = given(args, *KEPT)
    with WatchResults(args.out, stop=stop, rule=inspection.rule, score_range=score_range, **kept) as results:
        inspection.model.prepare_engine(**inspection.class_option, maps=results.needs_maps)
        results.describe(_without_password(source), inspection.document())
        status = Status(say, every_s=args.report)
        show = partial(_print_row, as_json=args.json)
        with stopping(stop):
            _watch(args, source, Station(inspection.model, results, status, show, inspection.class_option))
        status.last_line()
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


def _without_password(source: Any) -> str:
    """The source as it may be written: where it really is, without its password."""
    from winspect.watch.video import masked

    if isinstance(source, Path):
        return os.path.realpath(source)
    return f"device {source}" if isinstance(source, int) else masked(source)


def _watch(args: argparse.Namespace, source: Any, station: Station) -> None:
    if not isinstance(source, Path):
        from winspect.watch.camera import Camera

        camera = Camera(source, stop=station.results.stop, **given(args, "frozen_s"))
        say(f"watching {camera.shown}; results in {args.out}; Ctrl-C ends it")
        station.watch_camera(camera, **given(args, "every_s"))
    elif source.is_file():
        from winspect.watch.video import Video

        station.watch_video(Video(source, **given(args, "every_s")))
    else:
        _watch_folder(args, source, station)


def _watch_folder(args: argparse.Namespace, source: Path, station: Station) -> None:
    from winspect.watch.folder import WatchedFolder
    from winspect.watch.journal import Journal
    from winspect.watch.results import JOURNAL_FILE

    results = station.results
    with Journal(args.out / JOURNAL_FILE, args.out) as journal:
        options = given(args, *FOLDER)
        folder = WatchedFolder(source, journal, stop=results.stop, ignore=results.picture_folders, **options)
        if args.existing == "skip" and journal.is_new:
            say(f"{folder.leave_out_existing()} pictures that are there already are left alone")
        say(f"watching {source}; results in {args.out}; Ctrl-C ends it")
        station.watch_folder(folder, journal)


def _print_row(row: dict[str, Any], *, as_json: bool) -> None:
    """Print a row on stdout. When its reader goes away, the watch goes on."""
    try:
        if as_json:
            print(json.dumps(row), flush=True)
            return
        line, message = in_words(row)
        if line is not None:
            print(printable(line), flush=True)
        if message is not None:
            say(message)
    except BrokenPipeError:
        mute_stdout()
