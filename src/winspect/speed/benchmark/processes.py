"""Worker processes that are asked one thing at a time over a pipe."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from winspect.errors import WinspectError

_GOODBYE_S = 5.0  # from the end of its pipe to the end of a process

Serve = Callable[[Connection, int], None]


class WorkerError(WinspectError):
    """A worker refused, failed or died. ``kind`` is the name of its error's class, or ``died``."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Worker:
    """A Python process of its own, so that its memory and its libraries' threads are its own.

    Args:
        serve: what it runs, a function of a module that it can import. It is given its end of the pipe and the level
            of the log, answers each ``(job, options)`` with ``("done", answer)`` or ``("failed", (kind, message))``,
            and returns when the pipe is closed.
    """

    def __init__(self, serve: Serve) -> None:
        # Not forked: a forked process shares memory with this one, and libraries that have started threads break.
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=serve, args=(far_end, logging.getLogger().level), daemon=True)
        self._process.start()
        far_end.close()  # else its death would not be seen

    def ask(self, job: str, **options: Any) -> Any:
        """Send a job and wait for its answer.

        Raises:
            WorkerError: the job failed, or the process died.
        """
        try:
            self._pipe.send((job, options))
            outcome, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError("died", self._last_words()) from error
        if outcome == "failed":
            raise WorkerError(*answer)
        return answer

    def _last_words(self) -> str:
        self._process.join(_GOODBYE_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ": the machine may have run out of memory" if name == "SIGKILL" else ""
            return f"the worker process was ended by {name}{hint}"
        return f"the worker process ended with exit code {code} and without an answer"

    def close(self) -> None:
        """End the process at once: it has nothing to put away. Closing twice does no harm."""
        if not self._pipe.closed:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process.close()
