"""Calibrations of a running service: made in the background, kept in the store, used as long as they fit."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from winspect.calibration import Calibration
from winspect.calibration.conformal import check_enough
from winspect.errors import PictureError, SettingsError, WinspectError
from winspect.inspector.calibrating import calibrate
from winspect.methods.identity import Identity
from winspect.methods.result import Result
from winspect.pictures.fingerprints import Fingerprint
from winspect.service.contract import (
    Answer,
    CalibrationState,
    NotReady,
    Overloaded,
    ServiceError,
    StoredPicture,
    UnknownClass,
)
from winspect.service.store.store import Store

if TYPE_CHECKING:
    from winspect.service.pool.fleet import Fleet

logger = logging.getLogger(__name__)

_AT_ONCE = 4  # pictures of a calibration in the queue: callers come first
_MOST_DEATHS = 3  # of the model under one picture

ScoreOne = Callable[[str, str, bytes, bool], Awaitable[Answer]]
"""(class, name, file, maps) to an answer."""


class QueuedModel:
    """The model behind the queue, as calibrating needs it: a :class:`winspect.inspector.protocol.CalibratedScorer`.

    Args:
        identity: of the class that is calibrated.
        references: of that class.
        score: begins with a stored picture, with maps or without.
    """

    def __init__(
        self,
        identity: Identity,
        references: Sequence[StoredPicture],
        score: Callable[[StoredPicture, bool], Future[Result]],
    ) -> None:
        self._identity, self._references, self._score = identity, references, score

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores of the class."""
        return self._identity

    def references_of(self, category_name: str = "") -> tuple[Fingerprint, ...]:
        """Names and hashes of the good samples of the class."""
        return tuple(picture.fingerprint for picture in self._references)

    def predict_many(
        self, pictures: Iterable[StoredPicture], category_name: str = "", *, maps: bool = True, **_: Any
    ) -> Iterator[Result]:
        """Results in order, a few pictures at a time."""
        waiting: deque[Future[Result]] = deque()
        try:
            for picture in pictures:
                waiting.append(self._score(picture, maps))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _Kept:
    """A stored calibration. ``references``: the set it is for; ``stale``: why it must not be used, or None."""

    calibration: Calibration
    references: int
    stale: str | None


@dataclass(eq=False)
class _Job:
    state: CalibrationState
    references: int
    stopped: threading.Event
    task: asyncio.Task[None] | None = None
    has_begun: bool = False


class Calibrations:
    """See the module. Belongs to one event loop.

    Args:
        store: where documents and good pictures lie.
        score: scores a picture through the queue.
        fleet: knows the running model, and the sets of references.
        refuse_stale: do not start beside stored calibrations that were made with another model. Those whose references
            were changed while the service ran may stay: callers saw their class become stale then.
    """

    def __init__(self, store: Store, score: ScoreOne, fleet: Fleet, *, refuse_stale: bool) -> None:
        self._store, self._score, self._fleet, self._refuse_stale = store, score, fleet, refuse_stale
        self._given: dict[str, dict[str, Any] | None] = {}  # class calibrated at the start -> the document before
        self._has_started = False
        self._kept: dict[str, _Kept] = {}
        self._jobs: dict[str, _Job] = {}  # that run or have failed
        self._turn, self._checking = asyncio.Lock(), asyncio.Lock()

    async def check(self, category_name: str) -> None:
        """Look again whether the calibration of a class fits its references and the model."""
        async with self._checking:  # else an earlier look could overwrite a later one
            version = self._fleet.version_of(category_name)
            document = await asyncio.to_thread(self._store.document, category_name)
            references = await asyncio.to_thread(self._store.pictures, category_name, "reference")
            self._kept.pop(category_name, None)
            if document is None or self._fleet.described is None:
                return
            calibration, stale = Calibration.read(document), None
            try:
                calibration.check(self._identity(category_name, [picture.fingerprint for picture in references]))
            except SettingsError as error:
                stale = str(error)
            self._kept[category_name] = _Kept(calibration, version, stale)

    def give(self, category_name: str, calibration: Calibration) -> None:
        """Store a calibration that was named at the start; a start that it does not fit takes it back."""
        self._given[category_name] = self._store.document(category_name)
        self._store.set_document(category_name, calibration.document())

    async def check_all(self, classes: Sequence[str]) -> None:
        """Look at the calibrations of classes when a model is loaded.

        Raises:
            SettingsError: at the start of the service: one must not be used. Names the class, and what is different.
        """
        for category_name in classes:
            await self.check(category_name)
        if self._has_started:
            return
        try:
            for category_name, kept in self._kept.items():
                self._check_usable(category_name, kept)
        except SettingsError:
            for category_name, document in self._given.items():
                await asyncio.to_thread(self._store.set_document, category_name, document)
            raise
        self._has_started = True

    def _check_usable(self, category_name: str, kept: _Kept) -> None:
        if kept.stale is not None and category_name in self._given:
            raise SettingsError(f"the calibration of {category_name!r} cannot be used: {kept.stale}")
        if kept.stale is not None and self._refuse_stale and self._is_of_another_model(kept.calibration):
            raise SettingsError(
                f"the calibration of {category_name!r} that is stored in {self._store.path.parent} cannot be used: "
                f"{kept.stale}. With --allow-stale the service starts all the same, and gives no verdict on it"
            )

    def _is_of_another_model(self, calibration: Calibration) -> bool:
        try:
            calibration.check(self._identity(calibration.class_name, calibration.identity.references))
        except SettingsError:
            return True
        return False

    def _identity(self, category_name: str, references: Sequence[Fingerprint]) -> Identity:
        """Identity of a class of the running model."""
        if self._fleet.described is None:
            raise NotReady("no model has been loaded yet; start again when the service is ready")
        return Identity.read(self._fleet.described).of_class(category_name, references)

    def fitting(self, category_name: str, references: int) -> Calibration | None:
        """The calibration of a class that is scored with this set of references; None without one that fits."""
        kept = self._kept.get(category_name)
        if kept is None or kept.stale is not None or kept.references != references:
            return None
        return kept.calibration

    def state(self, category_name: str) -> CalibrationState:
        """State of the calibration of a class."""
        job = self._jobs.get(category_name)
        if job is not None:
            return job.state
        kept = self._kept.get(category_name)
        if kept is None:
            return CalibrationState()
        return CalibrationState(
            state="ready" if kept.stale is None else "stale",
            message=kept.stale,
            max_false_alarms=kept.calibration.max_false_alarms,
            threshold=kept.calibration.threshold,
            pictures=kept.calibration.pictures,
            date=kept.calibration.date,
            document=kept.calibration.document(),
        )

    async def start(self, category_name: str, max_false_alarms: float) -> None:
        """Calibrate in the background.

        Raises:
            SettingsError: a rate out of range, too few pictures, or a calibration of this class is running.
        """
        pictures = await asyncio.to_thread(self._store.pictures, category_name, "good")
        check_enough(len(pictures), max_false_alarms)
        if self.state(category_name).state == "running":
            raise SettingsError(f"a calibration of {category_name!r} is running; wait for it, or delete it")
        state = CalibrationState("running", max_false_alarms=max_false_alarms, total=len(pictures))
        job = _Job(state, self._fleet.version_of(category_name), threading.Event())
        self._jobs[category_name] = job
        job.task = asyncio.get_running_loop().create_task(self._run(category_name, job, pictures))

    async def delete(self, category_name: str) -> None:
        """Stop the calibration that runs, and drop the one that is stored.

        Raises:
            UnknownClass: there is neither.
        """
        if self.state(category_name).state == "none":
            raise UnknownClass(f"there is no calibration of {category_name!r}")
        await self._stop(self._jobs.pop(category_name, None))
        await asyncio.to_thread(self._store.set_document, category_name, None)
        self._kept.pop(category_name, None)

    async def stop(self) -> None:
        """Stop all that run."""
        for job in list(self._jobs.values()):
            await self._stop(job)

    async def _stop(self, job: _Job | None) -> None:
        if job is not None and job.task is not None and not job.task.done():
            job.stopped.set()
            if not job.has_begun:  # it waits for others' turn
                job.task.cancel()
            await asyncio.wait([job.task])

    async def _run(self, category_name: str, job: _Job, pictures: Sequence[StoredPicture]) -> None:
        try:
            async with self._turn:
                job.has_begun = True
                calibration = await self._calibrate(category_name, job, pictures)
                await asyncio.to_thread(self._store.set_document, category_name, calibration.document())
            await self.check(category_name)
            if self._jobs.get(category_name) is job:
                del self._jobs[category_name]
        except Exception as error:
            is_ours = isinstance(error, WinspectError)
            logger.error("calibrating %r failed: %s", category_name, error, exc_info=None if is_ours else error)
            message = str(error) if is_ours else "it failed; the service's log says why"
            job.state = replace(job.state, state="failed", message=message)

    async def _calibrate(self, category_name: str, job: _Job, pictures: Sequence[StoredPicture]) -> Calibration:
        loop = asyncio.get_running_loop()

        def score(picture: StoredPicture, maps: bool) -> Future[Result]:
            return asyncio.run_coroutine_threadsafe(self._patiently(category_name, job, picture, maps), loop)

        references = await asyncio.to_thread(self._store.pictures, category_name, "reference")
        identity = self._identity(category_name, [picture.fingerprint for picture in references])
        model = QueuedModel(identity, references, score)
        rate = job.state.max_false_alarms or 0.0
        return await asyncio.to_thread(calibrate, model, pictures, category_name, max_false_alarms=rate)

    async def _patiently(self, category_name: str, job: _Job, picture: StoredPicture, maps: bool) -> Result:
        """One result, waiting for a place in the queue and for a model that is started again."""
        content = await asyncio.to_thread(self._store.content, category_name, "good", picture.sha256)
        deaths = 0
        while not job.stopped.is_set():
            try:
                answer = await self._score(category_name, picture.name, content, maps)
                result, references = answer.result, answer.references
            except PictureError as error:
                result, references = Result(picture.name, category_name, error=error), job.references
            except Overloaded as error:
                await asyncio.sleep(min(error.retry_after_s, 1.0))
                continue
            except NotReady as error:
                deaths += 1
                if deaths >= _MOST_DEATHS:
                    raise
                await asyncio.sleep(error.retry_after_s)
                continue
            if references != job.references:
                raise SettingsError("the references were changed while the calibration ran; start it again")
            job.state = replace(job.state, done=job.state.done + 1)
            return result
        raise ServiceError("it was stopped")
