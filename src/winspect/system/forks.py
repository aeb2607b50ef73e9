"""Guard against forks: an engine's threads stay in the parent, and a pass in the child would wait for them for ever."""

from __future__ import annotations

import os

from winspect.errors import ForkError


class _History:
    """Forks of this process, and when its first model was loaded."""

    forks = 0  # between the process that imported this module and this one
    first_loaded_after: int | None = None  # so many forks; None: no model yet

    @classmethod
    def count_fork(cls) -> None:
        cls.forks += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_History.count_fork)


class ForkGuard:
    """Guard of an object with threads, made when that is loaded.

    Raises:
        ForkError: another was made before this process was forked: also a new engine would wait for its threads.
    """

    def __init__(self) -> None:
        self._loaded_after = _History.forks
        if _History.first_loaded_after is None:
            _History.first_loaded_after = _History.forks
        _check(_History.first_loaded_after)

    def check(self) -> None:
        """Refuse to go on in a forked process.

        Raises:
            ForkError: this process was forked after the guard was made.
        """
        _check(self._loaded_after)


def _check(loaded_after: int) -> None:
    if loaded_after != _History.forks:
        raise ForkError(
            "a model was loaded before this process was forked: its threads did not come along, and it would wait for "
            'ever. Start processes with multiprocessing.get_context("spawn") (a DataLoader with '
            'multiprocessing_context="spawn") and load the model in each, or fork before any model is loaded'
        )
