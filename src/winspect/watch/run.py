"""The loops of a watch: from what arrives, through the model, to rows. They end when ``stop`` is set."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from winspect.errors import PictureError
from winspect.watch.folder import Arrival, WatchedFolder
from winspect.watch.journal import Journal
from winspect.watch.results import StoppedError, WatchResults
from winspect.watch.status import Status

if TYPE_CHECKING:
    from winspect.inspector.protocol import Scorer
    from winspect.methods.result import Result
    from winspect.watch.camera import Camera, Frame
    from winspect.watch.video import Video

MOST_AT_ONCE = 16
"""Pictures of a backlog that are judged together. A picture that arrives alone is judged alone, at once."""
# Listening waits for what is not there yet; while there is work, that would be lost time.
_LISTEN_EVERY_S = 2.0

Show = Callable[[dict[str, Any]], None]


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set ``stop``. The first lets the current picture be finished, a second does not."""

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


def watch_folder(
    model: Scorer,
    folder: WatchedFolder,
    journal: Journal,
    results: WatchResults,
    *,
    category: dict[str, str],
    show: Show,
    status: Status,
) -> None:
    """Judge what arrives in a folder, in order of arrival."""
    options: dict[str, Any] = {**category, "keep_pictures": results.wants_pictures, "maps": results.wants_maps}

    def judge(batch: list[Arrival]) -> None:
        judged = model.predict_many(_Reading(folder, batch), **options)
        for arrival, result in zip(batch, judged, strict=True):
            if folder.is_final(arrival, result.error):
                record(arrival, result)
            status.tick()
            if folder.stop.is_set():
                return

    def record(arrival: Arrival, result: Result) -> None:
        row, position = results.add(result, extra={"file": {"name": arrival.name, **arrival.identity._asdict()}})
        folder.done(arrival)
        results.patiently(lambda: journal.add(arrival.name, arrival.identity, position))
        show(row)
        status.count(row)

    with folder, _without_growing_registry():
        batch: list[Arrival] = []
        listened = 0.0
        while not folder.stop.is_set():
            if not batch or time.monotonic() - listened >= _LISTEN_EVERY_S:
                folder.listen()
                listened = time.monotonic()
            batch = folder.ready(MOST_AT_ONCE)
            try:
                if batch:
                    judge(batch)
            except StoppedError:
                return
            status.tick()


class _Reading:
    """The paths of a batch; what lies there is noted as each is taken, for the model reads it then."""

    def __init__(self, folder: WatchedFolder, batch: list[Arrival]) -> None:
        self.folder, self.batch = folder, batch

    def __len__(self) -> int:
        return len(self.batch)

    def __iter__(self) -> Iterator[str]:
        return (self.folder.reading(arrival) for arrival in self.batch)


def watch_camera(
    model: Scorer,
    camera: Camera,
    results: WatchResults,
    *,
    category: dict[str, str],
    every_s: float = 1.0,
    show: Show,
    status: Status,
) -> None:
    """Judge the newest frame of a camera every ``every_s`` seconds, or as often as judging allows."""
    with camera, _without_growing_registry():
        due = time.monotonic()
        while not camera.stop.wait(max(0.0, due - time.monotonic())):
            frame = camera.newest(wait_s=0.2)
            if frame is not None:
                began = time.monotonic()
                due = max(due + every_s, began)
                try:
                    _judge_frame(model, frame, results, category, {"source": camera.shown}, show, status)
                except StoppedError:
                    return
                camera.skipped += int((time.monotonic() - began) / every_s)
            status.tick()


def watch_video(
    model: Scorer, video: Video, results: WatchResults, *, category: dict[str, str], show: Show, status: Status
) -> None:
    """Judge the frames of a video file, to its end."""
    with _without_growing_registry(), closing(video.frames()) as frames:
        for frame, second in frames:
            try:
                _judge_frame(model, frame, results, category, {"source": video.shown, "second": second}, show, status)
            except StoppedError:
                return
            status.tick()
            if results.stop.is_set():
                return


def _judge_frame(
    model: Scorer,
    frame: Frame,
    results: WatchResults,
    category: dict[str, str],
    extra: dict[str, Any],
    show: Show,
    status: Status,
) -> None:
    wanted: dict[str, Any] = {"keep_pictures": results.wants_pictures, "maps": results.wants_maps}
    (result,) = model.predict_many([frame.rgb], **{**category, **wanted})
    error = result.error and PictureError(frame.name, result.error.reason)
    row, _ = results.add(replace(result, path=frame.name, error=error), extra=extra, frame_rgb=frame.rgb)
    show(row)
    status.count(row)


@contextmanager
def _without_growing_registry() -> Iterator[None]:
    """Python remembers each text it has warned of; texts that name a picture would fill the memory over the days."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="all anomaly maps of")  # ConstantMapWarning
        yield
