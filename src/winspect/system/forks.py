"""Guard against forks: an engine's threads stay in the parent, and a pass in the child would wait for them for ever."""

from __future__ import annotations

import os
from typing import ClassVar

from winspect.errors import ForkError


class ForkGuard:
    """Guard of an object with threads, made when that is loaded.

    Attributes:
        first_process: the process in which the first was made; a forked child inherits it. None: none was made.

    Raises:
        ForkError: another was made before this process was forked: also a new engine would wait for its threads.
    """

    first_process: ClassVar[int | None] = None

    def __init__(self) -> None:
        self._process = os.getpid()
        if ForkGuard.first_process is None:
            ForkGuard.first_process = self._process
        _check(ForkGuard.first_process)

    def check(self) -> None:
        """Refuse to go on in a forked process.

        Raises:
            ForkError: this process was forked after the guard was made.
        """
        _check(self._process)


def _check(process: int) -> None:
    if process != os.getpid():
        raise ForkError(
            "a model was loaded before this process was forked: its threads did not come along, and it would wait for "
            'ever. Start processes with multiprocessing.get_context("spawn") (a DataLoader with '
            'multiprocessing_context="spawn") and load the model in each, or fork before any model is loaded'
        )
