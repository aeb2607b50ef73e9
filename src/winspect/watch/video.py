"""OpenCV's way to pictures: opening streams, devices and video files; and URLs without their passwords."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from winspect.errors import MissingExtraError, SettingsError, SourceError
from winspect.system.installation import install_command
from winspect.system.opening import read_text
from winspect.watch.results import stamp
from winspect.watch.rows import Clock, utc_now

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 5.0
_SECRET = re.compile(r"(?i)\b(\w*(?:pass|pwd|token|secret|key|auth)\w*)=[^/&;\s]*")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera.

    Attributes:
        name: its time in UTC, as a file name.
        rgb: uint8 (height, width, 3).
    """

    name: str
    rgb: np.ndarray


def frame_of(bgr: np.ndarray, taken: datetime) -> Frame:
    """A frame from OpenCV's array: uint8 (height, width, 3) in BGR order, or grey (height, width)."""
    rgb = np.ascontiguousarray(bgr[:, :, ::-1]) if bgr.ndim == 3 else np.repeat(bgr[:, :, None], 3, axis=2)
    return Frame(f"{stamp(taken)}.png", rgb)


def masked(source: str) -> str:
    """A URL without user, password and query, fit for messages and files.

    >>> masked("rtsp://admin:s3cret@10.0.0.7:554/stream1?token=abc")
    'rtsp://***@10.0.0.7:554/stream1?***'
    """
    scheme, mark, rest = source.partition("://")
    if not mark:
        return source
    if "@" in rest:  # the last one: passwords may hold one, or a slash
        rest = "***@" + rest.rpartition("@")[2]
    address, question, _ = rest.partition("?")
    return scheme + mark + _SECRET.sub(r"\1=***", address) + (question and "?***")


def camera_source(given: str) -> str | int | Path:
    """What was asked for: a URL (str), the number of a device (int), or a video file (Path).

    Args:
        given: ``rtsp://...``, ``http://...``, ``/dev/video0``, ``0``, a file, or ``@FILE``: the URL in a file's first
            line, so that its password is not among the arguments, which every user of the machine can list.

    Raises:
        SourceError: nothing like that is there.
    """
    if given.startswith("@"):
        try:
            given = read_text(given[1:]).partition("\n")[0].strip()
        except (OSError, ValueError) as error:
            raise SourceError(f"{given}: cannot read the URL from this file ({error})") from error
    if given.isdecimal():
        return int(given)
    if device := re.fullmatch(r"/dev/video([0-9]+)", given):
        return int(device[1])
    if "://" in given:
        return given
    if os.path.isfile(given):
        return Path(given)
    raise SourceError(f"{given!r}: no such folder, video file, device or URL: check it")


def need_opencv() -> Any:
    """OpenCV, silenced: its messages can hold URLs with their passwords.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"watching a camera needs: {install_command('watch')}") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def open_capture(source: str | int) -> Any:
    """An OpenCV capture of a stream or device; ask it whether it ``isOpened``."""
    cv2 = need_opencv()
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    timeouts = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_S * 1000,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT_S * 1000,
    }
    options = [int(number) for pair in timeouts.items() for number in pair]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, options)


class Video:
    """A video file.

    Args:
        every_s: seconds of the video from one frame that is scored to the next.
    """

    def __init__(self, path: Path, *, every_s: float = 1.0, clock: Clock = utc_now) -> None:
        if not every_s > 0:
            raise SettingsError(f"every_s: got {every_s}, need seconds above 0")
        self.path, self.every_s, self.clock = path, every_s, clock
        self.shown = str(path)

    def frames(self) -> Generator[tuple[Frame, float], None, None]:
        """Frames, each with its second in the video.

        Raises:
            SourceError: not a video that can be read.
        """
        cv2 = need_opencv()
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise SourceError(f"{self.path}: not a folder, and not a video that can be read here")
            per_second = capture.get(cv2.CAP_PROP_FPS) or 25.0
            number = due = 0
            while capture.grab():
                if number >= due:
                    is_whole, bgr = capture.retrieve()
                    if is_whole:
                        yield frame_of(bgr, self.clock()), round(number / per_second, 3)
                        due = max(number + 1, due + round(self.every_s * per_second))
                number += 1
        finally:
            capture.release()
