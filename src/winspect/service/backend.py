"""What the HTTP layer talks to: pictures in, judgements out; references and calibrations that outlive a restart.

All methods belong to one event loop. Class names are taken as callers give them; see :func:`class_key`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.errors import DemandingPictureError, PictureError, ReferencesError, SettingsError
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.service.contract import (
    BatchRecord,
    CalibrationState,
    ClassInfo,
    DeadlineExceeded,
    Judged,
    NotReady,
    Overloaded,
    ServiceError,
    State,
    StoredPicture,
    StoreFull,
    UnknownClass,
    class_key,
)
from winspect.service.pool.batcher import Answered, Batcher
from winspect.service.pool.demanding import Turns
from winspect.service.pool.fleet import Fleet, Key, whole
from winspect.service.pool.overlay import Look
from winspect.service.settings import MEGABYTE, ModelSpec, ServiceSettings
from winspect.service.store.calibrating import Calibrations
from winspect.service.store.store import Kind, Picture, Store

if TYPE_CHECKING:
    from winspect.calibration import Calibration
    from winspect.methods.result import Result

__all__ = [
    "Backend",
    "BatchRecord",
    "CalibrationState",
    "ClassInfo",
    "DeadlineExceeded",
    "Judged",
    "NotReady",
    "Overloaded",
    "ServiceError",
    "State",
    "StoreFull",
    "StoredPicture",
    "UnknownClass",
    "class_key",
]

_LONGEST_NAME = 200
_MOST_NAMED = 10


def clean_name(name: str) -> str:
    """A client's file name as it may stand in messages and logs: no folders, no control characters, not too long."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in re.split(r"[/\\]", name)[-1])
    return plain.strip()[:_LONGEST_NAME] or "picture"


class Backend:
    """The queue, the model processes and the store.

    Args:
        settings: the limits.
        spec: what judges.

    Attributes:
        refuse_stale: do not start where a stored calibration is for another model: its class would have no verdict.
        on_batch: called with a :class:`BatchRecord` after each execution; must not block or raise.

    Raises:
        SettingsError: the store is damaged, or of a newer release.
        OutputError: the folder of the store cannot be written.
    """

    def __init__(self, settings: ServiceSettings, spec: ModelSpec) -> None:
        self.settings, self.spec = settings, spec
        self.refuse_stale = False
        self.on_batch: Callable[[BatchRecord], None] | None = None
        self._served = None if settings.classes is None else {class_key(name) for name in settings.classes}
        self._store = Store(
            settings.data, max_bytes=int(settings.max_store_mb * MEGABYTE), max_classes=settings.max_classes
        )
        self._batcher = Batcher(
            max_queue=settings.max_queue, max_batch=settings.max_batch, kind_of=lambda key: key[1:], on_ran=self._ran
        )
        self._fleet = Fleet(settings, spec, self._store, self._batcher, self._check_calibrations)
        self._turns = Turns(self._fleet.decode)
        self._calibrations = Calibrations(
            self._store, self._judge_good, lambda: self._fleet.described, self._fleet.version_of
        )
        self._given: dict[str, dict[str, Any] | None] = {}  # class calibrated at the start -> the document before
        self._has_started = False

    # -- life

    def seed(
        self, category_name: str, references: Sequence[Picture] = (), calibration: Calibration | None = None
    ) -> None:
        """Put references (in place of those stored) and a calibration into the store, before :meth:`start`.

        Raises:
            ReferencesError: a picture cannot be used.
            SettingsError: the calibration is for another class.
        """
        from winspect.pictures.decoding import read_rgb

        key = self._key(category_name)
        for name, content in references:
            try:
                read_rgb(content, max_pixels=self.settings.max_pixels)
            except PictureError as error:
                raise ReferencesError(f"cannot use a reference picture: {name}: {error.reason}") from error
        if calibration is not None and class_key(calibration.class_name) != key:
            raise SettingsError(f"the calibration is for {calibration.class_name!r}, not for {key!r}")
        if references:
            self._store.replace(key, "reference", [(clean_name(name), content) for name, content in references])
        if calibration is not None:
            self._given[key] = self._store.document(key)
            self._store.set_document(key, calibration.document())

    async def start(self) -> None:
        """Start the processes; returns at once. ``state`` is ``ready`` after load and warm-up."""
        self._fleet.start()

    async def wait_ready(self) -> None:
        """Return when the service is ready for the first time.

        Raises:
            SettingsError: a calibration that was named at the start does not fit the model or the references; or a
                stored one, where the settings say so.
            WinspectError: the model cannot be loaded: the error it ended with.
        """
        await self._fleet.wait_ready()

    async def drain(self, seconds: float) -> None:
        """Take no new work, answer what is queued for at most so long, end the processes, close the store."""
        self._fleet.draining = True
        await self._calibrations.stop()
        await self._batcher.drain(seconds)
        await self._fleet.stop()
        self._store.close()

    @property
    def state(self) -> State:
        """``loading`` until first ready; ``unavailable`` while no process can judge; ``draining`` to the end."""
        return self._fleet.state

    @property
    def queued(self) -> int:
        """Pictures that wait for the model."""
        return self._batcher.waiting

    @property
    def in_flight(self) -> int:
        """Pictures that are with a model process."""
        return self._batcher.in_flight

    @property
    def restarts(self) -> int:
        """How often a model process was started again."""
        return self._fleet.restarts

    async def _check_calibrations(self, classes: Sequence[str]) -> None:
        served = [key for key in classes if self._served is None or key in self._served]
        for key in served:
            await self._calibrations.check(key)
        if self._has_started:
            return
        try:
            self._calibrations.check_usable(self._given, stored=self.refuse_stale)
        except SettingsError:
            for key, document in self._given.items():
                await asyncio.to_thread(self._store.set_document, key, document)
            raise
        self._has_started = True

    # -- judging

    async def predict(
        self,
        picture: bytes | np.ndarray,
        *,
        name: str,
        category_name: str,
        deadline: float,
        overlay: bool = False,
        threshold: float | None = None,
        maps: bool = True,
        boxes: bool = False,
        zero_shot: bool = False,
    ) -> Judged:
        """Judge one picture. Cancelling the call takes the picture out of the queue.

        Args:
            picture: a file's bytes, or uint8 (height, width[, 3]), RGB.
            name: the client's file name; control characters and folders are taken off.
            deadline: on :func:`time.monotonic`'s clock.
            overlay: also paint the heat map.
            threshold: scores from here on are anomalous on the overlay, in place of the calibration's.
            maps: False for scores alone where nothing but the score is wanted; much less work for some recipes.
            boxes: also the maps, where the class' calibration says which pixels are defects.
            zero_shot: judge without the class' references, and without a calibration made with them.

        Raises:
            Overloaded: at once, when the queue is full or the deadline cannot be kept.
            DeadlineExceeded: the deadline passed, in the queue or under way.
            NotReady: loading, restarting or draining, or the process died under the picture.
            UnknownClass, ClassNameError, PictureError: the caller's own.
        """
        category = self._key(category_name)
        self._fleet.check_ready()
        version = 0 if zero_shot else self._fleet.version_of(category)
        calibration = self._calibrations.fitting(category, version)
        maps = maps or overlay or (boxes and calibration is not None and calibration.regions is not None)
        key = Key(category, not version, maps)
        payload = (clean_name(name), picture, _look(calibration, threshold) if overlay else None)
        answered = await self._submit(payload, key, deadline)
        result, overlay_png, references, shots, score_range = answered.value
        calibration = self._calibrations.fitting(result.category_name, references)
        return Judged(
            result=result,
            decision=None if calibration is None else calibration.decide(result),
            regions=None if calibration is None else calibration.regions,
            overlay_png=overlay_png,
            score_range=_range_of(calibration) or score_range,
            queue_seconds=answered.queue_seconds,
            compute_seconds=answered.compute_seconds,
            batch_size=answered.batch_size,
            shots=shots,
        )

    async def _submit(self, payload: tuple[str, Any, Look | None], key: Key, deadline: float) -> Answered:
        """Queue a picture; a demanding one is decoded on its own before, so that no other waits for it."""
        try:
            return await self._batcher.submit(payload, key=key, deadline=deadline)
        except DemandingPictureError:
            name, _, overlay = payload
            prepared = await self._turns.decode(*payload, deadline=deadline)
            return await self._batcher.submit((name, prepared, overlay), key=key, deadline=deadline)

    def _ran(self, size: int, seconds: float, error: str | None) -> None:
        if self.on_batch is not None:
            self.on_batch(BatchRecord(size, seconds, error))

    async def _judge_good(self, category: str, name: str, content: bytes, maps: bool) -> tuple[Result, int]:
        """A picture of a calibration, through the same queue."""
        self._fleet.check_ready()
        key = Key(category, not self._fleet.version_of(category), maps)
        # Nobody waits for it: it may be late.
        deadline = time.monotonic() + 10 * self.settings.deadline_s
        answered = await self._submit((name, content, None), key, deadline)
        result, _, references, *_ = answered.value
        return result, references

    async def info(self) -> dict[str, Any]:
        """What :meth:`winspect.WinCLIP.describe` says of the running model.

        Raises:
            NotReady: no model has been loaded yet.
        """
        if self._fleet.described is None:
            raise NotReady("the model is loading; ask again later")
        return self._fleet.described

    # -- classes, references

    def _key(self, category_name: str) -> str:
        key = class_key(category_name)
        if self._served is not None and key not in self._served:
            some = ", ".join(sorted(self._served)[:_MOST_NAMED])
            raise UnknownClass(f"the class {key!r} is not served here; served are {some}")
        return key

    async def classes(self) -> list[ClassInfo]:
        """All classes that have something stored, and those of the settings; by name."""
        stored = await asyncio.to_thread(self._store.classes)
        known = {key for key in stored if self._served is None or key in self._served} | (self._served or set())
        return [await self._info_of(key) for key in sorted(known)]

    async def class_info(self, category_name: str) -> ClassInfo:
        """One class; also one that nothing is stored of.

        Raises:
            UnknownClass, ClassNameError: it is not served; it is no name.
        """
        return await self._info_of(self._key(category_name))

    async def _info_of(self, key: str) -> ClassInfo:
        shots, good = [await asyncio.to_thread(self._store.count, key, kind) for kind in _KINDS]
        return ClassInfo(key, shots, good, self._calibrations.state(key))

    async def references(self, category_name: str) -> list[StoredPicture]:
        """The references of a class, in the order shown; none for zero-shot."""
        return await asyncio.to_thread(self._store.pictures, self._key(category_name), "reference")

    async def set_references(self, category_name: str, pictures: Sequence[Picture], *, add: bool = False) -> ClassInfo:
        """Show good samples of a class, in place of those shown before or beside them; all of them or none.

        Every prediction that is asked for after the answer is judged with them.

        Raises:
            ReferencesError: none, too many, or one that cannot be used.
            OutputError: the disk is full; nothing has changed.
            NotReady, UnknownClass, ClassNameError: as for :meth:`predict`.
        """
        key = self._key(category_name)
        if not pictures:
            raise ReferencesError(f"got no reference picture of {key!r}, need at least one good sample")
        cleaned = _cleaned(pictures)
        try:
            await self._fleet.check_pictures(cleaned)
        except PictureError as error:
            raise ReferencesError(f"cannot use a reference picture: {error}") from error
        await self._fleet.change_references(key, cleaned, add=add)
        await self._calibrations.check(key)
        return await self._info_of(key)

    async def delete_references(self, category_name: str) -> None:
        """Judge the class zero-shot again.

        Raises:
            UnknownClass: it has no references.
        """
        key = self._key(category_name)
        if not await asyncio.to_thread(self._store.count, key, "reference"):
            raise UnknownClass(f"there are no references of {key!r}")
        await self._fleet.change_references(key, (), add=False)
        await self._calibrations.check(key)

    # -- calibration

    async def add_good(self, category_name: str, pictures: Sequence[Picture]) -> int:
        """Store good pictures to calibrate with; returns how many the class has. Copies are stored once.

        Raises:
            SettingsError: too many.
            PictureError: one cannot be used; none is stored.
            OutputError: the disk is full; none is stored.
            NotReady, UnknownClass, ClassNameError: as for :meth:`predict`.
        """
        key = self._key(category_name)
        cleaned = _cleaned(pictures)
        await self._fleet.check_pictures(cleaned)
        known = await asyncio.to_thread(self._store.count, key, "good")
        if known + len(cleaned) > self.settings.max_good_pictures:
            raise SettingsError(
                f"got {len(cleaned)} good pictures beside {known}, at most {self.settings.max_good_pictures} of a "
                "class are kept"
            )
        await whole(asyncio.to_thread(self._store.add, key, "good", cleaned))
        return await asyncio.to_thread(self._store.count, key, "good")

    async def delete_good(self, category_name: str) -> None:
        """Forget the good pictures of a class.

        Raises:
            UnknownClass: it has none.
        """
        key = self._key(category_name)
        if not await asyncio.to_thread(self._store.count, key, "good"):
            raise UnknownClass(f"there are no good pictures of {key!r}")
        await whole(asyncio.to_thread(self._store.replace, key, "good", ()))

    async def start_calibration(self, category_name: str, max_false_alarms: float) -> None:
        """Judge the stored good pictures in the background and keep the calibration; see :meth:`calibration`.

        Raises:
            SettingsError: a rate out of range, too few pictures for it, or a calibration of the class is running.
            NotReady, UnknownClass, ClassNameError: as for :meth:`predict`.
        """
        key = self._key(category_name)
        self._fleet.check_ready()
        await self._calibrations.start(key, max_false_alarms)

    async def calibration(self, category_name: str) -> CalibrationState:
        """Where the calibration of a class stands."""
        return self._calibrations.state(self._key(category_name))

    async def delete_calibration(self, category_name: str) -> None:
        """Drop the calibration of a class, or stop the one that is running.

        Raises:
            UnknownClass: it has none.
        """
        await self._calibrations.delete(self._key(category_name))


_KINDS: tuple[Kind, Kind] = ("reference", "good")


def _cleaned(pictures: Sequence[Picture]) -> list[Picture]:
    return [(clean_name(name), content) for name, content in pictures]


def _look(calibration: Calibration | None, threshold: float | None) -> Look:
    """Of an overlay: the scale and, unless the request has a threshold, the threshold of the calibration."""
    if threshold is not None:
        return Look(_range_of(calibration), threshold, anomalous_at=True)
    return Look(_range_of(calibration), None if calibration is None else calibration.threshold)


def _range_of(calibration: Calibration | None) -> ScoreRange | None:
    """The scale of heat maps by a calibration; None where it says nothing of maps."""
    if calibration is None or calibration.map_maxima is None:
        return None
    return run_range(calibration.map_maxima, calibration.pixel_threshold)
