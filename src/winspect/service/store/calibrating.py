"""Calibrations of a running service: made in the background, kept in the store, used as long as they fit."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
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
Retest = Callable[[str, Calibration, Mapping[str, float]], object]
"""(class, what was made, scores by the hashes of the pictures); refuses by an error."""


@dataclass(frozen=True)
class _Kept:
    """A stored calibration, hashes of the references of the class, and why it must not be used (``stale``), or None."""

    calibration: Calibration
    references: tuple[str, ...]
    stale: str | None


@dataclass(eq=False)
class Job:
    """A calibration that is made, and the model behind the queue as :func:`calibrate` needs it.

    It is a :class:`winspect.inspector.protocol.CalibratedScorer` for a thread beside the event loop.

    Attributes:
        references: hashes of those to score with. ``score``: scores through the queue.
        stopped: set to give up. scores: so far, by the hashes of the pictures.
    """

    category_name: str
    state: CalibrationState
    references: tuple[str, ...]
    store: Store
    score: ScoreOne
    loop: asyncio.AbstractEventLoop
    known: Identity
    stopped: threading.Event = field(default_factory=threading.Event)
    has_begun: bool = False
    task: asyncio.Task[None] | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores of the class."""
        return self.known

    def references_of(self, category_name: str = "") -> tuple[Fingerprint, ...]:
        """Names and hashes of the good samples of the class."""
        return tuple(picture.fingerprint for picture in self.store.pictures(self.category_name, "reference"))

    def predict_many(
        self, pictures: Iterable[StoredPicture], category_name: str = "", *, maps: bool = True, **_: Any
    ) -> Iterator[Result]:
        """Results in order, a few pictures at a time."""
        waiting: deque[Future[Result]] = deque()
        try:
            for picture in pictures:
                waiting.append(asyncio.run_coroutine_threadsafe(self._result(picture, maps), self.loop))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    async def _result(self, picture: StoredPicture, maps: bool) -> Result:
        """A result, waiting for a place in the queue and for a model that is started again."""
        content = await asyncio.to_thread(self.store.content, self.category_name, "good", picture.sha256)
        deaths = 0
        while not self.stopped.is_set():
            try:
                answer = await self.score(self.category_name, picture.name, content, maps)
                result, references = answer.result, answer.references
            except PictureError as error:
                result, references = Result(picture.name, self.category_name, error=error), self.references
            except (Overloaded, NotReady) as error:
                deaths += isinstance(error, NotReady)
                if deaths >= _MOST_DEATHS:
                    raise
                await asyncio.sleep(min(error.retry_after_s, 1.0))
                continue
            if references != self.references:
                raise SettingsError("the references were changed while the calibration ran; start it again")
            self.state = replace(self.state, done=self.state.done + 1)
            if result.anomaly_score is not None:
                self.scores[picture.sha256] = float(result.anomaly_score)
            return result
        raise ServiceError("it was stopped")


class Calibrations:
    """See the module. Belongs to one event loop.

    Args:
        store: where documents and good pictures lie.
        score: scores a picture through the queue.
        fleet: knows the running model, and the sets of references.
        refuse_stale: do not start beside stored calibrations that were made with another model. Those whose references
            were changed while the service ran may stay: callers saw their class become stale then.
        retest: refuses what is made (class, calibration, scores by hash) with SettingsError; None for no check.
    """

    def __init__(
        self, store: Store, score: ScoreOne, fleet: Fleet, *, refuse_stale: bool, retest: Retest | None = None
    ) -> None:
        self._store, self._score, self._fleet, self._refuse_stale = store, score, fleet, refuse_stale
        self._retest = retest
        self._given: dict[str, Calibration] = {}  # named at the start; stored when all of them can be used
        self._has_started = False
        self._kept: dict[str, _Kept] = {}
        self._jobs: dict[str, Job] = {}  # that run or have failed
        self._turn, self._checking = asyncio.Lock(), asyncio.Lock()

    def give(self, category_name: str, calibration: Calibration) -> None:
        """Take a calibration that was named at the start, in place of one that is stored."""
        self._given[category_name] = calibration

    async def check_all(self, classes: Sequence[str]) -> None:
        """Look at the calibrations of classes, and at those given, when a model is loaded.

        Raises:
            SettingsError: at the start of the service: one must not be used. Names the class, and what is different.
        """
        for category_name in {*classes, *self._given}:
            await self.check(category_name)
        if self._has_started:
            return
        for category_name, kept in self._kept.items():
            self._check_usable(category_name, kept)
        for category_name, calibration in self._given.items():
            await asyncio.to_thread(self._store.set_document, category_name, calibration.document())
        self._given.clear()
        self._has_started = True

    async def check(self, category_name: str) -> None:
        """Look again whether the calibration of a class fits its references and the model."""
        async with self._checking:  # else an earlier look could overwrite a later one
            if self._fleet.described is None:
                return  # all are looked at when a model is loaded
            references = self._fleet.references_of(category_name)
            calibration = self._given.get(category_name)
            if calibration is None:
                document = await asyncio.to_thread(self._store.document, category_name)
                calibration = None if document is None else Calibration.read(document)
            identity = await self._identity(category_name)
            self._kept.pop(category_name, None)
            if calibration is not None:
                self._kept[category_name] = _Kept(calibration, references, _difference(calibration, identity))

    def _check_usable(self, category_name: str, kept: _Kept) -> None:
        if kept.stale is not None and category_name in self._given:
            raise SettingsError(f"the calibration of {category_name!r} cannot be used: {kept.stale}")
        shown = kept.calibration.identity.references
        if (
            kept.stale is not None
            and self._refuse_stale
            and _difference(kept.calibration, self._model(category_name, shown))
        ):
            raise SettingsError(
                f"the calibration of {category_name!r} that is stored in {self._store.path.parent} cannot be used: "
                f"{kept.stale}. With --allow-stale the service starts all the same, and gives no verdict on it"
            )

    async def _identity(self, category_name: str) -> Identity:
        """Identity of the running model with the references of a class."""
        stored = await asyncio.to_thread(self._store.pictures, category_name, "reference")
        return self._model(category_name, [picture.fingerprint for picture in stored])

    def _model(self, category_name: str, references: Sequence[Fingerprint]) -> Identity:
        if self._fleet.described is None:
            raise NotReady("no model has been loaded yet; start again when the service is ready")
        return Identity.read(self._fleet.described).of_class(category_name, references)

    def fitting(self, category_name: str, references: tuple[str, ...]) -> Calibration | None:
        """The calibration of a class that is scored with these references; None without one that fits."""
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
            review=kept.calibration.review,
            review_threshold=kept.calibration.review_threshold,
            document=kept.calibration.document(),
        )

    async def start(
        self, category_name: str, max_false_alarms: float, review: float | None = None, *, force: bool = False
    ) -> None:
        """Calibrate in the background, at the rates of :func:`winspect.inspector.calibrating.calibrate`.

        Args:
            force: leave the retest out.

        Raises:
            SettingsError: a rate out of range, too few pictures, or a calibration of this class is running.
        """
        pictures = await asyncio.to_thread(self._store.pictures, category_name, "good")
        check_enough(len(pictures), max_false_alarms)
        references, identity = self._fleet.references_of(category_name), await self._identity(category_name)
        if self.state(category_name).state == "running":
            raise SettingsError(f"a calibration of {category_name!r} is running; wait for it, or delete it")
        state = CalibrationState("running", max_false_alarms=max_false_alarms, total=len(pictures), review=review)
        loop = asyncio.get_running_loop()
        job = Job(category_name, state, references, self._store, self._score, loop, identity)
        self._jobs[category_name] = job
        job.task = loop.create_task(self._run(job, pictures, force))

    async def _run(self, job: Job, pictures: Sequence[StoredPicture], force: bool) -> None:
        rates: dict[str, Any] = {"max_false_alarms": job.state.max_false_alarms, "review": job.state.review}
        try:
            async with self._turn:
                job.has_begun = True
                made = await asyncio.to_thread(calibrate, job, pictures, job.category_name, **rates)
                if self._retest is not None and not force:
                    await asyncio.to_thread(self._retest, job.category_name, made, job.scores)
                await asyncio.to_thread(self._store.set_document, job.category_name, made.document())
            await self.check(job.category_name)
            if self._jobs.get(job.category_name) is job:
                del self._jobs[job.category_name]
        except Exception as error:
            is_ours = isinstance(error, WinspectError)
            logger.error("calibrating %r failed: %s", job.category_name, error, exc_info=None if is_ours else error)
            message = str(error) if is_ours else "it failed; the service's log says why"
            job.state = replace(job.state, state="failed", message=message)

    async def delete(self, category_name: str) -> None:
        """Stop the calibration that runs, and drop the one that is stored.

        Raises:
            UnknownClass: there is neither.
        """
        if self.state(category_name).state == "none":
            raise UnknownClass(f"there is no calibration of {category_name!r}")
        if job := self._jobs.pop(category_name, None):
            await _stop(job)
        await asyncio.to_thread(self._store.set_document, category_name, None)
        self._kept.pop(category_name, None)

    async def stop(self) -> None:
        """Stop all that run."""
        for job in list(self._jobs.values()):
            await _stop(job)


def _difference(calibration: Calibration, identity: Identity) -> str | None:
    """Why a calibration is for something else; None where it fits."""
    try:
        calibration.check(identity)
    except SettingsError as error:
        return str(error)
    return None


async def _stop(job: Job) -> None:
    if job.task is not None and not job.task.done():
        job.stopped.set()
        if not job.has_begun:  # it waits for others' turn
            job.task.cancel()
        await asyncio.wait([job.task])
