"""The loops of a watch: from what arrives, through the model, to rows. They end when ``stop`` is set."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.errors import PictureError
from winspect.outputs.rows import Counts, count_of_verdicts, count_of_warnings
from winspect.watch.camera import Camera, Frame, video_frames
from winspect.watch.folder import Arrival, WatchedFolder
from winspect.watch.results import StoppedError, WatchResults
from winspect.watch.rows import Position

if TYPE_CHECKING:
    from winspect.delivery.deliverer import Deliverer
    from winspect.drift.alarm import DriftAlarm
    from winspect.feedback.trail import AuditTrail
    from winspect.inspector.protocol import Scorer
    from winspect.methods.result import Result

MOST_AT_ONCE = 16
"""Pictures of a backlog that are scored together. A picture that arrives alone is scored alone, at once."""
# Listening waits for what is not there yet; while there is work, that would be lost time.
_LISTEN_EVERY_S = 2.0


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set ``stop``. The first lets the current picture be finished, a second does not."""

    def end(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Status:
    """Counts rows, and gives a line every ``every_s`` seconds: how much, how fast, how far behind.

    Args:
        say: takes the line. every_s: 0 for never.
        now: seconds, as :func:`time.monotonic`.

    Attributes:
        troubles: each says in words what else is not well; empty for nothing.
    """

    def __init__(
        self, say: Callable[[str], None], *, every_s: float = 60.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = Counts()
        self._say, self._every_s, self._now = say, every_s, now
        self._began = self._last = now()
        self._rows_before = 0
        self.troubles: list[Callable[[], str]] = []
        self._warned_in_a_row, self._warning = 0, ""  # the newest pictures with a warning, and the newest one's

    def count(self, row: dict[str, Any]) -> None:
        """Take a row into account."""
        self.counts.add(row)
        self._warning = row["warning"] or ""
        self._warned_in_a_row = self._warned_in_a_row + 1 if self._warning else 0

    def tick(self, behind: Callable[[], str]) -> None:
        """Give a line, if it is time.

        Args:
            behind: says in words how far behind the watch is; empty for not at all.
        """
        now = self._now()
        if self._every_s and now - self._last >= self._every_s:
            rate = (self.counts.rows - self._rows_before) / (now - self._last)
            self._last, self._rows_before = now, self.counts.rows
            self._say(f"{self._counted()}, {rate:.2f} pictures/s; {self._health(behind())}")

    def last_line(self) -> None:
        """Give the line of the end."""
        self._say(f"stopped after {self._now() - self._began:.0f} s: {self._counted()}")

    def _health(self, behind: str) -> str:
        troubles = [behind]
        if number := self._warned_in_a_row:
            pictures = "picture has" if number == 1 else f"{number} pictures have"
            troubles.append(f"NOT WELL: the last {pictures} a warning: {self._warning}")
        troubles += [in_words() for in_words in self.troubles]
        return "; ".join(filter(None, troubles)) or "up to date"

    def _counted(self) -> str:
        counts = self.counts
        words = f"{counts.rows} pictures inspected, {count_of_verdicts(counts)}, {counts.failed} failed"
        return words + count_of_warnings(counts.warned)


@dataclass(frozen=True)
class Station:
    """What scores, where results go, and who hears of them: the same for folders, cameras and videos.

    Attributes:
        model: scores the pictures.
        results: writes the rows, entered already; its ``stop`` ends every loop.
        status: counts the rows.
        show: takes each row once it is on the disk.
        class_option: the class as an argument of the model's methods.
        audit: takes each row after it is on the disk; None for no audit log.
        drift: takes each row, too; None to watch for no drift.
        deliverer: takes each row, too; None where none is delivered.
    """

    model: Scorer
    results: WatchResults
    status: Status
    show: Callable[[dict[str, Any]], None]
    class_option: Mapping[str, Any] = field(default_factory=dict)
    audit: AuditTrail | None = None
    drift: DriftAlarm | None = None
    deliverer: Deliverer | None = None

    def watch_folder(self, folder: WatchedFolder) -> None:
        """Score what arrives in a folder, in order of arrival."""
        with folder, _without_growing_registry(), suppress(StoppedError):
            batch: list[Arrival] = []
            listened = 0.0
            while not folder.stop.is_set():
                if not batch or time.monotonic() - listened >= _LISTEN_EVERY_S:
                    folder.listen()
                    listened = time.monotonic()
                if batch := folder.ready(MOST_AT_ONCE):
                    self._score_batch(batch, folder)
                self.status.tick(folder.behind_in_words)

    def _score_batch(self, batch: list[Arrival], folder: WatchedFolder) -> None:
        for arrival, result in zip(batch, self._scored(_Reading(folder, batch)), strict=True):
            if folder.is_final(arrival, result.error):
                row, position = self.results.add(result, extra={"file": arrival.entry()})
                folder.done(arrival)
                self.results.patiently(partial(folder.journal.add, arrival.name, arrival.content, position))
                self._tell(row, position, result, result.path)
            self.status.tick(folder.behind_in_words)
            if folder.stop.is_set():
                return

    def watch_camera(self, camera: Camera, *, every_s: float = 1.0) -> None:
        """Score the newest frame of a camera every ``every_s`` seconds, or as often as scoring allows."""
        with camera, _without_growing_registry(), suppress(StoppedError):
            due = time.monotonic()
            while not camera.stop.wait(max(0.0, due - time.monotonic())):
                frame = camera.newest(wait_s=0.2)
                if frame is not None:
                    began = time.monotonic()
                    due = max(due + every_s, began)
                    self._score_frame(frame, {"source": camera.name})
                    camera.skipped += int((time.monotonic() - began) / every_s)
                self.status.tick(camera.behind_in_words)

    def watch_video(self, path: Path, *, every_s: float = 1.0) -> None:
        """Score a frame of a video file every ``every_s`` seconds of its time, to its end."""
        frames = video_frames(path, every_s=every_s)
        with closing(frames), _without_growing_registry(), suppress(StoppedError):
            for frame, second in frames:
                self._score_frame(frame, {"source": str(path), "second": second})
                self.status.tick(str)
                if self.results.stop.is_set():
                    return

    def _score_frame(self, frame: Frame, extra: Mapping[str, Any]) -> None:
        (result,) = self._scored([frame.rgb])
        error = result.error and PictureError(frame.name, result.error.reason)
        result = replace(result, path=frame.name, error=error)
        row, position = self.results.add(result, extra=extra, frame_rgb=frame.rgb)
        self._tell(row, position, result, frame.rgb)

    def _scored(self, pictures: Any) -> Iterator[Result]:
        return self.model.predict_many(pictures, **{**self.class_option, **self.results.needs})

    def _tell(self, row: dict[str, Any], position: Position, result: Result, picture: Any) -> None:
        if self.audit is not None:
            file = self.results.folder / row["frame"] if row.get("frame") else None
            self.audit.take(row, picture=picture, file=file, result=result)
        if self.drift is not None and (alarm := self.drift.take(row, result.statistics)):
            row = {**row, "drift": alarm}
        if self.deliverer is not None:
            self.deliverer.take(row, position)
        self.show(row)
        self.status.count(row)


@dataclass(frozen=True)
class _Reading:
    """The paths of a batch; what lies there is noted as each is taken, for the model reads it then."""

    folder: WatchedFolder
    batch: list[Arrival]

    def __len__(self) -> int:
        return len(self.batch)

    def __iter__(self) -> Iterator[str]:
        return map(self.folder.reading, self.batch)


@contextmanager
def _without_growing_registry() -> Iterator[None]:
    """Keep no list of warnings given: Python's remembers each text, and texts that name a picture fill the memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="all anomaly maps of")  # ConstantMapWarning
        yield
