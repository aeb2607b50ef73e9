"""A bounded queue in front of the model: batches as large as pay, in order, each answer to its own question.

Pure asyncio: what scores is a coroutine (:data:`Run`), so that the queue can be tested without a model.

* Oldest first: each batch starts with the item that has waited longest, and takes along the next ones of the same
  key. So no key starves another.
* The size follows measured time (:mod:`winspect.service.pool.policy`): the smallest within 5 % of the best rate.
* An idle model is never kept waiting for a fuller batch. While it is busy, a batch that is not full yet is handed
  over only just in time to be prepared (decoded) before the model is free.
* An item whose caller has gone, or whose deadline has passed, leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from winspect.service.contract import BatchRecord, DeadlineExceeded, NotReady, Overloaded
from winspect.service.pool.policy import BatchTimes

logger = logging.getLogger(__name__)

_REST = 1.5  # times the best size: so many go together rather than as a batch and a rest
_LONGEST_SHARE = 0.25  # of what its most urgent item has left: a batch may take no longer
_WEIGHT = 0.2  # of the last batch in running means


@dataclass(frozen=True)
class Ran:
    """What became of a batch.

    Attributes:
        answers: item number -> answer, or the exception that is that item's own.
        prepare_seconds: until the model could start, had it been idle; ``compute_seconds``: of the model.
    """

    answers: Mapping[int, Any]
    prepare_seconds: float
    compute_seconds: float


Run = Callable[[Hashable, Sequence[tuple[int, Any]]], Awaitable[Ran]]
"""Scores numbered items of one key. What it raises is every item's answer."""


@dataclass(eq=False)
class _Item:
    number: int
    key: Hashable
    payload: Any
    deadline: float
    put_at: float
    answer: asyncio.Future[Any]


@dataclass(eq=False)
class Lane:
    """One model. ``ahead``: items that may lie there prepared, beside the batch it works on."""

    run: Run
    ahead: int
    batches: dict[asyncio.Task[None], tuple[int, float]] = field(default_factory=dict)  # sizes, estimated seconds
    free_at: float = 0.0  # when it may be done with all it has been given

    @property
    def load(self) -> int:
        """Items it has been given and not answered."""
        return sum(size for size, _ in self.batches.values())


class Batcher:
    """See the module.

    Args:
        max_queue: items that wait at most; those that a model has been given do not count.
        max_batch: items of a batch at most.
        kind_of: keys whose batches take the same time share their measurements; there should be few kinds.
        clock: what deadlines are on; the event loop's own goes as fast.

    Attributes:
        on_batch: called after each batch; must not block or raise.
        waiting: items in the queue.
    """

    def __init__(
        self,
        *,
        max_queue: int,
        max_batch: int,
        kind_of: Callable[[Any], Hashable] = lambda key: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.max_queue, self.max_batch, self.kind_of = max_queue, max_batch, kind_of
        self.on_batch: Callable[[BatchRecord], None] = lambda record: None
        self.waiting = 0
        self._queues: dict[Hashable, dict[int, _Item]] = {}
        self._lanes: list[Lane] = []
        self._numbers = count(1)
        self._times: dict[Hashable, BatchTimes] = {}
        self._prepare_s = self._item_s = 0.0  # running means; the second of a model per item, whatever its kind
        self._next_pump: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Items that models have been given and not answered."""
        return sum(lane.load for lane in self._lanes)

    def attach(self, run: Run, *, ahead: int = 4) -> Lane:
        """Give a model work from now on."""
        lane = Lane(run, ahead)
        self._lanes.append(lane)
        self._pump_in(0.0)
        return lane

    def detach(self, lane: Lane, reason: str) -> None:
        """Give a model no more work. What waits is refused when there is no other; what it had its ``run`` answers."""
        self._lanes.remove(lane)
        if not self._lanes:
            self._times.clear()  # it may come back as another one
            for item in [item for queue in self._queues.values() for item in queue.values()]:
                self._take_out(item)
                _fail(item, NotReady(reason))

    async def submit(self, payload: Any, *, key: Hashable, deadline: float) -> Any:
        """Queue an item and wait for its answer. Cancelling takes it out.

        Args:
            deadline: on the batcher's clock.

        Raises:
            Overloaded: at once: the queue is full, or the item would not come up before its deadline.
            DeadlineExceeded: it has passed.
            NotReady: no model is there, or it went away under the item.
            Exception: whatever is the item's own answer.
        """
        now = self._clock()
        self._admit(now, deadline)
        loop = asyncio.get_running_loop()
        item = _Item(next(self._numbers), key, payload, deadline, now, loop.create_future())
        self._queues.setdefault(key, {})[item.number] = item
        self.waiting += 1
        self._idle.clear()
        expiry = loop.call_later(deadline - now, self._expire, item)
        self._pump_in(0.0)
        try:
            return await item.answer
        finally:
            expiry.cancel()
            self._take_out(item)

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing is queued or under way; False when that takes longer."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
            return True
        return False

    def _admit(self, now: float, deadline: float) -> None:
        if deadline <= now:
            raise DeadlineExceeded("the deadline had passed when the picture arrived; allow more time")
        if not self._lanes:
            raise NotReady("no model is running; ask again in a few seconds")
        if self.waiting >= self.max_queue:
            self._pump()  # what arrived just now may be on its way already
        wait_s = self._item_s * (self.waiting + self.in_flight) / len(self._lanes)
        if self.waiting >= self.max_queue:
            raise Overloaded(
                f"{self.waiting} pictures are waiting, which is the most; ask again later", max(wait_s, 0.1)
            )
        if self.waiting and now + wait_s > deadline:
            late = f"the pictures before it take {wait_s:.1f} s, its deadline is in {deadline - now:.1f} s"
            raise Overloaded(f"{late}; ask again later, or allow more time", wait_s)

    def _take_out(self, item: _Item) -> bool:
        queue = self._queues.get(item.key)
        if queue is None or queue.pop(item.number, None) is None:
            return False
        self.waiting -= 1
        if not queue:
            del self._queues[item.key]
        self._note_idle()
        return True

    def _note_idle(self) -> None:
        if not self.waiting and not any(lane.batches for lane in self._lanes):
            self._idle.set()

    def _expire(self, item: _Item) -> None:
        where = "in the queue" if self._take_out(item) else "under way"
        waited = self._clock() - item.put_at
        _fail(item, DeadlineExceeded(f"not scored within its deadline ({waited:.1f} s, {where}); allow more time"))

    # -- handing out work

    def _pump_in(self, delay_s: float) -> None:
        """Hand out work in a while; after 0 s, when the loop has taken in what arrives together."""
        loop = asyncio.get_running_loop()
        if self._next_pump is not None:
            if self._next_pump.when() <= loop.time() + delay_s:
                return
            self._next_pump.cancel()
        self._next_pump = loop.call_later(delay_s, self._pump)

    def _pump(self) -> None:
        if self._next_pump is not None:
            self._next_pump.cancel()
            self._next_pump = None
        now = self._clock()
        later_s = math.inf
        for lane in sorted(self._lanes, key=lambda lane: lane.load):
            while self._queues:
                if wait_s := self._hand_over(lane, now):
                    later_s = min(later_s, wait_s)
                    break
        if self._queues and later_s < math.inf:
            self._pump_in(later_s)

    def _hand_over(self, lane: Lane, now: float) -> float:
        """Give a lane the next batch and return 0; or seconds until it should have one, ``inf``: when one is done."""
        queue = min(self._queues.values(), key=lambda items: next(iter(items)))
        oldest = next(iter(queue.values()))
        times = self._times.setdefault(self.kind_of(oldest.key), BatchTimes())
        within_s = _LONGEST_SHARE * (oldest.deadline - now)
        full = times.best(self.max_batch, within_s, there=len(queue))
        if lane.batches:
            working, _ = next(iter(lane.batches.values()))
            if lane.load - working >= max(full, lane.ahead):
                return math.inf
            early_s = lane.free_at - self._prepare_s - now
            if len(queue) < full and early_s > 0.001:
                return early_s
        # A small rest would make a poor batch of its own.
        most = min(len(queue), self.max_batch) if full > 1 and len(queue) <= _REST * full else full
        items = list(islice(queue.values(), most))
        for item in items:
            self._take_out(item)
        seconds = times.seconds(len(items))
        lane.free_at = max(lane.free_at if lane.batches else now, now + self._prepare_s) + seconds
        task = asyncio.get_running_loop().create_task(self._run(lane, items, times))
        lane.batches[task] = len(items), seconds
        self._idle.clear()
        return 0.0

    async def _run(self, lane: Lane, items: list[_Item], times: BatchTimes) -> None:
        seconds, error = 0.0, None
        try:
            ran = await lane.run(items[0].key, [(item.number, item.payload) for item in items])
            seconds = ran.compute_seconds
            self._learn(len(items), ran, times)
            _hand_out(items, ran)
        except BaseException as failure:  # a cancelled batch too must answer its items
            error = type(failure).__name__
            for item in items:
                _fail(item, failure if isinstance(failure, Exception) else NotReady("the service is ending"))
            if not isinstance(failure, Exception):
                raise
        finally:
            task = asyncio.current_task()
            assert task is not None
            del lane.batches[task]
            lane.free_at = self._clock() + sum(estimate for _, estimate in lane.batches.values())
            self.on_batch(BatchRecord(len(items), seconds, error))
            self._note_idle()
            if self._queues:
                self._pump_in(0.0)

    def _learn(self, size: int, ran: Ran, times: BatchTimes) -> None:
        weight = _WEIGHT if self._item_s else 1.0
        times.add(size, ran.compute_seconds)
        self._item_s += weight * (ran.compute_seconds / size - self._item_s)
        self._prepare_s += weight * (ran.prepare_seconds - self._prepare_s)


def _hand_out(items: Sequence[_Item], ran: Ran) -> None:
    """Each answer to the item with its number."""
    for item in items:
        value = ran.answers.get(item.number, NotReady("the model gave no answer for this picture; ask again"))
        if isinstance(value, Exception):
            _fail(item, value)
        elif not item.answer.done():
            item.answer.set_result(value)
    unknown = set(ran.answers) - {item.number for item in items}
    if unknown:
        logger.error("dropped %d answers for pictures nobody asked for: %s", len(unknown), sorted(unknown)[:5])


def _fail(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
        item.answer.exception()  # a caller that has gone does not read it; asyncio would say so in the log
