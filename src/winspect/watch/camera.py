"""A camera: always its newest frame, and never a backlog; connected again for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from winspect.watch.rows import Clock, utc_now
from winspect.watch.video import OPEN_TIMEOUT_S, READ_TIMEOUT_S, Frame, frame_of, masked, open_capture

logger = logging.getLogger(__name__)

PAUSES_S = (1.0, 60.0)
"""The first pause before connecting again, and the longest; each is twice the one before."""


class Camera:
    """A stream or device, read by a thread of its own. Use it in a with-block.

    Args:
        source: a URL, or the number of a device.
        stop: ends everything.
        frozen_s: a stream that has repeated one picture, bit by bit, for so long is taken for dead: its picture is not
            scored any more, and it is connected again. 0 for never.
        connect: opens a source, as :func:`winspect.watch.video.open_capture` does.
        pauses_s: see :data:`PAUSES_S`.

    Attributes:
        shown: the source without its password.
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
        clock: Clock = utc_now,
    ) -> None:
        self._source, self.stop, self.clock = source, stop, clock
        self.shown = masked(source) if isinstance(source, str) else f"device {source}"
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
        self._thread.join(OPEN_TIMEOUT_S + READ_TIMEOUT_S)

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
        pause, longest = self._pauses_s
        while not self.stop.is_set():
            try:
                trouble, had_frames = self._read_on()
            except Exception as error:  # whatever OpenCV raises: its words may hold the password
                trouble, had_frames = f"cannot be read ({type(error).__name__})", False
            if self.stop.is_set():
                return
            if self._silent_since is None:
                self._silent_since = time.monotonic()
            pause = self._pauses_s[0] if had_frames else pause
            logger.warning("%s: %s; connecting again in %g s", self.shown, trouble, pause)
            self.stop.wait(pause)
            pause = min(2 * pause, longest)

    def _read_on(self) -> tuple[str, bool]:
        """Read until there is trouble; returns what it is, and whether there were frames before it."""
        had_frames = False
        capture = self._connect(self._source)
        try:
            if not capture.isOpened():
                return "cannot be opened (address, user and password right? switched on?)", had_frames
            changed = time.monotonic()
            while not self.stop.is_set():
                is_whole, bgr = capture.read()
                if not is_whole:
                    return "the stream was lost", had_frames
                if self._repeats(bgr):
                    if self._frozen_s and time.monotonic() - changed >= self._frozen_s:
                        self._is_frozen = True
                        with self._news:
                            self._newest = None
                        return f"frozen, the same picture for {self._frozen_s:g} s", had_frames
                else:
                    changed = time.monotonic()
                    self._is_frozen = False
                if not self._is_frozen:
                    had_frames = True
                    self._hand_out(bgr)
            return "stopped", had_frames
        finally:
            capture.release()

    def _repeats(self, bgr: np.ndarray) -> bool:
        last, self._last_bgr = self._last_bgr, bgr
        return last is not None and np.array_equal(last, bgr)

    def _hand_out(self, bgr: np.ndarray) -> None:
        if self._silent_since is not None:
            logger.warning("%s: pictures after %.0f s", self.shown, self.silent_s)
            self._silent_since = None
        with self._news:
            self._newest = bgr, self.clock()
            self._news.notify()
