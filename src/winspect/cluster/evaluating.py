"""An evaluation on a cluster: categories and their pictures are judged at once, in any order, and measured here.

A part (a category for one seed) is a class of its own to the workers: what it is judged with, prompts and good samples,
is made once by one of them, for all. So this process holds no model, and needs neither torch nor a GPU.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from winspect.cluster.cluster import Cluster, check_nodes, connect, on_worker, result_of
from winspect.cluster.filling import Filling
from winspect.cluster.gathering import Gathering
from winspect.cluster.inputs import COLUMNS, Inputs
from winspect.cluster.pipeline import Job
from winspect.cluster.rows import SCHEMA
from winspect.cluster.shared import Judging, Model, Shared, portable
from winspect.cluster.workers import Workers, plan_workers
from winspect.datasets import Item
from winspect.errors import PictureError, ReferencesError, SourceError, WinspectError
from winspect.evaluation.alarms import PROBES, embedding_alarm
from winspect.evaluation.category import Described, Keep, Measuring, Part, PartScorer
from winspect.inspector.state import ClassState
from winspect.methods.result import Result
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import ScoreRange, run_range
from winspect.system.machine import describe_machine

logger = logging.getLogger(__name__)


@contextmanager
def cluster_model(
    address: str | None = None,
    *,
    pool: int | str | None = None,
    device: str = "auto",
    verbose: bool = False,
    **model: Any,
) -> Iterator[ClusterModel]:
    """A model on a Ray cluster, for :func:`winspect.evaluation.run.evaluate` and for the report behind it.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None for what ``RAY_ADDRESS`` says, else this machine.
        pool: how many processes judge, as in ``4``, or ``"2-8"`` for a pool that follows the work; see
            :func:`winspect.cluster.workers.plan_workers`, also for ``device``.
        verbose: let Ray's own messages through.
        **model: options of :class:`winspect.WinCLIP`; its ``workers`` are threads that decode.

    Raises:
        ClusterError: the cluster cannot be reached.
        DeviceError: it has no such device.
        MissingExtraError: Ray is not installed.
        SettingsError: an option is out of range.
    """
    options = portable(model)
    with connect(address, verbose=verbose) as cluster:
        planned = plan_workers(cluster, device, None if pool is None else str(pool))
        judges = ClusterModel(cluster, planned, Model({**options, "device": planned.device}, planned.threads))
        try:
            yield judges
        finally:
            judges.close()


@dataclass(frozen=True)
class Asked:
    """What a worker is told of a part: what the workers call it, what it is in prompts, and pictures as full paths."""

    key: str
    class_name: str
    references: Sequence[str]
    probes: Sequence[str]


@dataclass(frozen=True)
class Told:
    """What this process is told of the parts, by key.

    Attributes:
        shared: what the workers share, without the states.
        described: what judges; the machine is the one that made the parts.
        alarms: of :func:`winspect.evaluation.alarms.embedding_alarm`.
        score_ranges: of the colours of heat maps; see :func:`winspect.pictures.heatmaps.run_range`.
        stopped: of parts with a good sample that cannot be used: what is said of it, and its path.
    """

    shared: Shared
    described: Described
    alarms: Mapping[str, str | None]
    score_ranges: Mapping[str, ScoreRange]
    stopped: Mapping[str, tuple[str, str]]


def make_parts(model: Model, asked: Sequence[Asked]) -> tuple[Shared, Told]:
    """Load the model here, show it the good samples of each part, and look at the windows of its first pictures.

    Raises:
        WinspectError: the model cannot be loaded, or a class cannot be used.
    """
    predictor: Any = model.load()
    states: dict[str, ClassState] = {}
    stopped: dict[str, tuple[str, str]] = {}
    alarms: dict[str, str | None] = {}
    score_ranges: dict[str, ScoreRange] = {}
    known: dict[tuple[str, ...], str | None] = {}  # the seeds of a category are tested on the same pictures
    for part in asked:
        try:
            if part.references:
                predictor.reference(list(part.references), part.class_name)
            if not states:
                predictor.prepare_engine(part.class_name)  # from then on it says what runs
            states[part.key] = predictor.state_of(part.class_name)
            score_ranges[part.key] = run_range(predictor.good_levels(part.class_name))
            probes = tuple(part.probes)
            if probes not in known:
                known[probes] = embedding_alarm(predictor, [Path(probe) for probe in probes])
            alarms[part.key] = known[probes]
        except ReferencesError as error:
            if not isinstance(error.__cause__, PictureError):
                raise
            stopped[part.key] = str(error), error.__cause__.path
        finally:
            predictor.forget(part.class_name)
    judging = Judging(classes=tuple(states), maps=True)
    model_told = predictor.describe()
    shared = Shared(model_told, predictor.preprocess, predictor.cut, states, judging)
    described = Described(model_told, predictor.preprocess.size, describe_machine(model_told["device"]))
    return shared, Told(replace(shared, states={}), described, alarms, score_ranges, stopped)


class ClusterModel(PartScorer):
    """A model on a cluster; make it with :func:`cluster_model`.

    It judges an evaluation, and behind it the few pictures of the report again, for which it is as much of a model as
    :func:`winspect.evaluation.report.write_evaluation_report` needs.
    """

    def __init__(self, cluster: Cluster, workers: Workers, model: Model) -> None:
        self.cluster, self.workers, self.model = cluster, workers, model
        self._reviewer: Any = None
        self._references: dict[str, list[Path]] = {}

    def prepare(self, parts: Sequence[Part]) -> Described:
        """See :meth:`winspect.evaluation.category.PartScorer.prepare`; every machine is asked whether it can do this.

        Raises:
            ClusterError: a machine cannot, or lacks the data set's folder.
            WinspectError: the model cannot be loaded there.
        """
        weights = str(self.model.options.get("weights", ""))
        check_nodes(
            self.cluster,
            [*{os.path.abspath(part.root) for part in parts}, *([weights] if os.path.isabs(weights) else [])],
        )
        self._parts = {f"part {number}": part for number, part in enumerate(parts)}
        asked = [
            Asked(key, part.class_name, _paths(part.drawn.references), _paths(part.drawn.tested[: 2 * PROBES]))
            for key, part in self._parts.items()
        ]
        options = {**self.workers.options(), "num_returns": 2}
        self._shared, told = on_worker(make_parts, self.model, asked, **options)
        try:
            self._told: Told = result_of(told)
        except WinspectError:
            with suppress(WinspectError):
                result_of(self._shared)  # the same error, which Ray would print if it was not looked at
            raise
        return self._told.described

    def score(self, keep: Keep, advance: Callable[[], object]) -> None:
        """See :meth:`winspect.evaluation.category.PartScorer.score`.

        Raises:
            ClusterError: the workers refuse, or none of them lives long enough to judge anything.
        """
        judged = {key: part.drawn.tested for key, part in self._parts.items() if key not in self._told.stopped}

        def measure(key: str, results: Sequence[Result], seconds: float) -> None:
            keep(self._parts[key], self._measured(key, results, seconds))

        for key in self._told.stopped:
            measure(key, (), 0.0)
        gathering = Gathering({key: len(items) for key, items in judged.items()}, measure, advance)
        if len(inputs := _inputs(judged)):
            filling = Filling(inputs, Job(self.model, self._shared, self.workers), self.cluster)
            with filling.start([range(len(inputs))]) as rows:
                filling.fill(gathering, self._told.shared, rows)

    def _measured(self, key: str, results: Sequence[Result], seconds: float) -> dict[str, Any]:
        part, told = self._parts[key], self._told
        measuring = Measuring(part, side=told.described.side)
        measuring.score_range = told.score_ranges.get(key, measuring.score_range)
        if key in told.stopped:
            _stop(measuring, part, *told.stopped[key])
        for item, result in zip(part.drawn.tested, results, strict=False):  # none, where it was stopped
            measuring.add(item, _named(item.path, result, part.class_name, keep_picture=part.maps.overlays))
        return measuring.finish(told.alarms.get(key), elsewhere_s=seconds)

    # What a report asks of a model

    @property
    def weights_sha256(self) -> str:
        """Of the model's weights."""
        return str(self._told.described.model["weights_sha256"])

    @property
    def recipe(self) -> Any:
        """With its ``name``."""
        return SimpleNamespace(name=self._told.described.model["recipe"]["name"])

    def reference(self, pictures: Sequence[Path], class_name: str) -> None:
        """Show good samples of a class; they are read when it is judged."""
        self._references[class_name] = list(pictures)

    def forget(self, class_name: str) -> None:
        """Drop the good samples of a class."""
        self._references.pop(class_name, None)

    def predict_many(
        self, pictures: Sequence[Path], class_name: str, *, keep_pictures: bool = False
    ) -> Iterator[Result]:
        """As :meth:`winspect.inspector.base.Predictor.predict_many`, for a few pictures, by one worker.

        Raises:
            ReferencesError: a good sample cannot be read.
            ClusterError: the worker died, or cannot be had.
        """
        import ray

        if self._reviewer is None:
            self._reviewer = ray.remote(_Reviewer).options(**self.workers.options()).remote(self.model)
        names = [os.path.abspath(path) for path in pictures]
        references = [os.path.abspath(path) for path in self._references.get(class_name, ())]
        results = result_of(self._reviewer.judge.remote(names, class_name, references))
        for path, result in zip(pictures, results, strict=True):
            yield _named(path, result, class_name, keep_picture=keep_pictures)

    def close(self) -> None:
        """Let go of the worker that judges for reports."""
        if self._reviewer is not None:
            import ray

            ray.kill(self._reviewer)


class _Reviewer:
    """On a worker: judges a few pictures at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model.load()

    def judge(self, pictures: Sequence[str], class_name: str, references: Sequence[str]) -> list[Result]:
        from winspect.inspector.outcome import ConstantMapWarning

        self.model.forget(class_name)
        if references:
            self.model.reference(references, class_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantMapWarning)  # the evaluation's alarm has said so
            return list(self.model.predict_many(pictures, class_name))


def _paths(items: Sequence[Item]) -> list[str]:
    paths = [os.path.abspath(item.path) for item in items]
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise SourceError(f"{path!r}: a name that is no UTF-8 cannot be sent to workers: rename it") from error
    return paths


def _inputs(judged: Mapping[str, Sequence[Item]]) -> Inputs:
    """All pictures of all parts: a part is a class."""
    paths = [path for items in judged.values() for path in _paths(items)]
    columns = {
        "id": [str(number) for number in range(len(paths))],
        "path": paths,
        "class": [key for key, items in judged.items() for _ in items],
    }
    fields = [SCHEMA.field(name) for name in COLUMNS]
    arrays = [pa.array(columns.get(field.name, [None] * len(paths)), field.type) for field in fields]
    return Inputs(pa.table(arrays, schema=pa.schema(fields)), tuple(judged), sha256="")  # nothing goes on by its hash


def _stop(measuring: Measuring, part: Part, message: str, path: str) -> None:
    """Say of a good sample that cannot be used what is said here, where it may have a shorter path."""
    given = next(str(item.path) for item in part.drawn.references if os.path.abspath(item.path) == path)
    measuring.stop(ReferencesError(message.replace(path, given)), given)


def _named(path: Path, result: Result, class_name: str, *, keep_picture: bool) -> Result:
    """A worker's result under the names that things have here; with the picture, which is read here."""
    if result.error is not None:
        return Result(str(path), class_name, error=PictureError(path, result.error.reason))
    rgb = None
    if keep_picture:
        try:
            rgb = read_rgb(path)
        except PictureError as error:  # it was there a moment ago, and has its score
            logger.warning("no heat map of %s", error)
    return replace(result, path=str(path), category_name=class_name, picture_rgb=rgb)
