"""Workers of one run, Ray actors: each loads a model once, and takes the next unit of work when it is free.

A worker that dies is started again by Ray, and its unit tried a second time there. A unit that takes its worker down
twice is handed back as lost.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray

from winspect.cluster.cluster import first_line
from winspect.cluster.workers import Workers
from winspect.errors import ClusterError, WinspectError

if TYPE_CHECKING:
    from winspect.inspector.base import Predictor

Unit = TypeVar("Unit")

_TRIES = 2
_DEATHS_AT_START = 10
_LOOK_S = 2.0


class Worker:
    """The actor: a process that loads a model when it is first needed, and runs functions with it, one at a time.

    Args:
        workers: its device and its threads.
        model: options of :class:`winspect.WinCLIP`; or ``bundle`` alone, the folder of an edge bundle.

    Attributes:
        name: its machine and process number.
        kept: what functions keep between calls.
        done: steps of the function that runs.
    """

    def __init__(self, workers: Workers, model: Mapping[str, Any]) -> None:
        self.workers, self.model, self.name = workers, model, f"{platform.node()}:{os.getpid()}"
        self.kept: Any = None
        self.done = 0

    @cached_property
    def predictor(self) -> Predictor:
        """The model, loaded when first asked for."""
        predictor: Predictor
        if "bundle" in self.model:
            from winspect.inspector.edge import load_bundle

            predictor = load_bundle(self.model["bundle"])
        else:
            from winspect.inspector.winclip import WinCLIP

            predictor = WinCLIP(**self.model, device=self.workers.device)
        predictor.workers = self.workers.decode_threads
        return predictor

    def advance(self) -> None:
        """Count a step of the function that runs."""
        self.done += 1

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(worker, *arguments)``; a ClusterError names this worker as the one that refuses."""
        self.done = 0
        if self.workers.threads is not None and "bundle" not in self.model:
            import torch

            torch.set_num_threads(self.workers.threads)  # this thread's, as calls come in one of two; engines ask it
        try:
            return function(self, *arguments)
        except ClusterError as error:
            raise ClusterError(f"a worker refuses to work: {self.name}: {error}") from error

    def count(self) -> int:
        """Steps that the function that runs has done; answers meanwhile."""
        return self.done


@dataclass(frozen=True)
class Lost:
    """The outcome of a unit that took its worker down each time it was tried."""

    reason: str = ""


class Pool(Generic[Unit]):
    """Workers on a cluster; use it in a with-block, which ends them.

    Args:
        workers: how many, and what Ray sets aside for each; the fewest are started at once.
        model: that each loads, see :class:`Worker`.
    """

    def __init__(self, workers: Workers, model: Mapping[str, Any]) -> None:
        self.workers, self.model = workers, model
        # Two calls at a time: one that works, and one that counts.
        options = {"max_restarts": -1, "max_task_retries": _TRIES - 1, "max_concurrency": 2}
        self._actor = ray.remote(Worker).options(scheduling_strategy="SPREAD", **options, **workers.options())
        self._workers: list[Any] = []
        self._busy: dict[Any, tuple[Any, Unit | None]] = {}
        self._deaths, self._has_worked = 0, False
        self._grow(workers.fewest)

    def __enter__(self) -> Pool[Unit]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            ray.kill(worker)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(worker, *arguments)`` on a worker that has nothing else to do.

        Raises:
            WinspectError: as the function raised it there.
            ClusterError: the process died, or cannot be had.
        """
        outcome = outcome_of(self._workers[0].run.remote(function, *arguments))
        if isinstance(outcome, Lost):
            raise ClusterError(f"a worker failed: {outcome.reason}")
        return outcome

    def share(self, value: Any) -> Callable[[], Any]:
        """A function that gives the value, on the cluster too; it is sent once to a machine."""
        return partial(ray.get, ray.put(value))

    def run(
        self,
        units: deque[Unit],
        call: Callable[[Unit], Sequence[Any]],
        look: Callable[[int], object] = lambda _: None,
    ) -> Iterator[tuple[Unit, Any]]:
        """Work on units, from the left; gives each with its outcome, in any order. Whoever iterates may append units.

        Args:
            call: the function that works on a unit, and its arguments behind the worker.
            look: called now and then with the steps done of the units in work.

        Raises:
            WinspectError: as a function raised it; a ClusterError where workers die before they have done anything.
        """
        self._grow(min(self.workers.most, len(units)))
        self._busy = {worker.count.remote(): (worker, None) for worker in self._workers}
        while units or any(unit is not None for _, unit in self._busy.values()):
            finished, _ = ray.wait(list(self._busy), timeout=_LOOK_S)
            if not finished:
                look(self._steps())
            for reference in finished:
                worker, unit = self._busy.pop(reference)
                outcome = outcome_of(reference)
                if isinstance(outcome, Lost):
                    worker = self._reviewed(worker, is_idle=unit is None)
                    self._busy[worker.count.remote()] = worker, None  # it gets work when it is back
                elif units:
                    after = units.popleft()
                    self._busy[worker.run.remote(*call(after))] = worker, after
                elif len(self._workers) > self.workers.fewest:
                    self._dismiss(worker)
                if unit is not None:
                    self._has_worked |= not isinstance(outcome, Lost)
                    yield unit, outcome

    def _grow(self, number: int) -> None:
        self._workers += [self._actor.remote(self.workers, self.model) for _ in range(number - len(self._workers))]

    def _dismiss(self, worker: Any) -> None:
        """Give back what a worker has of the cluster: another may wait for it."""
        self._workers.remove(worker)
        ray.kill(worker)

    def _reviewed(self, worker: Any, *, is_idle: bool) -> Any:
        """A worker that died, or another in its place where Ray does not start it again."""
        self._deaths += 1
        if self._deaths >= _DEATHS_AT_START and not self._has_worked:
            raise ClusterError("no worker scored anything: each died at its first pictures; look at Ray's logs")
        if is_idle:
            self._dismiss(worker)
            self._grow(len(self._workers) + 1)
        return self._workers[-1] if is_idle else worker

    def _steps(self) -> int:
        """Steps done of the units in work, of the workers that answer at once."""
        asked = [worker.count.remote() for worker, unit in self._busy.values() if unit is not None]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_LOOK_S) if asked else ([], [])
        counts = map(outcome_of, answered)
        return sum(count for count in counts if not isinstance(count, Lost))


def outcome_of(reference: Any) -> Any:
    """Wait for what a call on the cluster returns; :class:`Lost` where its process died, or cannot be had.

    Raises:
        WinspectError: as the function raised it there.
        ClusterError: the function failed otherwise.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WinspectError):
            raise error.cause from None
        raise ClusterError(f"a worker failed: {first_line(error.cause or error)}") from error
    except ray.exceptions.RayError as error:
        return Lost(first_line(error))
