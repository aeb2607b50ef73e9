"""Pictures that take long to decode: one at a time, apart from all others, each until its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from winspect.pictures.tiles import Prepared
from winspect.service.contract import DeadlineExceeded, Overloaded, Question


class Turns:
    """Decodes one picture after the other.

    Args:
        decode: from a question to what the model takes.
        most_waiting: pictures that wait for their turn, at most.
    """

    def __init__(self, decode: Callable[[Question], Awaitable[Prepared]], *, most_waiting: int = 32) -> None:
        self._decode, self._most_waiting = decode, most_waiting
        self._turn, self._waiting = asyncio.Semaphore(1), 0

    async def decode(self, question: Question) -> Prepared:
        """Wait for the turn of a picture and decode it.

        Raises:
            Overloaded: at once: too many wait.
            DeadlineExceeded: the question's deadline has passed.
            PictureError: the picture cannot be used.
        """
        if self._waiting >= self._most_waiting:
            raise Overloaded(f"{self._waiting} pictures wait that take long to decode; ask again later", 5.0)

        async def turn() -> Prepared | None:
            try:
                async with self._turn:
                    return await self._decode(question) if time.monotonic() < question.deadline else None
            finally:
                self._waiting -= 1

        self._waiting += 1
        # Never cancelled: the process would be at it all the same, and the next one's turn would come too early.
        task = asyncio.get_running_loop().create_task(turn())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait([task], timeout=max(0.0, question.deadline - time.monotonic()))
        prepared = task.result() if task.done() else None
        if prepared is None:
            raise DeadlineExceeded(
                f"{question.name}: not decoded within its deadline; allow more time, or send a smaller one"
            )
        return prepared
