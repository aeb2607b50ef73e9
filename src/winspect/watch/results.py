"""The folder of results of a watch: rows, heat maps, frames. What cannot be written now is written when it can be."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import numpy as np

from winspect.calibration.judgement import DecisionRule
from winspect.errors import OutputError, SettingsError
from winspect.methods.identity import differences, listed
from winspect.outputs.maps import overlay_of, short_stem
from winspect.outputs.rows import RUN_FILE, row_of
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, save_png
from winspect.system.files import MAPS_FOLDER, output_error
from winspect.system.run_folder import begin, locked, read_identity
from winspect.watch.rows import Position, append_row, remove_cut_lines, stamp, utc_now

if TYPE_CHECKING:
    from winspect.methods.result import Result

logger = logging.getLogger(__name__)

FRAMES_FOLDER = "frames"
_KEPT = ("none", "anomalous", "all")
_REMINDER_S = 60.0

T = TypeVar("T")


class StoppedError(Exception):
    """The watch was asked to end while something could not be written."""


class KeptPictures:
    """The newest PNG files in a folder: for each that is too many, the oldest goes.

    Args:
        folder: made when the first is saved. Names sort by time.
        most: number of files.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._names = deque(sorted(path.name for path in folder.glob("[!.]*.png")))
        for left_over in folder.glob(".*.tmp"):  # of a run that was killed
            left_over.unlink(missing_ok=True)

    def save(self, name: str, rgb: np.ndarray) -> str:
        """Write uint8 (height, width, 3); returns the file as rows name it."""
        self.folder.mkdir(exist_ok=True)
        if name not in self._names:
            while len(self._names) >= self.most:
                (self.folder / self._names.popleft()).unlink(missing_ok=True)
            self._names.append(name)
        save_png(rgb, self.folder / name)
        return f"{self.folder.name}/{name}"


class WatchResults:
    """Writes what a watch finds. Use it in a with-block: no other watch can write to the folder meanwhile.

    Args:
        folder: made when it is not there.
        stop: ends waiting for a place to write.
        rule: what decides.
        score_range: of the heat maps' colours; None stretches them to each picture.
        maps: which pictures get a heat map: ``none``, ``anomalous`` (those to review too) or ``all``. frames: the same
            for a camera's frames.
        keep_maps, keep_frames: the most of them on the disk.
        clock: gives the time in UTC. retry_s: pause between attempts to write.

    Raises:
        OutputError: the folder cannot be written, or another watch writes to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stop: threading.Event,
        rule: DecisionRule | None = None,
        score_range: ScoreRange | None = UNIT_RANGE,
        maps: str = "none",
        frames: str = "none",
        keep_maps: int = 1000,
        keep_frames: int = 1000,
        clock: Callable[[], datetime] = utc_now,
        retry_s: float = 5.0,
    ) -> None:
        for name, value in (("maps", maps), ("frames", frames)):
            if value not in _KEPT:
                raise SettingsError(f"{name}: got {value!r}, need one of {', '.join(_KEPT)}")
        self.folder, self.stop, self.clock, self.retry_s = folder, stop, clock, retry_s
        self.rule, self.score_range = rule or DecisionRule(), score_range
        self.maps, self.frames = maps, frames
        self._most = {MAPS_FOLDER: keep_maps, FRAMES_FOLDER: keep_frames}

    def __enter__(self) -> WatchResults:
        with ExitStack() as entered:
            entered.enter_context(locked(self.folder))
            try:
                remove_cut_lines(self.folder)
                self._files = {name: KeptPictures(self.folder / name, most) for name, most in self._most.items()}
            except OSError as error:
                raise output_error(self.folder, error) from error
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    @property
    def needs(self) -> dict[str, bool]:
        """What results need of the model, as arguments of ``predict_many``."""
        has_maps = self.maps != "none"
        return {"keep_pictures": has_maps, "maps": has_maps or self.rule.regions is not None}

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Where pictures are written: no watch may take them for arrivals."""
        return tuple(self.folder / name for name in self._most)

    def describe(self, source: str, run: Mapping[str, Any]) -> None:
        """Keep in ``run.json`` what is watched and what scores. What was there before is kept beside it.

        Raises:
            OutputError: the folder holds the results of another source.
        """
        document = json.loads(json.dumps({"source": source, **run}))
        path = self.folder / RUN_FILE
        earlier = read_identity(path, fix="choose another --out, or move it away")
        if earlier == document:
            return
        if earlier is not None:
            if earlier.get("source") != source:
                reason = f"this folder holds the results of {earlier.get('source')}; choose another --out"
                raise OutputError(f"{path}: {reason}")
            # Written beside it first: at no time is there no run.json.
            begin(path.with_name(f"run-until-{self.clock():%Y-%m-%dT%H%M%SZ}.json"), earlier)
            if changed := differences(earlier, document):
                logger.warning("%s: from now on scored with another %s than before", self.folder, listed(changed))
        begin(path, document)

    def add(
        self, result: Result, *, extra: Mapping[str, Any], frame_rgb: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Position]:
        """Write a result with what belongs to it; returns its row, which is on the disk, and where it ends.

        Args:
            extra: further entries of the row.
            frame_rgb: uint8 (height, width, 3), a camera's frame, which exists nowhere else.

        Raises:
            StoppedError: nothing was written.
        """
        judgement = self.rule.decide(result)
        row = row_of(judgement)
        moment = self.clock()
        row.update(id=uuid4().hex, time=moment.isoformat(timespec="milliseconds"), **extra)
        is_kept = {"none": False, "anomalous": row["verdict"] in ("review", "anomalous"), "all": True}
        if is_kept[self.maps] and result.picture_rgb is not None and result.tile_maps is not None:
            name = f"{stamp(moment)}_{short_stem(result.path)}.png"
            row["map"] = self._save(MAPS_FOLDER, name, overlay_of(judgement, self.score_range))
        if frame_rgb is not None:
            name = f"{stamp(moment)}.png"
            row["frame"] = self._save(FRAMES_FOLDER, name, frame_rgb) if is_kept[self.frames] else None
        return row, self.patiently(lambda: append_row(self.folder, row, moment))

    def _save(self, folder: str, name: str, rgb: np.ndarray) -> str:
        return self.patiently(lambda: self._files[folder].save(name, rgb))

    def patiently(self, write: Callable[[], T]) -> T:
        """Write. Where that fails, as on a full disk, say so, wait, and try again for as long as it takes.

        Raises:
            StoppedError: asked to end meanwhile.
        """
        began, reminded = time.monotonic(), None
        while True:
            try:
                value = write()
            except (OSError, OutputError, sqlite3.OperationalError) as error:  # the disk is full, the share is away
                now = time.monotonic()
                if reminded is None or now - reminded >= _REMINDER_S:
                    reminded = now
                    logger.warning("%s; waiting until it can be written", self._refusal(error))
                if self.stop.wait(self.retry_s):
                    raise StoppedError(str(error)) from error
            else:
                if reminded is not None:
                    logger.warning("%s: written after %.0f s; going on", self.folder, time.monotonic() - began)
                return value

    def _refusal(self, error: Exception) -> OutputError:
        if isinstance(error, OutputError):
            return error
        return output_error(self.folder, error if isinstance(error, OSError) else OSError(0, str(error)))
