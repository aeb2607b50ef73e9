"""A backend without a model: real decoding, a score that follows from the pixels, and knobs for what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import asdict, replace

import numpy as np

from winspect.calibration import Calibration, needed_pictures
from winspect.errors import PictureError, ReferencesError, SettingsError
from winspect.methods.identity import Identity
from winspect.methods.result import Result
from winspect.methods.winclip.recipes import RECIPES, Recipe
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import heat_overlay
from winspect.service.contract import (
    BatchRecord,
    CalibrationState,
    ClassInfo,
    DeadlineExceeded,
    Judged,
    NotReady,
    Overloaded,
    StoredPicture,
    UnknownClass,
    class_key,
)

GRID = 15


def score_of(rgb):
    """What the fake scores a picture with: its mean brightness, 0 to 1."""
    return float(np.float32(rgb.mean() / 255))


def png_bytes(rgb):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="PNG")
    return file.getvalue()


class FakeBackend:
    """Judges one picture at a time. ``gate`` holds the model back; ``error`` is raised by it; ``lag_s`` slows it."""

    def __init__(self, settings):
        self.settings, self.on_batch, self.restarts = settings, None, 0
        self.now = "loading"
        self.is_ready = asyncio.Event()
        self.load_error = None
        self.gate = None  # an asyncio.Event that pictures wait for
        self.error = None
        self.lag_s = 0.0
        self.judged = self.cancelled = 0
        self.stored, self.good, self.calibrations = {}, {}, {}
        self._waiting = self._running = 0

    async def start(self):
        self.set_ready()

    def set_ready(self):
        self.now = "ready"
        self.is_ready.set()

    async def wait_ready(self):
        await self.is_ready.wait()
        if self.load_error is not None:
            raise self.load_error

    async def drain(self, seconds):
        self.now = "draining"
        until = time.monotonic() + seconds
        while self._waiting + self._running and time.monotonic() < until:
            await asyncio.sleep(0.01)

    @property
    def state(self):
        return self.now

    @property
    def queued(self):
        return self._waiting

    @property
    def in_flight(self):
        return self._running

    def _check(self, category_name):
        key = class_key(category_name)
        if self.settings.classes is not None and key not in map(class_key, self.settings.classes):
            raise UnknownClass(f"class {key!r} is not served; served are {', '.join(self.settings.classes)}")
        if self.now != "ready":
            raise NotReady(f"the model is {self.now}")
        return key

    async def predict(
        self,
        picture,
        *,
        name,
        category_name,
        deadline,
        overlay=False,
        threshold=None,
        maps=True,
        boxes=False,
        zero_shot=False,
    ):
        key = self._check(category_name)
        if self._waiting + self._running >= self.settings.max_queue:
            raise Overloaded(f"{self.settings.max_queue} pictures wait already", 1.5)
        started = time.monotonic()
        self._waiting += 1
        try:
            rgb = self._decoded(name, picture)
            if self.gate is not None:
                try:
                    await asyncio.wait_for(self.gate.wait(), deadline - time.monotonic())
                except asyncio.TimeoutError:
                    raise DeadlineExceeded("the deadline passed in the queue") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            await asyncio.sleep(self.lag_s)
        finally:
            self._running -= 1
        if self.error is not None:
            raise self.error
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the deadline passed under way")
        self.judged += 1
        if self.on_batch:
            self.on_batch(BatchRecord(1, 0.01))
        return self._judgement(rgb, name, key, overlay, maps, boxes, zero_shot, time.monotonic() - started)

    def _decoded(self, name, picture):
        try:
            return read_rgb(picture, max_pixels=self.settings.max_pixels)
        except PictureError as error:
            raise PictureError(name, error.reason) from error

    def _judgement(self, rgb, name, key, overlay, maps, boxes, zero_shot, seconds):
        height, width = rgb.shape[:2]
        rows, columns = (np.linspace(0, length - 1, GRID).astype(int) for length in (height, width))
        grid = (rgb.mean(axis=2)[np.ix_(rows, columns)] / 255).astype(np.float32)
        result = Result(
            path=name,
            category_name=key,
            anomaly_score=score_of(rgb),
            tile_maps=grid[None],
            tile_boxes=((0, 0, width, height),),
            size_wh=(width, height),
        )
        calibration = None if zero_shot else self.calibrations.get(key)
        decision = calibration.decide(result) if calibration else None
        png = png_bytes(heat_overlay(rgb, result.anomaly_map)) if overlay else None
        regions = calibration.regions if calibration else None
        if not (maps or (boxes and regions)):
            result = replace(result, tile_maps=None, tile_boxes=())
        shots = 0 if zero_shot else len(self.stored.get(key, ()))
        return Judged(result, decision, png, seconds, 0.01, 1, shots, regions)

    async def info(self):
        if self.now == "loading":
            raise NotReady("the model is loading")
        return {"model": "fake", "engine": "none", "recipe": asdict(RECIPES["paper"])}

    async def classes(self):
        names = {*self.stored, *self.good, *self.calibrations, *map(class_key, self.settings.classes or ())}
        return [await self.class_info(name) for name in sorted(names)]

    async def class_info(self, category_name):
        key = self._check(category_name)
        state = await self.calibration(key)
        return ClassInfo(key, len(self.stored.get(key, ())), len(self.good.get(key, ())), state)

    async def references(self, category_name):
        return list(self.stored.get(self._check(category_name), ()))

    async def set_references(self, category_name, pictures, *, add=False):
        key = self._check(category_name)
        if self.error is not None:
            raise self.error
        for name, content in pictures:
            try:
                self._decoded(name, content)
            except PictureError as error:
                raise ReferencesError(f"cannot use a reference picture: {error}") from error
        shown = [StoredPicture(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in pictures]
        self.stored[key] = [*(self.stored.get(key, []) if add else []), *shown]
        return await self.class_info(key)

    async def delete_references(self, category_name):
        if not self.stored.pop(self._check(category_name), None):
            raise UnknownClass(f"class {class_key(category_name)!r} has no references")

    async def add_good(self, category_name, pictures):
        key = self._check(category_name)
        scores = [score_of(self._decoded(name, content)) for name, content in pictures]
        self.good.setdefault(key, []).extend(scores)
        return len(self.good[key])

    async def delete_good(self, category_name):
        if not self.good.pop(self._check(category_name), None):
            raise UnknownClass(f"class {class_key(category_name)!r} has no good pictures")

    async def start_calibration(self, category_name, max_false_alarms):
        key = self._check(category_name)
        if not 0 < max_false_alarms < 1:
            raise SettingsError(f"max_false_alarms: got {max_false_alarms}, need a share between 0 and 1")
        scores = self.good.get(key, [])
        if len(scores) < needed_pictures(max_false_alarms):
            raise SettingsError(f"{len(scores)} good pictures are too few, need {needed_pictures(max_false_alarms)}")
        self.calibrations[key] = Calibration(
            Identity("fake", "00", Recipe("fake"), "fake", "fp32", "cpu", class_name=key),
            max_false_alarms,
            tuple(sorted(scores)),
            tuple(sorted(scores)),
            "2026-01-01T00:00:00+00:00",
        )

    async def calibration(self, category_name):
        found = self.calibrations.get(self._check(category_name))
        if found is None:
            return CalibrationState()
        return CalibrationState(
            state="ready",
            max_false_alarms=found.max_false_alarms,
            threshold=found.threshold,
            pictures=found.pictures,
            date=found.date,
            document=found.document(),
        )

    async def delete_calibration(self, category_name):
        if self.calibrations.pop(self._check(category_name), None) is None:
            raise UnknownClass(f"class {class_key(category_name)!r} has no calibration")
