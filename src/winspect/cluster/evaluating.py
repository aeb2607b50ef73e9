"""An evaluation on a cluster: a category for one seed is a unit of work, scored and measured by a worker as here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from winspect.cluster.cluster import Cluster, connect
from winspect.cluster.pool import Lost, Pool, Worker
from winspect.cluster.shared import check_same, portable
from winspect.cluster.workers import check_nodes, plan_workers
from winspect.errors import ClusterError
from winspect.evaluation.category import Described, Keep, Part, PartScorer, score_part
from winspect.methods.identity import Identity
from winspect.methods.result import Result
from winspect.system.machine import describe_machine


@contextmanager
def cluster_model(
    address: str | None = None,
    *,
    pool: int | str | None = None,
    device: str = "auto",
    verbose: bool = False,
    **model: Any,
) -> Iterator[ClusterScorer]:
    """A model on a Ray cluster, for :func:`winspect.evaluation.run.evaluate` and for the report behind it.

    Args:
        address, verbose: see :func:`winspect.cluster.run.batch`; ``pool``, ``device``: its ``workers`` and ``device``.
        **model: options of :class:`winspect.WinCLIP`; its ``workers`` are threads that decode.

    Raises:
        ClusterError: the cluster cannot be reached.
        DeviceError: it has no such device.
        MissingExtraError: Ray is not installed.
        SettingsError: an option is out of range.
    """
    options = portable(model)
    decode_threads = options.pop("workers", None)
    with connect(address, verbose=verbose) as cluster:
        planned = plan_workers(cluster, device, pool, decode_threads)
        with Pool[Part](planned, options) as workers:
            yield ClusterScorer(cluster, workers)


def describe(worker: Worker) -> Described:
    """On a worker: what every worker's model is checked against, and what results files say of it."""
    predictor = worker.predictor
    identity = predictor.identity()
    return Described(identity, predictor.preprocess.size, describe_machine(identity.device))


def measure(worker: Worker, part: Part, folder: str, identity: Identity) -> dict[str, Any]:
    """On a worker: all that is kept of a part, whose relative paths count from a folder.

    Raises:
        ClusterError: the worker's model is another one.
    """
    check_same(worker.predictor, identity)
    _go_to(folder)
    model: Any = worker.predictor
    return score_part(model, part, worker.advance)


def score_again(
    worker: Worker, pictures: Sequence[Path], class_name: str, references: Sequence[Path], folder: str
) -> list[Result]:
    """On a worker: a few pictures with their results, for a report. Raises ReferencesError."""
    _go_to(folder)
    worker.predictor.forget(class_name)
    if references:
        worker.predictor.reference(list(references), class_name)
    try:
        return list(worker.predictor.predict_many(list(pictures), class_name, keep_pictures=True))
    finally:
        worker.predictor.forget(class_name)


def _go_to(folder: str) -> None:
    """Count relative paths from the driver's folder; where a machine lacks it there are none: see ``prepare``."""
    with suppress(OSError):
        os.chdir(folder)


class ClusterScorer(PartScorer):
    """Scores the parts of an evaluation on a cluster, and a few pictures again for its report: :func:`cluster_model`.

    Every machine must see the data set's folder, and the results' folder too where maps are written.
    """

    def __init__(self, cluster: Cluster, pool: Pool[Part]) -> None:
        self.cluster, self.pool = cluster, pool
        self._references: dict[str, list[Path]] = {}

    def prepare(self, parts: Sequence[Part]) -> Described:
        """As the base class says; raises ClusterError where a machine cannot do this, or lacks a folder."""
        self._parts = list(parts)
        weights = str(self.pool.model.get("weights", ""))
        places = {part.root for part in parts}
        places |= {part.maps.folder for part in parts if part.maps.overlays or part.maps.raw_maps}
        needed = {os.path.abspath(place) for place in places}
        needed |= {os.getcwd()} if any(not place.is_absolute() for place in places) else set()
        needed |= {weights} if os.path.isabs(weights) else set()
        check_nodes(self.cluster, sorted(needed))
        described = self.pool.ask(describe)
        self._identity = described.identity
        return described

    def score(self, keep: Keep, advance: Callable[[], object]) -> None:
        """As the base class says; raises ClusterError where a part took its worker down twice: the others are kept."""
        counted, done, lost = 0, 0, list[str]()

        def show(steps: int) -> None:
            nonlocal counted
            for _ in range(done + steps - counted):
                advance()
            counted = max(counted, done + steps)

        def call(part: Part) -> Sequence[Any]:
            return measure, part, os.getcwd(), self._identity

        for part, outcome in self.pool.run(deque(self._parts), call, show):
            if isinstance(outcome, Lost):
                lost.append(f"{part.category} (seed {part.seed})")
                continue
            keep(part, outcome)
            done += len(part.drawn.tested)
            show(0)
        if lost:
            raise ClusterError(
                f"the workers on {', '.join(lost)} died twice (out of memory, or a crash of a library): look at Ray's "
                "logs; what is done is kept, the same command goes on"
            )

    # What a report needs of a model

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores of every worker."""
        return self._identity

    def reference(self, pictures: Sequence[Path], class_name: str) -> None:
        """Show good samples of a class; they are read when it is scored."""
        self._references[class_name] = list(pictures)

    def forget(self, class_name: str) -> None:
        """Drop the good samples of a class."""
        self._references.pop(class_name, None)

    def predict_many(
        self, pictures: Sequence[Path], class_name: str, *, keep_pictures: bool = True
    ) -> Iterator[Result]:
        """As :meth:`winspect.inspector.base.Predictor.predict_many`, for a few pictures, by one worker."""
        references = self._references.get(class_name, ())
        yield from self.pool.ask(score_again, list(pictures), class_name, list(references), os.getcwd())
