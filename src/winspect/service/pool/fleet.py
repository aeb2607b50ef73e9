"""The model processes together: kept running, one per device; what they load, and which references they know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from winspect.errors import ReferencesError, WinspectError
from winspect.pictures.tiles import Prepared
from winspect.service.contract import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    Question,
    State,
    StoredPicture,
    UnknownClass,
    class_key,
)
from winspect.service.pool.batcher import Batcher, Lane
from winspect.service.pool.processes import ModelProcess
from winspect.service.pool.worker import decoders
from winspect.service.settings import ModelSpec, ServiceSettings
from winspect.service.store.store import Picture, Store

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_DEFAULT_CLASS = "object"
_GOODBYE_S = 5.0  # from the request to stop to the kill
_STEADY_S = 60.0  # a process that lived so long is started again without waiting longer each time
_MOST_DEMANDING = 32  # pictures that wait to be decoded apart


class Fleet:
    """See the module. Belongs to one event loop.

    Args:
        store: where references lie. Every process that starts is shown them before it is given work.
        batcher: what gives work to processes that can work.
        before_ready: awaited with the classes that anything is stored of, when a model is loaded.

    Attributes:
        described: the model's description; None before one was loaded.
        draining: whether the service ends: no process is started again.
        processes: all that run. ``lanes``: of those that can work.
        restarts: how often a process was started again.
        changing: held while references change.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        spec: ModelSpec,
        store: Store,
        batcher: Batcher,
        before_ready: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self.settings, self._spec, self._store, self._batcher = settings, spec, store, batcher
        self._before_ready = before_ready
        self.described: dict[str, Any] | None = None
        self.draining = False
        self.processes: list[ModelProcess] = []
        self.lanes: dict[ModelProcess, Lane] = {}
        self.restarts = 0
        self.changing = asyncio.Lock()
        self._lives: list[asyncio.Task[None]] = []
        self._shown_to: set[ModelProcess] = set()  # processes that know the references, and must hear of new ones
        self._references: dict[str, tuple[str, ...]] = {}  # class -> hashes of its references
        self._demanding = 0
        self._first: asyncio.Future[None] | None = None  # how the first start of a process ended

    # -- life

    def start(self) -> None:
        """Start the processes, in the background."""
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._lives = [loop.create_task(self._keep_running(device)) for device in self._spec.devices or (None,)]

    async def wait_ready(self) -> None:
        """Return when a process can work for the first time; raise what the first one ended with instead."""
        if self._first is None:
            raise NotReady("the service has not been started")
        await asyncio.shield(self._first)

    async def stop(self) -> None:
        """End the processes; a change under way is gone through with before."""
        self.draining = True
        async with self.changing:
            await asyncio.gather(
                *(process.stop(_GOODBYE_S if process in self.lanes else 0.0) for process in list(self.processes))
            )
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    @property
    def state(self) -> State:
        """See :class:`winspect.service.contract.Status`."""
        if self.draining:
            return "draining"
        if any(not process.is_silent for process in self.lanes):
            return "ready"
        return "unavailable" if self._first is not None and self._first.done() else "loading"

    def check_ready(self) -> None:
        """Raise NotReady unless a process can work."""
        if self.state != "ready":
            reasons = {"loading": "the model is loading", "draining": "the service is ending"}
            other = "the model does not answer" if self.lanes else "the model is being started again"
            raise NotReady(f"{reasons.get(self.state, other)}; ask again later")

    async def _keep_running(self, device: str | None) -> None:
        backoff_s = self.settings.backoff_s
        while True:
            began = time.monotonic()
            await self._one_life(device)
            if time.monotonic() - began > _STEADY_S:
                backoff_s = self.settings.backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, self.settings.most_backoff_s)
            if self.draining:
                return
            self.restarts += 1

    async def _one_life(self, device: str | None) -> None:
        """Run a process from its start to its end."""
        reason = "stopped"
        process = ModelProcess(self.settings, self._spec, device)
        self.processes.append(process)
        watch = asyncio.get_running_loop().create_task(process.watch(min(1.0, self.settings.hang_s / 4)))
        try:
            await process.start()
            await self._prepare(process)
            self._attach(process)
            reason = await process.ended
            if not self.draining:
                logger.error("the model process %s has ended (%s); it is started again", process.pid, reason)
        except Exception as error:
            trace = None if isinstance(error, WinspectError) else error
            logger.error("the model cannot be started: %s", error, exc_info=trace)
            if self._first is not None and not self._first.done():
                self._first.set_exception(error)
                self._first.exception()  # it may be that nobody waits
            reason = "it could not be started"
            process.kill(reason)
            await process.ended
        finally:
            watch.cancel()
            process.kill(reason)  # where this was cancelled
            self.processes.remove(process)
            self._shown_to.discard(process)
            if lane := self.lanes.pop(process, None):
                self._batcher.detach(lane, f"the model process has ended ({reason}); ask again")

    async def _prepare(self, process: ModelProcess) -> None:
        """Bring a process that has started to where it can work."""
        self.described = await process.ask("load")
        async with self.changing:
            stored = await asyncio.to_thread(self._store.classes)
            for category_name in stored:
                await self._show(category_name, [process])
            self._shown_to.add(process)
        served = (_DEFAULT_CLASS,) if self.settings.classes is None else self.settings.classes
        self.described = await process.ask("warm_up", sorted({*map(class_key, served), *self._references}))
        await self._before_ready(stored)

    def _attach(self, process: ModelProcess) -> None:
        """Give a process work."""
        process.limit_s = self.settings.hang_s
        # So many are prepared ahead in `predict_many`, too.
        self.lanes[process] = self._batcher.attach(
            lambda questions: process.ask("score", questions), ahead=2 * decoders(self._spec)
        )
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    # -- pictures apart from batches

    async def check_pictures(self, pictures: Sequence[Picture]) -> None:
        """Refuse pictures that the model cannot use.

        Raises:
            PictureError: the first of them.
            NotReady: there is no process to try them.
        """
        self.check_ready()
        questions = [Question(name, content, "", time.monotonic()) for name, content in pictures]
        await next(iter(self.lanes)).ask("check", questions)

    async def decode(self, question: Question) -> Prepared:
        """Decode a demanding picture: one after the other, apart from all others, each until its deadline.

        Raises:
            Overloaded: at once: too many wait.
            DeadlineExceeded: the question's deadline has passed.
            PictureError: it cannot be used, or takes too long.
            NotReady: there is no process to decode it.
        """
        self.check_ready()
        if self._demanding >= _MOST_DEMANDING:
            raise Overloaded(f"{self._demanding} pictures wait that take long to decode; ask again later", 5.0)
        self._demanding += 1
        answer = next(iter(self.lanes)).ask("decode", question)
        answer.add_done_callback(self._note_decoded)
        # Waited for, never cancelled: the process holds the picture all the same, so that it counts.
        await asyncio.wait([answer], timeout=max(0.0, question.deadline - time.monotonic()))
        prepared = answer.result() if answer.done() else None
        if prepared is None:
            raise DeadlineExceeded(
                f"{question.name}: not decoded within its deadline; allow more time, or send a smaller one"
            )
        return prepared

    def _note_decoded(self, answer: asyncio.Future[Prepared]) -> None:
        self._demanding -= 1
        answer.exception()  # whoever asked may have gone

    # -- references

    def references_of(self, category_name: str) -> tuple[str, ...]:
        """Hashes of the references that a class is scored with; none for zero-shot."""
        return self._references.get(category_name, ())

    async def change_references(self, category_name: str, pictures: Sequence[Picture], *, add: bool) -> None:
        """Store references and show them to all processes; both, or neither, even where the caller goes away.

        Raises:
            ReferencesError: too many.
            OutputError: the disk is full.
        """

        def change(known: Sequence[StoredPicture]) -> None:
            if len(pictures) + (len(known) if add else 0) > self.settings.max_references:
                raise ReferencesError(
                    f"got {len(pictures)} reference pictures{f' beside {len(known)}' if add else ''}, at most "
                    f"{self.settings.max_references} of a class are kept"
                )
            (self._store.add if add else self._store.replace)(category_name, "reference", pictures)

        await whole(self._change(category_name, change))

    async def remove_reference(self, category_name: str, name: str | None, sha256: str | None) -> None:
        """Remove one reference from the store and from all processes, as :meth:`change_references` changes them.

        Args:
            name, sha256: of the picture; one of them is enough where it names one alone.

        Raises:
            UnknownClass: the class has no such reference.
            ReferencesError: it has several.
        """

        def change(known: Sequence[StoredPicture]) -> None:
            self._store.remove(category_name, "reference", _the_one(category_name, known, name, sha256).sha256)

        await whole(self._change(category_name, change))

    async def _change(self, category_name: str, change: Callable[[Sequence[StoredPicture]], None]) -> None:
        """Change the stored references of a class, and show them; ``change`` gets those known, in a thread."""
        async with self.changing:
            known = await asyncio.to_thread(self._store.pictures, category_name, "reference")
            contents = await asyncio.to_thread(self._store.contents, category_name, "reference")
            await asyncio.to_thread(change, known)
            try:
                await self._show(category_name, list(self._shown_to))
            except WinspectError:
                before = [(picture.name, content) for picture, content in zip(known, contents, strict=True)]
                await asyncio.to_thread(self._store.replace, category_name, "reference", before)
                await self._show(category_name, list(self._shown_to))
                raise

    async def _show(self, category_name: str, processes: Sequence[ModelProcess]) -> None:
        """Show processes the stored references of a class. One that dies is shown them when it is started again."""
        stored = await asyncio.to_thread(self._store.pictures, category_name, "reference")
        if hashes := tuple(picture.sha256 for picture in stored):
            contents = await asyncio.to_thread(self._store.contents, category_name, "reference")
            self._references[category_name] = hashes
            named = [(picture.name, content) for picture, content in zip(stored, contents, strict=True)]
            answers = [process.ask("show", category_name, hashes, named) for process in processes]
        else:
            self._references.pop(category_name, None)
            answers = [process.ask("forget", category_name) for process in processes]
        for outcome in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotReady):
                raise outcome


def _the_one(category_name: str, known: Sequence[StoredPicture], name: str | None, sha256: str | None) -> StoredPicture:
    """The reference of this name, or this hash, or both."""
    found = [each for each in known if name in (None, each.name) and sha256 in (None, each.sha256)]
    if not found:
        what = " ".join(repr(value) for value in (name, sha256) if value is not None)
        raise UnknownClass(f"{category_name!r} has no reference {what}; GET /v1/references lists those it has")
    if len(found) > 1:
        hashes = ", ".join(each.sha256 for each in found)
        raise ReferencesError(
            f"{category_name!r} has {len(found)} references named {name!r}: name one by its sha256, {hashes}"
        )
    return found[0]


async def whole(change: Coroutine[Any, Any, Value]) -> Value:
    """Go through with a change also when whoever asked for it goes away: the store and the model must agree."""
    return await asyncio.shield(asyncio.ensure_future(change))
