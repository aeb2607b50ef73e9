"""An event loop whose time is counted, not waited for: hours pass in milliseconds, and the same way each time."""

from __future__ import annotations

import asyncio


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer whenever nothing is left to do. Not for threads and sockets."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        select = self._selector.select

        def jump(timeout):
            if timeout is None:
                raise AssertionError("nothing is left to happen, and something still waits")
            self.now += max(0.0, timeout)
            return select(0)

        self._selector.select = jump

    def time(self):
        return self.now


def run(main):
    """Run a coroutine function that is given the loop's clock."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop.time))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
