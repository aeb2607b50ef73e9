"""The options of ``winspect watch``, and what of them fits together."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.decisions import check_decision_options
from winspect.errors import SettingsError

if TYPE_CHECKING:
    from winspect.calibration import Calibration

KEPT = ("maps", "keep_maps", "frames", "keep_frames")
FOLDER = ("recursive", "poll", "settle_s", "patience_s", "scan_every_s")
_LEAST = {
    **{"settle_s": 0, "patience_s": 0, "scan_every_s": 0.1, "every_s": 0.01, "frozen_s": 0},
    **{"report": 0, "keep_maps": 1, "keep_frames": 1},
}
_FLAGS = {"scan_every_s": "--scan", "frames": "--keep-frames", "keep_frames": "--most-frames"}


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Add what is kept beside the rows, and the options of folders, of cameras and of videos."""
    _add_kept(parser.add_argument_group("pictures kept in --out"))
    _add_folder_options(parser.add_argument_group("folders"))
    _add_camera_options(parser.add_argument_group("cameras and videos"))


def _add_kept(group: argparse._ArgumentGroup) -> None:
    kinds = ("none", "anomalous", "all")
    group.add_argument("--maps", choices=kinds, help="which pictures get a heat map (default: none)")
    group.add_argument("--keep-maps", type=int, metavar="N", help="keep the newest N heat maps (default: 1000)")
    group.add_argument(
        "--keep-frames", dest="frames", choices=kinds, help="which frames of a camera are saved (default: none)"
    )
    group.add_argument(
        "--most-frames", dest="keep_frames", type=int, metavar="N", help="keep the newest N frames (default: 1000)"
    )


def _add_folder_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--recursive", action="store_true", default=None, help="also what is in folders below")
    group.add_argument(
        "--existing",
        choices=("judge", "skip"),
        help="pictures that are there at the first start: score those not scored before (default), or leave them alone",
    )
    group.add_argument(
        "--settle",
        dest="settle_s",
        type=float,
        metavar="SECONDS",
        help="a file is complete when it has not changed for so long (default: 1)",
    )
    group.add_argument(
        "--patience",
        dest="patience_s",
        type=float,
        metavar="SECONDS",
        help="a picture that cannot be read is tried again for so long before it has failed (default: 30)",
    )
    group.add_argument(
        "--scan",
        dest="scan_every_s",
        type=float,
        metavar="SECONDS",
        help="look through the whole folder so often, as events get lost (default: 60)",
    )
    group.add_argument(
        "--poll", action="store_true", default=None, help="compare listings every second: for network shares"
    )


def _add_camera_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--every", dest="every_s", type=float, metavar="SECONDS", help="score a frame so often (default: 1)"
    )
    group.add_argument(
        "--frozen",
        dest="frozen_s",
        type=float,
        metavar="SECONDS",
        help="a camera that repeats one picture for so long is connected again (default: 30; 0: never)",
    )


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the named options that were given, as arguments of the library."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def check_options(args: argparse.Namespace, source: Any) -> None:
    """Refuse what is out of range, and what is not for this kind of source.

    Args:
        source: a folder or a video file (Path), a URL (str), a device (int).

    Raises:
        SettingsError, ReferencesError: names the option and the fix.
    """
    check_decision_options(args)
    is_folder, is_video = (isinstance(source, Path) and check(source) for check in (Path.is_dir, Path.is_file))
    for names, fits, what in (
        ((*FOLDER, "existing"), is_folder, "a folder"),
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
        check_decides(args, None)


def check_decides(args: argparse.Namespace, calibration: Calibration | None) -> None:
    """Refuse to keep what is anomalous where nothing says what is."""
    if "anomalous" in (args.maps, args.frames) and args.threshold is None and calibration is None:
        raise SettingsError("to keep what is anomalous needs --threshold or --calibration: they say what is")


def _flag(name: str) -> str:
    return _FLAGS.get(name) or "--" + name.removesuffix("_s").replace("_", "-")
