"""Score pictures as they arrive, in a folder or from a camera.

Score pictures as they arrive, until Ctrl-C or SIGTERM: the current picture is finished first. Each day's results go to
predictions-YYYY-MM-DD.jsonl (UTC) in --out, each row on the disk before the next picture; a later start goes on where
this one ended. See docs/watch.md.

exit codes: 0 stopped by Ctrl-C or SIGTERM, or a video file has ended; 2 usage error
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import DEFAULT_CLASS, Exit, given, good_samples, mute_stdout
from winspect.cli.decisions import (
    add_decision_options,
    check_decision_options,
    drift_settings,
    feedback_settings,
    in_words,
    load_calibration,
    load_inspection,
)
from winspect.cli.deliveries import add_delivery_options, deliverer_of
from winspect.cli.options import add_option, add_options, add_run_options
from winspect.cli.product_options import mark_of, use_product
from winspect.errors import SettingsError
from winspect.system.files import make_folder
from winspect.system.terminal import printable, say

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.cli.decisions import Inspection
    from winspect.drift.alarm import DriftAlarm
    from winspect.feedback.trail import AuditTrail
    from winspect.watch.run import Station

_KEPT = ("maps", "keep_maps", "frames", "keep_frames")
_FOLDER = ("recursive", "poll", "settle_s", "patience_s", "scan_every_s")
_LEAST = {
    **{"settle_s": 0, "patience_s": 0, "scan_every_s": 0.1, "every_s": 0.01, "frozen_s": 0},
    **{"report": 0, "keep_maps": 1, "keep_frames": 1},
}
_FLAGS = {"scan_every_s": "--scan", "frames": "--keep-frames", "keep_frames": "--most-frames"}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    camera = "rtsp:// or http:// (MJPEG), /dev/video0 or its number, @FILE with the URL in it"
    add_option(parser, "source", "SOURCE", f"a folder; or a camera: {camera}; or a video file")
    add_option(parser, "--out", "DIR", "where the results go, and what is known of earlier runs", required=True)
    add_decision_options(parser)
    add_option(parser, "--report", "SECONDS", "a line of status on stderr so often; 0: never", default=60.0)
    add_options(parser, "--drift", "--audit-rate")
    add_delivery_options(parser.add_argument_group("results to the machine beside"))
    _add_watch_options(parser)
    add_run_options(parser, bundle=True)


def _add_watch_options(parser: argparse.ArgumentParser) -> None:
    kinds, choices = "none|anomalous|all", ("none", "anomalous", "all")
    kept = parser.add_argument_group("pictures kept in --out")
    add_option(kept, "--maps", kinds, "which pictures get a heat map (default: none)", choices=choices)
    add_option(kept, "--keep-maps", "N", "keep the newest N heat maps (default: 1000)")
    frames = "which frames of a camera are saved (default: none)"
    add_option(kept, "--keep-frames", kinds, frames, choices=choices, dest="frames")
    add_option(kept, "--most-frames", "N", "keep the newest N frames (default: 1000)", dest="keep_frames")
    folders = parser.add_argument_group("folders")
    add_option(folders, "--recursive", None, "also what is in folders below", default=None)
    folders.add_argument(
        "--existing",
        choices=("judge", "skip"),
        help="pictures that are there at the first start: score those not scored before (default), or leave them alone",
    )
    settled = "a file is complete when it has not changed for so long (default: 1)"
    add_option(folders, "--settle", "SECONDS", settled, dest="settle_s")
    patient = "a picture that cannot be read is tried again for so long before it has failed (default: 30)"
    add_option(folders, "--patience", "SECONDS", patient, dest="patience_s")
    scanned = "look through the whole folder so often, as events get lost (default: 60)"
    add_option(folders, "--scan", "SECONDS", scanned, dest="scan_every_s")
    add_option(folders, "--poll", None, "compare listings every second: for network shares", default=None)
    cameras = parser.add_argument_group("cameras and videos")
    add_option(cameras, "--every", "SECONDS", "score a frame so often (default: 1)", dest="every_s")
    frozen = "a camera that repeats one picture for so long is connected again (default: 30; 0: never)"
    add_option(cameras, "--frozen", "SECONDS", frozen, dest="frozen_s")


def run(args: argparse.Namespace) -> int:
    """Watch; returns the exit code."""
    from winspect.inspector.starting import keep
    from winspect.watch.camera import public_name
    from winspect.watch.results import WatchResults
    from winspect.watch.rows import ResultsFiles
    from winspect.watch.run import Station, Status, stopping

    use_product(args)
    source = _source(args)
    calibration = load_calibration(args)
    _check_options(args, source, calibration)
    deliverer = deliverer_of(args, args.out, results=ResultsFiles(args.out))
    references = good_samples(args)
    make_folder(args.out)
    # What follows imports torch, which takes seconds: mistakes in the call have been reported before.
    inspection = load_inspection(args, references, calibration)
    _check_decides(args, inspection.rule.calibration)
    stop = threading.Event()
    has_maps = args.maps not in (None, "none") and not args.stretch
    score_range = inspection.heat_range() if has_maps else None
    kept = given(args, *_KEPT)
    with (
        WatchResults(args.out, stop=stop, rule=inspection.rule, score_range=score_range, **kept) as results,
        _drift(args, inspection) as drift,
        _audit(args, inspection) as audit,
    ):
        inspection.model.prepare_engine(**inspection.class_option, maps=results.needs["maps"])
        keep(inspection.model, **inspection.class_option)
        results.describe(public_name(source), inspection.document())
        status = Status(say, every_s=args.report)
        status.troubles.append(audit.trouble)
        if drift is not None:
            status.troubles.append(drift.in_words)
        show = partial(_print_row, as_json=args.json)
        if deliverer is not None:
            status.troubles.append(deliverer.behind_in_words)
        with deliverer or nullcontext(), stopping(stop):
            takers: dict[str, Any] = {"audit": audit, "drift": drift, "deliverer": deliverer}
            station = Station(inspection.model, results, status, show, inspection.class_option, **takers)
            _watch(args, source, station)
        status.last_line()
    sys.stdout.flush()
    return Exit.DONE


@contextmanager
def _audit(args: argparse.Namespace, inspection: Inspection) -> Iterator[AuditTrail]:
    """The audit log, with the rows of a run that was killed before they were in it."""
    from winspect.feedback.feedback import Feedback
    from winspect.feedback.trail import AuditTrail
    from winspect.watch.rows import newest_rows

    identity = inspection.model.identity(inspection.class_option.get("category_name", DEFAULT_CLASS))
    product = None if (mark := mark_of(args)) is None else asdict(mark)
    with AuditTrail(Feedback(args.out, feedback_settings(args)), identity=identity, product=product) as trail:
        trail.missing(newest_rows(args.out))
        yield trail


@contextmanager
def _drift(args: argparse.Namespace, inspection: Inspection) -> Iterator[DriftAlarm | None]:
    """The drift alarm, where one is asked for; the model measures pictures for it."""
    settings = drift_settings(args)
    if settings is None:
        yield None
        return
    from winspect.drift.alarm import DriftAlarm, identity_of

    inspection.model.measure = True
    identity = identity_of(inspection.document())
    with DriftAlarm(args.out, settings, identity=identity, reports=True) as alarm:
        yield alarm


def _source(args: argparse.Namespace) -> Any:
    """What is watched: a folder or a video file (Path), a URL (str), a device (int)."""
    from winspect.pictures.video import need_opencv
    from winspect.watch.camera import JOB, camera_source
    from winspect.watch.events import need_watchfiles

    if os.path.isdir(args.source):
        need_watchfiles()
        return Path(args.source)
    source = camera_source(args.source)
    need_opencv(JOB)
    return source


def _check_options(args: argparse.Namespace, source: Any, calibration: Calibration | None) -> None:
    """Refuse what is out of range, and what is not for this kind of source.

    Args:
        source: a folder or a video file (Path), a URL (str), a device (int).

    Raises:
        SettingsError, ReferencesError: names the option and the fix.
    """
    is_folder, is_video = (isinstance(source, Path) and check(source) for check in (Path.is_dir, Path.is_file))
    alone_in = "a watched folder" if is_folder else "a video" if is_video else "a camera"
    check_decision_options(args, calibration, alone_in=alone_in)
    drift_settings(args)
    feedback_settings(args)
    for names, fits, what in (
        ((*_FOLDER, "existing"), is_folder, "a folder"),
        (("every_s", "frames", "keep_frames"), not is_folder, "a camera or a video"),
        (("frozen_s",), not is_folder and not is_video, "a camera"),
    ):
        for name in given(args, *names):
            if not fits:
                raise SettingsError(f"{_flag(name)} is for {what}; leave it out")
    for name, number in given(args, *_LEAST).items():
        if not _LEAST[name] <= number < math.inf:
            raise SettingsError(f"{_flag(name)}: got {number}, need {_LEAST[name]} or more")
    if args.calibration is None and args.bundle is None:
        _check_decides(args, None)


def _check_decides(args: argparse.Namespace, calibration: Calibration | None) -> None:
    """Refuse to keep what is anomalous where nothing says what is."""
    if "anomalous" in (args.maps, args.frames) and args.threshold is None and calibration is None:
        raise SettingsError("to keep what is anomalous needs --threshold or --calibration: they say what is")


def _flag(name: str) -> str:
    return _FLAGS.get(name) or "--" + name.removesuffix("_s").replace("_", "-")


def _watch(args: argparse.Namespace, source: Any, station: Station) -> None:
    if not isinstance(source, Path):
        from winspect.watch.camera import Camera

        camera = Camera(source, stop=station.results.stop, **given(args, "frozen_s"))
        say(f"watching {camera.name}; results in {args.out}; Ctrl-C ends it")
        station.watch_camera(camera, **given(args, "every_s"))
    elif source.is_file():
        station.watch_video(source, **given(args, "every_s"))
    else:
        _watch_folder(args, source, station)


def _watch_folder(args: argparse.Namespace, source: Path, station: Station) -> None:
    from winspect.watch.folder import WatchedFolder
    from winspect.watch.journal import Journal

    results = station.results
    with Journal(args.out) as journal:
        options = given(args, *_FOLDER)
        folder = WatchedFolder(source, journal, stop=results.stop, ignore=results.picture_folders, **options)
        if args.existing == "skip" and journal.is_new:
            say(f"{folder.leave_out_existing()} pictures that are there already are left alone")
        say(f"watching {source}; results in {args.out}; Ctrl-C ends it")
        station.watch_folder(folder)
        if waiting := folder.behind_in_words():
            say(f"left for the next start: {waiting}")


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
