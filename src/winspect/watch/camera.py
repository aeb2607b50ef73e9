"""Frames through OpenCV: of a camera always the newest, connected again for as long as it takes; of a video file all.

URLs are shown without their passwords.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from winspect.errors import SettingsError, SourceError
from winspect.pictures.video import need_opencv, rgb_of
from winspect.system.opening import read_text
from winspect.watch.rows import stamp, utc_now

logger = logging.getLogger(__name__)

JOB = "watching a camera"
"""What needs OpenCV, for messages."""

PAUSES_S = (1.0, 60.0)
"""The first pause before connecting again, and the longest; each is twice the one before."""
_OPEN_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 5.0
_SECRET = re.compile(r"(?i)\b(\w*(?:pass|pwd|token|secret|key|auth)\w*)=[^/&;\s]*")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera or a video.

    Attributes:
        name: its time in UTC, as a file name.
        rgb: uint8 (height, width, 3).
    """

    name: str
    rgb: np.ndarray


def frame_of(bgr: np.ndarray, taken: datetime) -> Frame:
    """A frame from OpenCV's array: uint8 (height, width, 3) in BGR order, or grey (height, width)."""
    return Frame(f"{stamp(taken)}.png", rgb_of(bgr))


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


def public_name(source: str | int | Path) -> str:
    """A source as it may be written: where it really is, without its password."""
    if isinstance(source, Path):
        return os.path.realpath(source)
    return f"device {source}" if isinstance(source, int) else masked(source)


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
    if device := re.fullmatch(r"(?:/dev/video)?([0-9]+)", given):
        return int(device[1])
    if "://" in given:
        return given
    if os.path.isfile(given):
        return Path(given)
    raise SourceError(f"{given!r}: no such folder, video file, device or URL: check it")


def open_capture(source: str | int) -> Any:
    """An OpenCV capture of a stream or device; ask it whether it ``isOpened``."""
    cv2 = need_opencv(JOB)
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    opening, reading = (round(1000 * timeout_s) for timeout_s in (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S))
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, opening, cv2.CAP_PROP_READ_TIMEOUT_MSEC, reading]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, options)


def video_frames(path: Path, *, every_s: float = 1.0) -> Generator[tuple[Frame, float], None, None]:
    """Frames of a video file, each with its second in the video.

    Args:
        every_s: seconds of the video from one frame that is scored to the next.

    Raises:
        SourceError: not a video that can be read.
    """
    if not every_s > 0:
        raise SettingsError(f"every_s: got {every_s}, need seconds above 0")
    cv2 = need_opencv(JOB)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise SourceError(f"{path}: not a folder, and not a video that can be read here")
        per_second = capture.get(cv2.CAP_PROP_FPS) or 25.0
        number = due = 0
        while capture.grab():
            if number >= due:
                is_whole, bgr = capture.retrieve()
                if is_whole:
                    yield frame_of(bgr, utc_now()), round(number / per_second, 3)
                    due = max(number + 1, due + round(every_s * per_second))
            number += 1
    finally:
        capture.release()


class Camera:
    """Newest frame of a stream or device, never a backlog; read by a thread of its own. Use it in a with-block.

    Args:
        source: a URL, or the number of a device.
        stop: ends everything.
        frozen_s: a stream that has repeated one picture, bit by bit, for so long is taken for dead: its picture is not
            scored any more, and it is connected again. 0 for never.
        connect: opens a source, as :func:`open_capture` does.
        pauses_s: see :data:`PAUSES_S`.

    Attributes:
        name: the source without its password.
        skipped: times at which a frame was due, but an earlier one was still being scored.
    """

    def __init__(
        self,
        source: str | int,
        *,
        stop: threading.Event,
        frozen_s: float = 30.0,
        connect: Callable[[str | int], Any] = open_capture,
        pauses_s: tuple[float, float] = PAUSES_S,
    ) -> None:
        self._source, self.stop = source, stop
        self.name = public_name(source)
        self.skipped = 0
        self._frozen_s, self._connect, self._pauses_s = frozen_s, connect, pauses_s
        self._news = threading.Condition()
        self._newest: tuple[np.ndarray, datetime] | None = None
        self._last_bgr: np.ndarray | None = None  # the reader's own
        self._is_frozen = False
        self._silent_since: float | None = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="winspect-camera", daemon=True)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        # A call into OpenCV cannot be broken off, but ends by itself.
        self._thread.join(_OPEN_TIMEOUT_S + _READ_TIMEOUT_S)

    def newest(self, *, wait_s: float) -> Frame | None:
        """The newest frame, once; None where no new one comes within ``wait_s``."""
        with self._news:
            if self._newest is None:
                self._news.wait(wait_s)
            taken, self._newest = self._newest, None
        return None if taken is None else frame_of(*taken)

    @property
    def silent_s(self) -> float:
        """For how long there has been no picture; 0 while there are pictures."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    def behind_in_words(self) -> str:
        """What is wrong with the stream, or with the pace; empty for nothing."""
        silent = f"no picture for {self.silent_s:.0f} s" if self.silent_s else ""
        skipped = f"{self.skipped} frames skipped, scoring takes longer than --every" if self.skipped else ""
        return ", ".join(filter(None, (silent, skipped)))

    def _read(self) -> None:
        shortest, longest = self._pauses_s
        pause = shortest
        while not self.stop.is_set():
            try:
                trouble = self._read_on()
            except Exception as error:  # whatever OpenCV raises: its words may hold the password
                trouble = f"cannot be read ({type(error).__name__})"
            if self.stop.is_set():
                return
            if self._silent_since is None:  # there were frames
                self._silent_since, pause = time.monotonic(), shortest
            logger.warning("%s: %s; connecting again in %g s", self.name, trouble, pause)
            self.stop.wait(pause)
            pause = min(2 * pause, longest)

    def _read_on(self) -> str:
        """Read until there is trouble; returns what it is."""
        capture = self._connect(self._source)
        try:
            if not capture.isOpened():
                return "cannot be opened (address, user and password right? switched on?)"
            changed = time.monotonic()
            while not self.stop.is_set():
                is_whole, bgr = capture.read()
                if not is_whole:
                    return "the stream was lost"
                last, self._last_bgr = self._last_bgr, bgr
                if last is None or not np.array_equal(last, bgr):
                    changed, self._is_frozen = time.monotonic(), False
                elif self._frozen_s and time.monotonic() - changed >= self._frozen_s:
                    self._is_frozen = True
                    with self._news:
                        self._newest = None
                    return f"frozen, the same picture for {self._frozen_s:g} s"
                if not self._is_frozen:
                    self._hand_out(bgr)
            return "stopped"
        finally:
            capture.release()

    def _hand_out(self, bgr: np.ndarray) -> None:
        if self._silent_since is not None:
            logger.warning("%s: pictures after %.0f s", self.name, self.silent_s)
            self._silent_since = None
        with self._news:
            self._newest = bgr, utc_now()
            self._news.notify()
