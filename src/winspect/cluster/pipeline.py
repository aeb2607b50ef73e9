"""The stages as a Ray Data pipeline: blocks of inputs in, rows of results out, in any order, in bounded memory.

A pipeline runs from the moment it is made, beside the one who reads its rows: on a machine of few cores it takes as
long to start as a few hundred pictures to judge, so what can be done beside that is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pyarrow as pa

from winspect.cluster.painting import paint
from winspect.cluster.shared import Model
from winspect.cluster.stages import PICTURES_PER_CALL, Judge, decode
from winspect.cluster.workers import Workers

logger = logging.getLogger(__name__)

# Ray's blocks between stages: some 90 pictures of one tile, so that judging starts early and little waits.
_BLOCK_BYTES = 16 << 20
# What was under way on a machine that died is done again. What fails as often as this takes its workers down with it;
# it is left out, and the run sees that it is missing.
_RETRIES = 3
_DEATHS_AT_START = 10
_TABLES_AHEAD = 4


@dataclass(frozen=True)
class Overlays:
    """Heat maps to write: where, and whether the arrays they are made from are kept in the rows."""

    place: str
    keep_arrays: bool


@dataclass(frozen=True)
class Job:
    """All that the pipeline does, but for the inputs.

    Attributes:
        shared: Ray's reference to a :class:`winspect.cluster.shared.Shared`, which need not be there yet.
        pictures_per_call: of a judging worker.
    """

    model: Model
    shared: Any
    workers: Workers
    overlays: Overlays | None = None
    pictures_per_call: int = PICTURES_PER_CALL


class Rows:
    """A running pipeline: iterate over it for its rows, once. Use it in a with-block, which ends it.

    Gives tables of :data:`winspect.cluster.stages.JUDGED`. A row may be missing, if it took its worker down with it
    each time, and none comes twice.

    Args:
        blocks: rows of inputs; each is decoded by one task.
        is_client: connected through ``ray://``: the pipeline is driven on the cluster then, and its rows are fetched.
    """

    def __init__(self, blocks: Sequence[pa.Table], job: Job, *, is_client: bool = False) -> None:
        self._tables = (_from_afar if is_client else _run)(blocks, job)
        self._ready: Queue[pa.Table | BaseException | None] = Queue(_TABLES_AHEAD)
        self._is_wanted = True
        Thread(target=self._fetch, name="winspect-rows", daemon=True).start()

    def _fetch(self) -> None:
        last: BaseException | None = None
        try:
            for table in self._tables:
                self._ready.put(table)
                if not self._is_wanted:
                    self._tables.close()
        except BaseException as error:
            last = error
        self._ready.put(last)

    def __iter__(self) -> Iterator[pa.Table]:
        while True:
            table = self._ready.get()
            if table is None:
                return
            if isinstance(table, BaseException):
                raise table
            yield table

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_wanted = False
        with suppress(Empty):  # makes room for the one it waits to hand over
            while True:
                self._ready.get_nowait()


def _run(blocks: Sequence[pa.Table], job: Job) -> Generator[pa.Table, None, None]:
    import ray.data
    from ray.data import ActorPoolStrategy

    workers = job.workers
    with _settings(), warnings.catch_warnings():
        # Ray 2.60 announces for 2.64 that retries are no longer the caller's to say.
        warnings.filterwarnings("ignore", ".*ray_remote_args.*")
        pipeline = (
            ray.data.from_arrow(list(blocks))
            .map_batches(
                _decode,
                fn_kwargs={"shared": [job.shared]},
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=workers.decoder_cpus,
                max_retries=_RETRIES,  # and so no task like the next: Ray would merge the two
            )
            .map_batches(
                _Worker,
                fn_constructor_kwargs={"model": job.model, "shared": [job.shared]},
                batch_size=job.pictures_per_call,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(min_size=workers.fewest, max_size=workers.most),
                max_task_retries=_RETRIES,
                **workers.options(),
            )
        )
        if job.overlays is not None:
            options = {"place": job.overlays.place, "keep_arrays": job.overlays.keep_arrays}
            pipeline = pipeline.map_batches(
                paint, fn_kwargs=options, batch_size=None, batch_format="pyarrow", num_cpus=workers.decoder_cpus
            )
        yield from pipeline.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _decode(block: pa.Table, *, shared: Sequence[Any]) -> Iterator[pa.Table]:
    import ray

    return decode(block, shared=ray.get(shared[0]))


class _Worker(Judge):
    """A judging worker that fetches what is shared, which is sent to a machine once."""

    def __init__(self, model: Model, shared: Sequence[Any]) -> None:
        import ray

        super().__init__(model, lambda: ray.get(shared[0]))


@contextmanager
def _settings() -> Generator[None, None, None]:
    """Ray Data's own settings while a pipeline runs; our own progress is shown in place of Ray's."""
    from ray.data import DataContext

    context = DataContext.get_current()
    ours = {
        "target_max_block_size": _BLOCK_BYTES,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": -1,
        "max_consecutive_actor_init_deaths": _DEATHS_AT_START,
    }
    known = {name: value for name, value in ours.items() if hasattr(context, name)}
    before = {name: getattr(context, name) for name in known}
    log = logging.getLogger("ray.data")
    # Ray's own account of a run goes to its log files, and only for those who ask for much to the terminal.
    silenced = (
        []
        if logger.isEnabledFor(logging.INFO)
        else [handler for handler in log.handlers if isinstance(handler, logging.StreamHandler)]
    )
    try:
        for name, value in known.items():
            setattr(context, name, value)
        for handler in silenced:
            log.removeHandler(handler)
        yield
    finally:
        for handler in silenced:
            log.addHandler(handler)
        for name, value in before.items():
            setattr(context, name, value)


def _from_afar(blocks: Sequence[pa.Table], job: Job) -> Generator[pa.Table, None, None]:
    """The same rows through a Ray client: the pipeline runs in an actor on the cluster, one table is fetched ahead."""
    import ray

    driver = ray.remote(num_cpus=0)(_Driver).remote(list(blocks), job)
    try:
        ahead = driver.next.remote()
        while (table := ray.get(ahead)) is not None:
            ahead = driver.next.remote()
            yield table
    finally:
        ray.kill(driver)


class _Driver:
    """Drives a pipeline on the cluster."""

    def __init__(self, blocks: Sequence[pa.Table], job: Job) -> None:
        self.rows = _run(blocks, job)

    def next(self) -> pa.Table | None:
        """The next table, None behind the last."""
        return next(self.rows, None)
