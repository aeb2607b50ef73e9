"""A bounded queue in front of the model: batches as large as pay, in order, each answer to its own question.

Pure asyncio: what scores is a coroutine (:data:`Run`), so that the queue can be tested without a model.

* Oldest first: each batch starts with the question that has waited longest, and takes along the next ones of the same
  key. So no key starves another.
* The size follows measured time (:mod:`winspect.service.pool.policy`): the smallest within 5 % of the best rate.
* An idle model is never kept waiting for a fuller batch. While it is busy, a batch that is not full yet is handed
  over only just in time to be prepared (decoded) before the model is free.
* A question whose caller has gone, or whose deadline has passed, leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

from winspect.service.contract import Answer, DeadlineExceeded, NotReady, Overloaded, Question
from winspect.service.pool.policy import BatchTimes

_REST = 1.5  # times the best size: so many go together rather than as a batch and a rest
_LONGEST_SHARE = 0.25  # of what its most urgent question has left: a batch may take no longer
_WEIGHT = 0.2  # of the last batch in running means
_POLL_S = 0.01


@dataclass(frozen=True)
class Ran:
    """What became of a batch.

    Attributes:
        answers: to each question, in order: the answer, or the exception that is that picture's own.
        prepare_seconds: until the model could start, had it been idle; ``compute_seconds``: of the model.
    """

    answers: Sequence[Answer | Exception]
    prepare_seconds: float
    compute_seconds: float


Run = Callable[[Sequence[Question]], Awaitable[Ran]]
"""Scores questions of one key. What it raises is the answer to all of them."""


@dataclass(eq=False)
class _Item:
    """A question that waits, and since when."""

    question: Question
    since: float
    answer: asyncio.Future[Answer]

    def end(self, outcome: Answer | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
            self.answer.exception()  # a caller that has gone does not read it; asyncio would say so in the log
        else:
            self.answer.set_result(outcome)


@dataclass(eq=False)
class Lane:
    """One model. ``ahead``: questions that may lie there prepared, beside the batch it works on."""

    run: Run
    ahead: int
    batches: dict[asyncio.Task[None], tuple[int, float]] = field(default_factory=dict)  # sizes, estimated seconds
    free_at: float = 0.0  # when it may be done with all it has been given

    @property
    def load(self) -> int:
        """Questions it has been given and not answered."""
        return sum(size for size, _ in self.batches.values())


class Batcher:
    """See the module. Deadlines are on :func:`time.monotonic`'s clock, which is the event loop's.

    Args:
        max_queue: questions that wait at most; those that a model has been given do not count.
        max_batch: questions of a batch at most.

    Attributes:
        on_batch: called after each batch with its size, the seconds of the model, and the name of the error's class
            where it failed; must not block or raise.
    """

    def __init__(self, *, max_queue: int, max_batch: int) -> None:
        self.max_queue, self.max_batch = max_queue, max_batch
        self.on_batch: Callable[[int, float, str | None], None] = lambda size, seconds, error: None
        self._queue: dict[_Item, None] = {}  # oldest first
        self._lanes: list[Lane] = []
        # Zero-shot or not, with maps or not: classes of one kind take the same time.
        self._times: defaultdict[Hashable, BatchTimes] = defaultdict(BatchTimes)
        self._prepare_s = self._item_s = 0.0  # running means; the second of a model per question, whatever its kind
        self._next_pump: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Questions in the queue."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Questions that models have been given and not answered."""
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
            for item in self._queue:
                item.end(NotReady(reason))
            self._queue.clear()

    async def submit(self, question: Question) -> Answer:
        """Queue a question and wait for its answer. Cancelling takes it out.

        Raises:
            Overloaded: at once: the queue is full, or the question would not come up before its deadline.
            DeadlineExceeded: it has passed.
            NotReady: no model is there, or it went away under the question.
            Exception: whatever is the question's own answer.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._admit(now, question.deadline)
        item = _Item(question, now, loop.create_future())
        self._queue[item] = None
        expiry = loop.call_later(question.deadline - now, self._expire, item)
        self._pump_in(0.0)
        try:
            return await item.answer
        finally:
            expiry.cancel()
            self._queue.pop(item, None)

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing is queued or under way; False when that takes longer."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (is_busy := self.waiting + self.in_flight > 0) and loop.time() < end:
            await asyncio.sleep(_POLL_S)
        return not is_busy

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

    def _expire(self, item: _Item) -> None:
        where = "in the queue" if item in self._queue else "under way"
        self._queue.pop(item, None)
        waited = asyncio.get_running_loop().time() - item.since
        item.end(DeadlineExceeded(f"not scored within its deadline ({waited:.1f} s, {where}); allow more time"))

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
        now = asyncio.get_running_loop().time()
        later_s = math.inf
        for lane in sorted(self._lanes, key=lambda lane: lane.load):
            while self._queue:
                if wait_s := self._hand_over(lane, now):
                    later_s = min(later_s, wait_s)
                    break
        if self._queue and later_s < math.inf:
            self._pump_in(later_s)

    def _hand_over(self, lane: Lane, now: float) -> float:
        """Give a lane the next batch and return 0; or seconds until it should have one, ``inf``: when one is done."""
        oldest = next(iter(self._queue)).question
        alike = [item for item in self._queue if item.question.key == oldest.key]
        times = self._times[oldest.kind]
        full = times.best(self.max_batch, _LONGEST_SHARE * (oldest.deadline - now), there=len(alike))
        if lane.batches:
            working, _ = next(iter(lane.batches.values()))
            if lane.load - working >= max(full, lane.ahead):
                return math.inf
            early_s = lane.free_at - self._prepare_s - now
            if len(alike) < full and early_s > 0.001:
                return early_s
        # A small rest would make a poor batch of its own.
        most = self.max_batch if full > 1 and len(alike) <= _REST * full else full
        items = alike[:most]
        for item in items:
            del self._queue[item]
        seconds = times.seconds(len(items))
        lane.free_at = max(lane.free_at if lane.batches else now, now + self._prepare_s) + seconds
        task = asyncio.get_running_loop().create_task(self._run(lane, items, times))
        lane.batches[task] = len(items), seconds
        return 0.0

    async def _run(self, lane: Lane, items: list[_Item], times: BatchTimes) -> None:
        seconds, error = 0.0, None
        try:
            ran = await lane.run([item.question for item in items])
            seconds = ran.compute_seconds
            self._learn(len(items), ran, times)
            # Strict: were there more answers or fewer, a caller could get another one's.
            for item, outcome in list(zip(items, ran.answers, strict=True)):
                item.end(outcome)
        except BaseException as failure:  # a cancelled batch too must answer its questions
            error = type(failure).__name__
            for item in items:
                item.end(failure if isinstance(failure, Exception) else NotReady("the service is ending"))
            if not isinstance(failure, Exception):
                raise
        finally:
            task = asyncio.current_task()
            assert task is not None
            del lane.batches[task]
            lane.free_at = asyncio.get_running_loop().time() + sum(estimate for _, estimate in lane.batches.values())
            self.on_batch(len(items), seconds, error)
            if self._queue:
                self._pump_in(0.0)

    def _learn(self, size: int, ran: Ran, times: BatchTimes) -> None:
        weight = _WEIGHT if self._item_s else 1.0
        times.add(size, ran.compute_seconds)
        self._item_s += weight * (ran.compute_seconds / size - self._item_s)
        self._prepare_s += weight * (ran.prepare_seconds - self._prepare_s)
