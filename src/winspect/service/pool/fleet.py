"""The model processes together: what they load, which references they know, and whether any of them can work."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from winspect.errors import ReferencesError, WinspectError
from winspect.pictures.tiles import Prepared
from winspect.service.contract import NotReady, Question, State, class_key
from winspect.service.pool.batcher import Batcher, Lane
from winspect.service.pool.processes import Keeper, ModelProcess
from winspect.service.pool.worker import decoders
from winspect.service.settings import ModelSpec, ServiceSettings
from winspect.service.store.store import Picture, Store

Value = TypeVar("Value")

_DEFAULT_CLASS = "object"


class Fleet:
    """See the module. Belongs to one event loop.

    Args:
        store: where references lie. Every process that starts is shown them before it is given work.
        batcher: what gives work to processes that can work.
        before_ready: awaited with the classes that anything is stored of, when a model is loaded.

    Attributes:
        described: the model's description; None before one was loaded.
        draining: whether the service ends.
        keepers: one per device.
        lanes: of the processes that can work.
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
        self.keepers = [
            Keeper(settings, spec, device, prepare=self._prepare, ready=self._ready, gone=self._gone)
            for device in spec.devices or (None,)
        ]
        self.lanes: dict[ModelProcess, Lane] = {}
        self._shown_to: set[ModelProcess] = set()  # processes that know the references, and must hear of new ones
        self._versions: dict[str, int] = {}  # class -> number of its set of references
        self._numbers = itertools.count(1)
        self.changing = asyncio.Lock()
        self._was_ready = False
        self._first: asyncio.Future[None] | None = None

    # -- life

    def start(self) -> None:
        """Start the processes, in the background."""
        self._first = asyncio.get_running_loop().create_future()
        for keeper in self.keepers:
            keeper.start()

    async def wait_ready(self) -> None:
        """Return when a process can work for the first time; raise what the first one ended with instead."""
        if self._first is None:
            raise NotReady("the service has not been started")
        await asyncio.shield(self._first)

    async def stop(self) -> None:
        """End the processes; a change under way is gone through with before."""
        async with self.changing:
            await asyncio.gather(*(keeper.stop() for keeper in self.keepers))

    @property
    def state(self) -> State:
        """See :class:`winspect.service.contract.Status`."""
        if self.draining:
            return "draining"
        if any(not process.is_silent for process in self.lanes):
            return "ready"
        return "unavailable" if self._was_ready or any(keeper.failure for keeper in self.keepers) else "loading"

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return sum(keeper.restarts for keeper in self.keepers)

    def check_ready(self) -> None:
        """Raise NotReady unless a process can work."""
        if self.state != "ready":
            reasons = {"loading": "the model is loading", "draining": "the service is ending"}
            other = "the model does not answer" if self.lanes else "the model is being started again"
            raise NotReady(f"{reasons.get(self.state, other)}; ask again later")

    async def _prepare(self, process: ModelProcess) -> None:
        """Bring a process that has started to where it can work."""
        try:
            self.described = await process.ask("load")
            async with self.changing:
                stored = await asyncio.to_thread(self._store.classes)
                for category_name in stored:
                    await self._show(category_name, [process], changed=False)
                self._shown_to.add(process)
            served = (_DEFAULT_CLASS,) if self.settings.classes is None else self.settings.classes
            self.described = await process.ask("warm_up", sorted({*map(class_key, served), *self._versions}))
            await self._before_ready(stored)
        except Exception as error:
            self._shown_to.discard(process)
            if self._first is not None and not self._first.done():
                self._first.set_exception(error)
                self._first.exception()  # it may be that nobody waits
            raise

    def _ready(self, process: ModelProcess) -> None:
        self._was_ready = True
        # So many are prepared ahead in `predict_many`, too.
        self.lanes[process] = self._batcher.attach(
            lambda _, items: process.ask("score", items), ahead=2 * decoders(self._spec)
        )
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _gone(self, process: ModelProcess, reason: str) -> None:
        self._shown_to.discard(process)
        self._batcher.detach(self.lanes.pop(process), f"the model process has ended ({reason}); ask again")

    # -- references

    def version_of(self, category_name: str) -> int:
        """The number of the set of references of a class; 0 for none. Sets that differ never share a number."""
        return self._versions.get(category_name, 0)

    async def check_pictures(self, pictures: Sequence[Picture]) -> None:
        """Refuse pictures that the model cannot use.

        Raises:
            PictureError: the first of them.
            NotReady: there is no process to try them.
        """
        self.check_ready()
        questions = [Question(name, content, "", time.monotonic()) for name, content in pictures]
        errors = await next(iter(self.lanes)).ask("check", questions)
        if error := next((error for error in errors if error is not None), None):
            raise error

    async def decode(self, question: Question) -> Prepared:
        """Decode a demanding picture, apart from all others.

        Raises:
            PictureError: it cannot be used, or takes too long.
            NotReady: there is no process to decode it.
        """
        self.check_ready()
        return await next(iter(self.lanes)).ask("decode", question)

    async def change_references(self, category_name: str, pictures: Sequence[Picture], *, add: bool) -> None:
        """Store references and show them to all processes; both, or neither, even where the caller goes away.

        Raises:
            ReferencesError: too many.
            OutputError: the disk is full.
        """
        await whole(self._change(category_name, pictures, add))

    async def _change(self, category_name: str, pictures: Sequence[Picture], add: bool) -> None:
        async with self.changing:
            known = await asyncio.to_thread(self._store.pictures, category_name, "reference")
            if len(pictures) + (len(known) if add else 0) > self.settings.max_references:
                raise ReferencesError(
                    f"got {len(pictures)} reference pictures{f' beside {len(known)}' if add else ''}, at most "
                    f"{self.settings.max_references} of a class are kept"
                )
            contents = await asyncio.to_thread(self._store.contents, category_name, "reference")
            change = self._store.add if add else self._store.replace
            await asyncio.to_thread(change, category_name, "reference", pictures)
            try:
                await self._show(category_name, list(self._shown_to))
            except WinspectError:
                before = [(picture.name, content) for picture, content in zip(known, contents, strict=True)]
                await asyncio.to_thread(self._store.replace, category_name, "reference", before)
                await self._show(category_name, list(self._shown_to))
                raise

    async def _show(self, category_name: str, processes: Sequence[ModelProcess], *, changed: bool = True) -> None:
        """Show processes the stored references of a class. One that dies is shown them when it is started again."""
        contents = await asyncio.to_thread(self._store.contents, category_name, "reference")
        if contents:
            if changed or category_name not in self._versions:
                self._versions[category_name] = next(self._numbers)
            version = self._versions[category_name]
            answers = [process.ask("show", category_name, version, contents) for process in processes]
        else:
            self._versions.pop(category_name, None)
            answers = [process.ask("forget", category_name) for process in processes]
        for outcome in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotReady):
                raise outcome


async def whole(change: Coroutine[Any, Any, Value]) -> Value:
    """Go through with a change also when whoever asked for it goes away: the store and the model must agree."""
    return await asyncio.shield(asyncio.ensure_future(change))
