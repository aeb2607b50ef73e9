"""Measures combinations of plan, engine and precision in turn, round by round, each in a process of its own.

Only one process computes at any time. A round visits all combinations, beginning with another one each time, so that
what else the machine does hits all alike; the rate of matrix products is measured again in every round as well.
Importing this imports no torch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any

from winspect.errors import SettingsError, SourceError
from winspect.speed.benchmark_results import Measured, Survey, make_results
from winspect.speed.plans import Combination
from winspect.speed.worker import Serve, Worker, WorkerError, serve
from winspect.system.machine import memory_mb

logger = logging.getLogger(__name__)

ROUNDS, WARM_UP = 5, 1
_GEMM_PRECISIONS = ("fp32", "bf16")
_GEMM_REPETITIONS = 5
"""At least so many over all rounds."""
_MEMORY_SHARE = 0.7
"""Of the machine's memory that open workers may take together."""

Say = Callable[[str], None]


def run_benchmark(
    combinations: Sequence[Combination],
    pictures: Sequence[str | PathLike[str]],
    *,
    model: dict[str, Any] | None = None,
    category_name: str = "object",
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
    maps: bool = False,
    isolate: bool = False,
    say: Say = logger.info,
    serve: Serve = serve,
) -> dict[str, Any]:
    """Measure and return what ``benchmark.json`` holds.

    Workers are new Python processes, so a script that calls this at its top level needs the usual
    ``if __name__ == "__main__":``. Their peak memory is that of the whole process: loading is in it, and so are graphs
    and int8 weights where they had to be built because they were not in the cache yet.

    Args:
        combinations: see :func:`winspect.speed.plans.combine`. One that cannot run is listed under ``failed`` with its
            error, and the others go on.
        pictures: files. One that cannot be used is listed and left out.
        model: options of :class:`winspect.WinCLIP`, but for engine, precision, recipe and plan.
        category_name: the class of all pictures.
        rounds: how often everything is measured.
        warm_up: rounds of each combination that are run and forgotten when it is loaded.
        maps: the plans on recipe ``tiles`` make full maps, too, not image-level scores alone.
        isolate: one worker at a time, loaded anew in every round: slower, and needs the least memory. Without it
            workers are closed early only where memory would not do for all.
        say: called with a line about what is going on.
        serve: what workers run.

    Raises:
        SettingsError: no combination, or a number out of range.
        SourceError: none of the pictures can be used.
        WorkerError: the model cannot be loaded at all.
    """
    for name, number, least in (("rounds", rounds, 1), ("warm_up", warm_up, 0)):
        if type(number) is not int or number < least:
            raise SettingsError(f"{name}: got {number!r}, need a whole number from {least}")
    if not combinations:
        raise SettingsError("got no combination of plan, engine and precision, need at least one")
    options, names = dict(model or {}), [fspath(picture) for picture in pictures]
    yardstick = Worker(serve)
    pool = WorkerPool(serve, 0.0 if isolate else _MEMORY_SHARE * (memory_mb() or 0))
    try:
        say("looking at the model and the pictures")
        survey = Survey(**yardstick.ask("survey", model=options, category_name=category_name, pictures=names))
        if not survey.tiles:
            path, reason = next(iter(survey.failed.items()))
            raise SourceError(f"none of {len(names)} pictures can be used; the first, {path}: {reason}")
        say("building matrix products of the model's sizes")
        products = _open_products(yardstick, survey, combinations)
        job = {"model": options, "category_name": category_name, "pictures": list(survey.tiles), "maps": maps}
        session = _Session(combinations, pool, {**job, "warm_up": warm_up}, rounds, say)
        for number in range(rounds):
            _measure_products(yardstick, products, math.ceil(_GEMM_REPETITIONS / rounds))
            session.round(number)
    finally:
        pool.close()
        yardstick.close()
    asked = {"class": category_name, "rounds": rounds, "warm_up": warm_up, "maps": maps}
    return make_results(survey, list(session.measured.values()), session.failures, products, asked=asked)


class WorkerPool:
    """Open workers; the one that has waited longest is closed when another would not fit into memory.

    Args:
        memory_limit_mb: for all of them together; 0 keeps one at a time.
    """

    def __init__(self, serve: Serve, memory_limit_mb: float) -> None:
        self._serve, self._limit_mb = serve, memory_limit_mb
        self._open: dict[Combination, Worker] = {}  # the longest waiting first
        self._used_mb: dict[Combination, float] = {}

    def get(self, combination: Combination, load: Callable[[Worker], float | None]) -> Worker:
        """The worker of a combination; ``load`` is called with a new one, and gives its memory in MB."""
        if combination not in self._open:
            expected_mb = max(self._used_mb.values(), default=0.0)
            while self._open and sum(self._used_mb[name] for name in self._open) + expected_mb > self._limit_mb:
                self.drop(next(iter(self._open)))
            self._open[combination] = Worker(self._serve)  # kept before it is loaded, to be closed whatever happens
            self._used_mb[combination] = load(self._open[combination]) or 0.0
        worker = self._open[combination] = self._open.pop(combination)
        return worker

    def drop(self, combination: Combination) -> None:
        """Close a combination's worker."""
        self._open.pop(combination).close()

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()


def _open_products(worker: Worker, survey: Survey, combinations: Sequence[Combination]) -> list[dict[str, Any]]:
    """The machine's matrix products, to be measured."""
    from winspect.engines.choice import installed
    from winspect.engines.devices import PRECISIONS

    asked = {*_GEMM_PRECISIONS, *(combination.precision for combination in combinations)}
    precisions = [precision for precision in PRECISIONS if precision in asked]
    where = {"layer": survey.layer, "device": survey.device}
    products = _ask_yardstick(worker, "gemm_open", engines=list(installed()), precisions=precisions, **where)
    return [{**product, "gflops": []} for product in products]


def _measure_products(worker: Worker, products: Sequence[dict[str, Any]], repetitions: int) -> None:
    """Measure every product once more."""
    rates = _ask_yardstick(worker, "gemm_round", repetitions=repetitions) if products else []
    for product, found in zip(products, rates or [[]] * len(products), strict=True):
        product["gflops"] += found


def _ask_yardstick(worker: Worker, job: str, **options: Any) -> list[Any]:
    """The worker's answer; nothing where it has failed: the rates of matrix products then stay unknown."""
    try:
        return worker.ask(job, **options)
    except WorkerError as error:
        logger.warning("the rate of matrix products is not measured any further: %s", error)
        return []


class _Session:
    """All combinations that have not failed, with what was measured."""

    def __init__(
        self, combinations: Sequence[Combination], pool: WorkerPool, job: dict[str, Any], rounds: int, say: Say
    ) -> None:
        self.combinations, self.pool, self.job, self.rounds, self.say = combinations, pool, job, rounds, say
        self.measured = {combination: Measured(combination) for combination in combinations}
        self.failures: list[dict[str, Any]] = []

    def round(self, number: int) -> None:
        """Visit all combinations; each round begins with another one, so that none always follows the same one."""
        start = number % len(self.combinations)
        for combination in (*self.combinations[start:], *self.combinations[:start]):
            if combination not in self.measured:
                continue
            try:
                rate = self._measure(self.measured[combination])
            except WorkerError as error:
                self.pool.drop(combination)
                del self.measured[combination]
                failed = {"type": error.kind, "message": str(error)}
                self.failures.append({**vars(combination), "rounds_done": number, "error": failed})
                self.say(f"FAILED {combination}: {error}")
            else:
                self.say(f"round {number + 1} of {self.rounds}: {combination}: {rate:.3g} images/s")

    def _measure(self, measured: Measured) -> float:
        combination = measured.combination

        def load(worker: Worker) -> float | None:
            self.say(f"loading {combination}")
            measured.described = worker.ask("load", **vars(combination), **self.job)
            return measured.described["peak_rss_mb"]

        measured.rounds.append(self.pool.get(combination, load).ask("round"))
        return measured.rates[-1]
