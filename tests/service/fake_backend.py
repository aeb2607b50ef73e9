"""A backend without a model: real decoding, a score that follows from the pixels, and knobs for what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np

from winspect.calibration import Calibration, DecisionRule, needed_pictures
from winspect.calibration.judgement import chosen_regions
from winspect.errors import PictureError, ReferencesError, SettingsError
from winspect.methods.identity import Identity
from winspect.methods.registry import get_method
from winspect.methods.result import Result
from winspect.methods.winclip.recipes import RECIPES
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import heat_overlay
from winspect.service.contract import (
    Answer,
    CalibrationState,
    ClassInfo,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    Status,
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
        self.settings, self.restarts = settings, 0
        self.feedback = None
        self.drift = None
        self.deliverer = None
        self.batcher = SimpleNamespace(on_batch=lambda size, seconds, error: None)
        self.now = "loading"
        self.is_ready = asyncio.Event()
        self.load_error = None
        self.gate = None  # an asyncio.Event that pictures wait for
        self.error = None
        self.lag_s = 0.0
        self.judged = self.cancelled = 0
        self.stored, self.good, self.calibrations = {}, {}, {}
        self.scores = {"score_range": [0.0, 1.0], "zero_shot": True}
        self.waiting = self.running = 0

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
        while self.waiting + self.running and time.monotonic() < until:
            await asyncio.sleep(0.01)

    @property
    def status(self):
        return Status(self.now, self.waiting, self.running, self.restarts)

    def key_of(self, category_name):
        key = class_key(category_name)
        if self.settings.classes is not None and key not in map(class_key, self.settings.classes):
            raise UnknownClass(f"class {key!r} is not served; served are {', '.join(self.settings.classes)}")
        if self.now != "ready":
            raise NotReady(f"the model is {self.now}")
        return key

    def check_class(self, category_name):
        self.key_of(category_name)

    async def deliver(self, rows):
        pass

    async def predict(self, question):
        key = self.key_of(question.category_name)
        if self.waiting + self.running >= self.settings.max_queue:
            raise Overloaded(f"{self.settings.max_queue} pictures wait already", 1.5)
        started = time.monotonic()
        self.waiting += 1
        try:
            rgb = self.decoded(question.name, question.picture)
            if self.gate is not None:
                try:
                    await asyncio.wait_for(self.gate.wait(), question.deadline - time.monotonic())
                except asyncio.TimeoutError:
                    raise DeadlineExceeded("the deadline passed in the queue") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            await asyncio.sleep(self.lag_s)
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        if time.monotonic() > question.deadline:
            raise DeadlineExceeded("the deadline passed under way")
        self.judged += 1
        self.batcher.on_batch(1, 0.01, None)
        return self.answer(replace(question, category_name=key), rgb, time.monotonic() - started)

    def decoded(self, name, picture):
        try:
            return read_rgb(picture, max_pixels=self.settings.max_pixels)
        except PictureError as error:
            raise PictureError(name, error.reason) from error

    def answer(self, question, rgb, seconds):
        key = question.category_name
        if not self.scores["zero_shot"] and (question.zero_shot or not self.stored.get(key)):
            raise ReferencesError(f"the fake compares with good samples, and {key!r} has none")
        height, width = rgb.shape[:2]
        rows, columns = (np.linspace(0, length - 1, GRID).astype(int) for length in (height, width))
        grid = (rgb.mean(axis=2)[np.ix_(rows, columns)] / 255).astype(np.float32)
        result = Result(
            path=question.name,
            category_name=key,
            anomaly_score=score_of(rgb),
            tile_maps=grid[None],
            tile_boxes=((0, 0, width, height),),
            size_wh=(width, height),
        )
        calibration = None if question.zero_shot else self.calibrations.get(key)
        png = png_bytes(heat_overlay(rgb, result.anomaly_map)) if question.overlay else None
        regions = chosen_regions(
            question.boxes, question.pixel_threshold, question.min_area, calibration and calibration.regions
        )
        if not (question.maps or question.overlay or regions):
            result = replace(result, tile_maps=None, tile_boxes=())
        judgement = DecisionRule(question.threshold, calibration, regions).decide(result)
        references = () if question.zero_shot else tuple(one.sha256 for one in self.stored.get(key, ()))
        return Answer(judgement, png, references, queue_seconds=seconds, compute_seconds=0.01, batch_size=1)

    async def info(self):
        if self.now == "loading":
            raise NotReady("the model is loading")
        return {"model": "fake", "engine": "none", "recipe": asdict(RECIPES["paper"]), **self.scores}

    async def classes(self):
        names = {*self.stored, *self.good, *self.calibrations, *map(class_key, self.settings.classes or ())}
        return [await self.class_info(name) for name in sorted(names)]

    async def class_info(self, category_name):
        key = self.key_of(category_name)
        state = await self.calibration(key)
        return ClassInfo(key, len(self.stored.get(key, ())), len(self.good.get(key, ())), state)

    async def references(self, category_name):
        return list(self.stored.get(self.key_of(category_name), ()))

    async def set_references(self, category_name, pictures, *, add=False):
        key = self.key_of(category_name)
        if self.error is not None:
            raise self.error
        for name, content in pictures:
            try:
                self.decoded(name, content)
            except PictureError as error:
                raise ReferencesError(f"cannot use a reference picture: {error}") from error
        shown = [StoredPicture(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in pictures]
        self.stored[key] = [*(self.stored.get(key, []) if add else []), *shown]
        return await self.class_info(key)

    async def delete_references(self, category_name):
        if not self.stored.pop(self.key_of(category_name), None):
            raise UnknownClass(f"class {class_key(category_name)!r} has no references")

    async def remove_reference(self, category_name, *, name=None, sha256=None):
        key = self.key_of(category_name)
        left = [
            one for one in self.stored.get(key, ()) if not (name in (None, one.name) and sha256 in (None, one.sha256))
        ]
        removed = len(self.stored.get(key, ())) - len(left)
        if removed != 1:
            raise (ReferencesError if removed else UnknownClass)(f"{removed} references are {name or sha256}")
        self.stored[key] = left
        if not left:
            del self.stored[key]

    async def add_good(self, category_name, pictures):
        key = self.key_of(category_name)
        scores = [score_of(self.decoded(name, content)) for name, content in pictures]
        self.good.setdefault(key, []).extend(scores)
        return len(self.good[key])

    async def delete_good(self, category_name):
        if not self.good.pop(self.key_of(category_name), None):
            raise UnknownClass(f"class {class_key(category_name)!r} has no good pictures")

    async def start_calibration(self, category_name, max_false_alarms, review=None, *, force=False):
        key = self.key_of(category_name)
        if not 0 < max_false_alarms < 1:
            raise SettingsError(f"max_false_alarms: got {max_false_alarms}, need a share between 0 and 1")
        scores = self.good.get(key, [])
        if len(scores) < needed_pictures(max_false_alarms):
            raise SettingsError(f"{len(scores)} good pictures are too few, need {needed_pictures(max_false_alarms)}")
        self.calibrations[key] = Calibration(
            Identity("fake", "00", get_method("paper"), "fake", "fp32", "cpu", class_name=key),
            max_false_alarms,
            tuple(sorted(scores)),
            tuple(sorted(scores)),
            "2026-01-01T00:00:00+00:00",
        )

    async def calibration(self, category_name):
        found = self.calibrations.get(self.key_of(category_name))
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
        if self.calibrations.pop(self.key_of(category_name), None) is None:
            raise UnknownClass(f"class {class_key(category_name)!r} has no calibration")
