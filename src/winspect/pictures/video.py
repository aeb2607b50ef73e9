"""Frames of a video file, through OpenCV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from winspect.errors import PictureError, SourceError
from winspect.pictures.formats import ending_of, read_start
from winspect.system.installation import need
from winspect.system.opening import check_file

VIDEO_ENDINGS = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"))
"""Files with these endings, in either case, are taken for videos."""

# FFmpeg tells playlists by their content, too, and would fetch what they name.
_START = re.compile(
    rb".{4}(?:ftyp|moov|mdat|free|skip|wide)|RIFF.{4}AVI |\x1a\x45\xdf\xa3|\x00\x00\x01[\xb3\xba]|\x30\x26\xb2\x75",
    re.DOTALL,
)
_COUNTED = frozenset((".mp4", ".m4v", ".mov", ".avi"))
"""These say how many frames they have; of others it is estimated from their duration."""
_SLACK = 2


def need_opencv(job: str) -> Any:
    """OpenCV, silenced: its messages can hold URLs with their passwords.

    Args:
        job: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's messages hold them, too; read at its first use
    cv2 = need("cv2", "watch", job=job)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def rgb_of(frame: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) in RGB order of OpenCV's array: the same in BGR order, or grey (height, width)."""
    if frame.ndim == 2:
        return np.repeat(frame[:, :, None], 3, axis=2)
    return np.ascontiguousarray(frame[:, :, ::-1])


def frames_of(path: str) -> Iterator[tuple[str, np.ndarray | PictureError]]:
    """Every frame of a video file in turn, each with a name: the file's, and the second at which it is shown.

    Where the file has fewer frames than it says, the last entry is the error, in place of the frame that was cut.

    Yields:
        ``clip.mp4#t=1.040`` and uint8 (height, width, 3) in RGB order.

    Raises:
        SourceError: at once: not there, or not a video that can be read here.
        MissingExtraError: at once: OpenCV is not installed.
    """
    try:
        check_file(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    refusal = f"{path}: not a video that can be read here, or one that was cut off: copy it again, or save its frames"
    if not _START.match(read_start(path)):
        raise SourceError(refusal)
    cv2 = need_opencv("reading a video")
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(refusal)
    per_second, expected = capture.get(cv2.CAP_PROP_FPS) or 25.0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    slack = 0 if ending_of(path) in _COUNTED else _SLACK
    return _read(capture, path, per_second, expected, slack)


def _read(
    capture: Any, path: str, per_second: float, expected: int, slack: int
) -> Iterator[tuple[str, np.ndarray | PictureError]]:
    """The frames, and an error where there are fewer than expected, but for ``slack``."""
    number = 0
    last: tuple[str, np.ndarray] | None = None  # of a file that is cut off the last frame may be half a picture
    try:
        while capture.grab():
            is_whole, frame = capture.retrieve()
            if not is_whole:
                break
            if last is not None:
                yield last
            last = f"{path}#t={number / per_second:.3f}", rgb_of(frame)
            number += 1
    finally:
        capture.release()
    if last is not None and number + slack >= expected:
        yield last
        return
    counted = f"{max(0, number - 1)} of {'about ' * (slack > 0)}{expected} frames are whole"
    yield path, PictureError(path, f"the video ends in mid-frame: {counted}; copy the file again to score the others")
