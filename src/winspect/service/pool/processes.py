"""A model process, from its start to its end: asked over a pipe, ended when it hangs."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from winspect.service.contract import NotReady
from winspect.service.pool.worker import serve
from winspect.service.settings import ModelSpec, ServiceSettings

logger = logging.getLogger(__name__)

_SILENT_S = 3.0  # from a ping until a process counts as stopped: its listener answers at once, whatever the model does
_PING = 0


class ModelProcess:
    """See the module. Methods belong to one event loop.

    Args:
        settings, spec, device: see :func:`winspect.service.pool.worker.serve`.

    Attributes:
        ended: done when the process has gone; its result says how.
        limit_s: seconds without an answer, while it is asked something, or without a sign of life, after which it
            counts as hanging.
    """

    def __init__(self, settings: ServiceSettings, spec: ModelSpec, device: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.limit_s = settings.load_s
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._heard = time.monotonic()
        self._pinged: float | None = None  # when, as long as that has not been answered
        # Not forked: this process has threads, and a forked one would share their locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, self._far_end = context.Pipe()
        arguments = (self._far_end, settings, spec, device, logging.getLogger().getEffectiveLevel())
        self._process = context.Process(target=serve, args=arguments, name="winspect-model", daemon=True)
        # Writing blocks while the process is busy reading, or stopped.
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kill_reason = ""

    @property
    def pid(self) -> int | None:
        """Process number; None before the start."""
        return self._process.pid

    async def start(self) -> None:
        """Start the process; it has not loaded anything yet."""
        await asyncio.to_thread(self._process.start)
        self._far_end.close()  # else its death would not be seen
        # Python's own end would ask it to end, which it ignores, and wait for ever.
        atexit.register(self._process.kill)
        for work in (self._read, self._write):
            threading.Thread(target=work, name=f"winspect-{work.__name__}", daemon=True).start()

    def ask(self, job: str, *arguments: Any) -> asyncio.Future[Any]:
        """Send a job; its answer comes later. Jobs are done in the order in which they are asked for.

        The future raises NotReady when the process has gone, or goes; or what the job raised.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.ended.done():
            answer.set_exception(_gone(self.ended.result()))
            return answer
        number = next(self._numbers)
        if not self._asked:
            self._heard = time.monotonic()
        self._asked[number] = answer
        self._outbox.put((number, job, arguments))
        return answer

    @property
    def is_silent(self) -> bool:
        """Whether there is no sign of life: stopped, or the machine swaps. A busy process answers between two jobs."""
        return self._pinged is not None and time.monotonic() - self._pinged > _SILENT_S

    async def watch(self, every_s: float) -> None:
        """Ask for signs of life, for ever; end the process if it hangs."""
        while True:
            await asyncio.sleep(every_s)
            now = time.monotonic()
            silent_s = now - min(self._heard if self._asked else now, now if self._pinged is None else self._pinged)
            if silent_s > self.limit_s:
                self.kill(f"no answer for {silent_s:.0f} s")
            elif self._pinged is None:
                self._pinged = now
                self._outbox.put((_PING, "ping", ()))

    def kill(self, reason: str) -> None:
        """End the process at once; :attr:`ended` follows."""
        self._kill_reason = self._kill_reason or reason
        if self._process.pid is not None:
            self._process.kill()
        elif not self.ended.done():
            self.ended.set_result(reason)  # it never started

    async def stop(self, seconds: float) -> None:
        """Let the process finish what it was asked, for at most so long, then end it."""
        self._kill_reason = "stopped"
        self._outbox.put((_PING, "stop", ()))
        done, _ = await asyncio.wait([self.ended], timeout=seconds)
        if not done:
            self.kill("stopped")
            await self.ended

    # -- threads

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._call(self._answered, *self._pipe.recv())
        self._process.kill()  # it cannot be reached any more
        self._process.join()
        atexit.unregister(self._process.kill)
        self._outbox.put(None)
        self._call(self._end, _last_words(self._process.exitcode))

    def _write(self) -> None:
        with suppress(OSError):  # the reader notices
            while (message := self._outbox.get()) is not None:
                self._pipe.send(message)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- in the loop

    def _answered(self, number: int, done: bool, value: Any) -> None:
        if number == _PING:
            self._pinged = None
            return
        self._heard = time.monotonic()
        answer = self._asked.pop(number, None)
        if answer is None:
            logger.error("dropped an answer to a question nobody asked (number %d)", number)
        elif not answer.done():  # else whoever asked has gone
            answer.set_result(value) if done else answer.set_exception(value)

    def _end(self, words: str) -> None:
        self._pipe.close()
        if not self.ended.done():
            self.ended.set_result(self._kill_reason or words)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_gone(self.ended.result()))
                answer.exception()  # whoever asked may have gone
        self._asked.clear()


def _gone(reason: str) -> NotReady:
    return NotReady(f"the model process has ended ({reason}); it is being started again")


def _last_words(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (": the machine may have run out of memory" if name == "SIGKILL" else "")
    return f"ended with exit code {code}"
