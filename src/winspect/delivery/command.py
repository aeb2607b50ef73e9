"""Starting a program for each row, a bounded number at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from winspect.delivery.message import AwayError, Message
from winspect.delivery.settings import CommandSettings

_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
_LOOK_S = 0.05


class CommandChannel:
    """Starts the program with the row on its stdin; what it prints on stdout is thrown away.

    Each program is the head of a process group, which is killed when its time is up, with whatever it has started.
    """

    def __init__(self, settings: CommandSettings) -> None:
        self.settings, self.at_once = settings, settings.at_once
        self.state: dict[str, Any] = {}

    def connect(self, stop: threading.Event) -> None:
        """Nothing is connected beforehand."""

    def send(self, messages: Sequence[Message], stop: threading.Event) -> Iterator[str | None]:
        """Start the programs, ``at_once`` at a time; see :class:`winspect.delivery.message.Channel`."""
        running: deque[_Run] = deque()
        try:
            for message in messages:
                try:
                    running.append(_Run(self.settings, message))
                except AwayError as error:
                    error.was_sent = bool(running)
                    raise
            while running:
                yield running[0].outcome(stop)
                running.popleft()
        finally:
            for run in running:
                run.kill()

    def close(self) -> None:
        """Nothing is left open."""


class _Run:
    """A program that was started."""

    def __init__(self, settings: CommandSettings, message: Message) -> None:
        self._settings, self._began = settings, time.monotonic()
        command: Any = settings.arguments[0] if settings.shell else settings.arguments
        try:
            self._process = subprocess.Popen(
                command,
                shell=settings.shell,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise AwayError(f"{settings.arguments[0]}: cannot be started ({error})", was_sent=False) from error
        # In a thread: a program that does not read a long row would hold everything up.
        threading.Thread(target=self._write, args=(message.body + b"\n",), daemon=True).start()

    def _write(self, body: bytes) -> None:
        with suppress(OSError), self._process.stdin as stdin:  # type: ignore[union-attr]
            stdin.write(body)

    def outcome(self, stop: threading.Event) -> str | None:
        """Wait for the end; None for a row that is delivered, else why it is refused.

        Raises:
            AwayError: it is to be tried again.
        """
        name, limit_s = self._settings.arguments[0], self._settings.timeout_s
        while (code := self._process.poll()) is None:
            if stop.is_set():
                raise AwayError("stopped")
            left_s = self._began + limit_s - time.monotonic()
            if left_s <= 0:
                raise AwayError(f"{name}: still running after {limit_s:g} s, and killed")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(min(left_s, _LOOK_S))
        if code == _TRY_AGAIN:
            raise AwayError(f"{name}: exit code {code}")
        return None if code == 0 else f"{name}: exit code {code}"

    def kill(self) -> None:
        """End it, and what it has started."""
        if self._process.poll() is None:  # else the number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
