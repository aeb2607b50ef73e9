"""A model that scores at once: the score is the picture's mean brightness. And the pieces of a watch, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winspect.errors import PictureError
from winspect.methods.result import Result
from winspect.pictures.decoding import read_rgb
from winspect.pictures.given import source_name
from winspect.pictures.statistics import picture_statistics
from winspect.watch.folder import WatchedFolder
from winspect.watch.journal import Journal
from winspect.watch.results import WatchResults
from winspect.watch.run import Station, Status

SIZE_WH = (24, 16)


class QuickModel:
    """``batches`` holds the size of each call."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def predict_many(
        self, pictures: Iterable[Any], category_name: str = "object", *, keep_pictures: bool = False, maps: bool = True
    ) -> Iterator[Result]:
        pictures = list(pictures)
        self.batches.append(len(pictures))
        for picture in pictures:
            time.sleep(self.seconds)
            try:
                rgb = read_rgb(picture)
            except PictureError as error:
                yield Result(source_name(picture), category_name, error=error)
                continue
            height, width = rgb.shape[:2]
            yield Result(
                source_name(picture),
                category_name,
                anomaly_score=float(rgb.mean() / 255),
                tile_maps=rgb[None, ::4, ::4, 0].astype(np.float32) / 255 if maps else None,
                tile_boxes=((0, 0, width, height),) if maps else (),
                size_wh=(width, height),
                picture_rgb=rgb if keep_pictures else None,
                statistics=picture_statistics(Image.fromarray(rgb)),
            )


class Clock:
    """UTC that starts where it is told and then goes on as time does; it can be set."""

    def __init__(self, start: str = "2026-11-22T12:00:00") -> None:
        self.set(start)

    def set(self, moment: str) -> None:
        self.start, self.began = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc), time.monotonic()

    def __call__(self) -> datetime:
        return self.start + timedelta(seconds=time.monotonic() - self.began)


class Seconds:
    """A clock that stands still but for :meth:`pass_by`."""

    def __init__(self) -> None:
        self.seconds = time.monotonic()

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds

    def __call__(self) -> float:
        return self.seconds


def picture(path: Path, brightness: int = 100) -> Path:
    """A picture that appears at once, as one that is renamed into place does."""
    hidden = path.with_name(f".{path.name}")
    Image.new("RGB", SIZE_WH, (brightness,) * 3).save(hidden, format="PNG")
    return hidden.rename(path)


class Watch:
    """A watch of a folder that runs in a thread, and what it has given."""

    def __init__(self, root: Path, out: Path, model: Any, **options: Any) -> None:
        self.root, self.out, self.model = root, out, model
        self.clock = options.pop("clock", Clock())
        self.existing, self.journal_type = options.pop("existing", "judge"), options.pop("journal_type", Journal)
        self.drift, self.audit = options.pop("drift", None), options.pop("audit", None)
        self.results_options = {
            name: options.pop(name) for name in ("maps", "keep_maps", "rule", "retry_s") if name in options
        }
        self.options = {"settle_s": 0.1, "patience_s": 0.4, "scan_every_s": 5.0, **options}
        self.stop = threading.Event()
        self.shown: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.listening = threading.Event()

    def run(self) -> None:
        try:
            self.watch()
        except BaseException as error:
            self.error = error

    def watch(self) -> None:
        results = WatchResults(self.out, stop=self.stop, clock=self.clock, **self.results_options)
        with results, self.journal_type(self.out, clock=self.clock) as journal:
            folder = WatchedFolder(self.root, journal, stop=self.stop, ignore=results.picture_folders, **self.options)
            if self.existing == "skip" and journal.is_new:
                folder.leave_out_existing()
            self.folder, self.journal, self.results = folder, journal, results
            listen = folder.listen

            def listen_and_tell() -> None:
                listen()
                self.listening.set()

            folder.listen = listen_and_tell
            status = Status(self.said.append, every_s=0.3)
            status.troubles += [] if self.drift is None else [self.drift.in_words]
            Station(self.model, results, status, self.show, audit=self.audit, drift=self.drift).watch_folder(folder)
            status.last_line()

    def show(self, row: dict[str, Any]) -> None:
        self.shown.append(row)

    @property
    def names(self) -> list[str]:
        """What was shown, in order."""
        return [row["file"]["name"] for row in self.shown]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait for something that must come true."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.error is None, self.error
            assert time.monotonic() < end, f"still waiting; shown: {self.names}"
            time.sleep(0.01)


@contextmanager
def watching(root: Path, out: Path, model: Any = None, **options: Any) -> Iterator[Watch]:
    """A watch that listens already, and has ended without an error afterwards."""
    watch = Watch(root, out, model or QuickModel(), **options)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        watch.until(watch.listening.is_set)
        yield watch
    finally:
        watch.stop.set()
        thread.join(60)
    assert not thread.is_alive()
    if watch.error is not None:
        raise watch.error
