"""Where results go: Parquet shards that are whole or not there, and going on with them after any kill.

A shard is finished when its file has its name, and the file alone proves it: its footer names the run, the shard and
the number of rows. ``shards.json`` lists the finished shards for people and programs. Written anew after each of n
shards it would cost O(n²) bytes (10,000 shards: 5 GB of lists, which take longer than the shards), so it is written
at the end, and before that at most once a second and for at most a fiftieth of the time; a shard that a killed run
had no time to list is found by its footer. What the list is needed for: it tells of files that are gone or cut.

At any instant a kill leaves one of these behind, and resuming does this:

* a temporary file in ``_winspect``: removed;
* a shard file that is not listed: taken, by its footer;
* a list without the newest shards: the same;
* nothing but the folder: a new run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from winspect.cluster.shards import (
    FOLDER,
    RUN_FILE,
    SCHEMA_VERSION,
    SHARDS_FILE,
    SUMMARY_FILE,
    FolderStore,
    Plan,
    Shard,
    as_list,
    finished_shards,
    hash_of,
    result_schema,
    rows_per_shard,
    standing,
    visible_names,
    write_shard,
)
from winspect.errors import OutputError, SettingsError
from winspect.system.files import make_folder
from winspect.system.run_folder import FolderLock

_LOCK_FILE = f"{FOLDER}/lock"
# How often the list of shards is written, and for how much of the time at most.
_LIST_EVERY_S, _LIST_SHARE = 1.0, 0.02


@dataclass
class _Part:
    """The rows of an unfinished shard that are there."""

    received: np.ndarray
    left: int
    ordinals: list[np.ndarray] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)

    def whole(self) -> pa.Table:
        order = np.argsort(np.concatenate(self.ordinals))
        return pa.concat_tables(self.tables).combine_chunks().take(pa.array(order))


class Destination:
    """The place of a run's results. Make it with :meth:`open`; use it in a with-block.

    Attributes:
        place: as people read it. plan: which inputs lie in which shard. schema: of a shard.
        shards: the finished shards by number.
        rows_done: rows in finished shards; ``failed``: how many of them have an error.
        repeated: rows that came although they were there already.
    """

    def __init__(self, store: FolderStore, plan: Plan, shards: Mapping[int, Shard], *, arrays: bool) -> None:
        self.store, self.plan, self.place = store, plan, store.shown
        self.schema = result_schema(arrays=arrays)
        self.shards = dict(shards)
        self.rows_done = sum(shard.rows for shard in shards.values())
        self.failed = sum(shard.failed for shard in shards.values())
        self.repeated = 0
        self._parts: dict[int, _Part] = {}
        self._lock: FolderLock | None = None
        self._is_listed, self._list_again = True, 0.0

    @classmethod
    def open(
        cls,
        place: str,
        run: Mapping[str, Any],
        *,
        count: int,
        shard_rows: int | None = None,
        arrays: bool = False,
        resume: bool = False,
    ) -> Destination:
        """Start a run's results, or go on with them.

        A folder on this machine is locked until the with-block or the process ends. An object store knows no locks:
        two runs at once would write the same shards twice, with the same content.

        Args:
            place: a folder, made when it is not there, or a URI.
            run: what is run, as JSON: model, weights, settings, a hash of the inputs. Resuming compares it.
            count: of inputs, at least 1.
            shard_rows: rows of a shard; None: the earlier run's, or :func:`rows_per_shard`.
            arrays: rows come with their maps; see :func:`result_schema`.
            resume: keep the shards that are there. A new or empty folder simply starts.

        Raises:
            OutputError: the place cannot be written or holds other files, another run, or, without ``resume``, any
                run; or another run is writing there.
            SettingsError: ``count`` or ``shard_rows`` is less than 1.
        """
        for name, value in (("count", count), ("shard_rows", shard_rows)):
            if value is not None and value < 1:
                raise SettingsError(f"{name}: got {value}, need at least 1")
        try:
            store = FolderStore(place)
            if not store.sizes(FOLDER):  # nothing is left in a folder that is refused
                _refuse_foreign(store)
            lock = _locked(store)
            try:
                destination = _opened(store, run, count=count, shard_rows=shard_rows, arrays=arrays, resume=resume)
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
        except OutputError:
            raise
        except OSError as error:
            raise store.refusal(error) from error
        destination._lock = lock
        return destination

    def __enter__(self) -> Destination:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._list_shards()
            else:  # found by their footers if this fails too
                with suppress(OutputError):
                    self._list_shards()
        finally:
            self._parts.clear()
            if self._lock is not None:
                self._lock.release()

    @property
    def finished(self) -> frozenset[int]:
        """The numbers of the finished shards."""
        return frozenset(self.shards)

    def missing(self) -> list[range]:
        """The ordinals of unfinished shards, in order, adjacent shards joined."""
        ranges: list[range] = []
        for span in self._unfinished():
            if ranges and ranges[-1].stop == span.start:
                ranges[-1] = range(ranges[-1].start, span.stop)
            else:
                ranges.append(span)
        return ranges

    def lacking(self) -> np.ndarray:
        """int64: the ordinals of unfinished shards that have not come yet, in order."""
        lacks = [np.empty(0, np.int64)]
        for span in self._unfinished():
            part = self._parts.get(span.start // self.plan.shard_rows)
            offsets = np.arange(len(span)) if part is None else np.flatnonzero(~part.received)
            lacks.append(offsets + span.start)
        return np.concatenate(lacks)

    def _unfinished(self) -> Iterator[range]:
        return (self.plan.span(shard) for shard in range(self.plan.number) if shard not in self.shards)

    def add(self, rows: pa.Table) -> int:
        """Take result rows, and write the shards that become whole.

        Args:
            rows: ``ordinal`` (int64) and the columns of :func:`result_schema`, in any order and number. Rows that
                came before, or belong to a finished shard, are dropped and counted in ``repeated``.

        Returns:
            How many shards were written.

        Raises:
            OutputError: a shard cannot be written. Finished shards are kept, and nothing half-written has a name.
            SettingsError: a column is missing or of another type, or an ordinal is of no input.
        """
        ordinals, columns = self._columns(rows)
        # Sorted, and where each came first.
        ordinals, first = np.unique(ordinals, return_index=True)
        self.repeated += len(rows) - len(ordinals)
        shards, starts = np.unique(ordinals // self.plan.shard_rows, return_index=True)
        written = 0
        bounds = [*starts.tolist(), len(ordinals)]
        for shard, start, stop in zip(shards.tolist(), bounds[:-1], bounds[1:], strict=True):
            if shard in self.shards:
                self.repeated += stop - start
            elif self._take(shard, ordinals[start:stop], columns, first[start:stop]):
                self._write(shard)
                written += 1
        return written

    def _columns(self, rows: pa.Table) -> tuple[np.ndarray, pa.Table]:
        if lacks := [name for name in ("ordinal", *self.schema.names) if name not in rows.column_names]:
            raise SettingsError(f"result rows lack {', '.join(lacks)}; got {', '.join(rows.column_names)}")
        try:
            ordinals = rows["ordinal"].cast(pa.int64())
            columns = rows.select(self.schema.names).cast(self.schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise SettingsError(f"result rows are not of the result's types: {error}") from error
        if ordinals.null_count:
            raise SettingsError(f"result rows: {ordinals.null_count} have no ordinal")
        numbers = ordinals.to_numpy()
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.plan.inputs):
            raise SettingsError(
                f"result rows: got ordinals {numbers.min()} to {numbers.max()}, need 0 to {self.plan.inputs - 1}"
            )
        return numbers, columns

    def _take(self, shard: int, ordinals: np.ndarray, columns: pa.Table, indices: np.ndarray) -> bool:
        """Keep a shard's new rows; whether it is whole now."""
        span = self.plan.span(shard)
        part = self._parts.get(shard)
        if part is None:
            part = self._parts[shard] = _Part(np.zeros(len(span), bool), len(span))
        is_new = ~part.received[ordinals - span.start]
        ordinals, indices = ordinals[is_new], indices[is_new]
        self.repeated += len(is_new) - len(ordinals)
        if len(ordinals):
            part.received[ordinals - span.start] = True
            part.left -= len(ordinals)
            part.ordinals.append(ordinals)
            # A copy: a slice would keep the whole block it came in, which may lie in Ray's shared memory.
            part.tables.append(columns.take(pa.array(indices)))
        return part.left == 0

    def _write(self, number: int) -> None:
        try:
            shard = write_shard(self.store, self.plan, number, self._parts[number].whole())
        except OSError as error:
            raise self._cannot_write(error) from error
        del self._parts[number]
        self.shards[number] = shard
        self.rows_done += shard.rows
        self.failed += shard.failed
        self._is_listed = False
        if time.monotonic() >= self._list_again:
            self._list_shards()

    def _list_shards(self) -> None:
        if self._is_listed:
            return
        started = time.monotonic()
        self._write_json(SHARDS_FILE, as_list(self.plan, self.shards))
        self._is_listed, ended = True, time.monotonic()
        self._list_again = ended + max(_LIST_EVERY_S, (ended - started) / _LIST_SHARE)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write the list of shards and ``_winspect/summary.json``. Raises OutputError."""
        self._list_shards()
        self._write_json(SUMMARY_FILE, dict(summary))

    def _write_json(self, name: str, value: object) -> None:
        try:
            self.store.write_json(name, value)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        kept = f"finished shards are kept ({len(self.shards)} of {self.plan.number}), go on with --resume"
        return OutputError(f"{self.store.refusal(error)}; {kept}")


def refuse_used(place: str, *, resume: bool) -> None:
    """Refuse what :meth:`Destination.open` refuses at first sight, before anything that takes time is done.

    Raises:
        OutputError: as there; another run than the one that is there is not noticed.
    """
    store = FolderStore(place)
    try:
        _earlier_run(store, resume=resume)
    except OSError as error:
        raise store.refusal(error) from error


def _locked(store: FolderStore) -> FolderLock | None:
    """Make the folder, and keep others from writing there."""
    if not store.is_local:
        store.make_folder(FOLDER)
        return None
    make_folder(Path(store.path(FOLDER)))
    lock = FolderLock(Path(store.path(_LOCK_FILE)), store.shown)
    lock.acquire()
    return lock


def _opened(
    store: FolderStore, run: Mapping[str, Any], *, count: int, shard_rows: int | None, arrays: bool, resume: bool
) -> Destination:
    """The destination of a folder that nobody else writes."""
    earlier = _earlier_run(store, resume=resume)
    if shard_rows is None:
        shard_rows = rows_per_shard(count) if earlier is None else earlier["layout"]["rows_per_shard"]
    layout = {"inputs": count, "rows_per_shard": shard_rows, "arrays": arrays}
    wanted = json.loads(json.dumps({**run, "schema": SCHEMA_VERSION, "layout": layout}))
    if earlier is not None and earlier != wanted:
        raise OutputError(f"{store.shown}: holds another run ({_differences(earlier, wanted)}); choose another --out")
    store.remove_temporaries()
    plan = Plan(count, shard_rows, hash_of(wanted))
    if earlier is None:
        store.write_json(RUN_FILE, wanted)
        return Destination(store, plan, {}, arrays=arrays)
    destination = Destination(store, plan, finished_shards(store, plan), arrays=arrays)
    destination._is_listed = False
    destination._list_shards()
    if len(destination.shards) < plan.number:
        store.remove(SUMMARY_FILE)
    return destination


def _refuse_foreign(store: FolderStore) -> None:
    if names := visible_names(store):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise OutputError(f"{store.shown}: holds files of no winspect batch ({names[0]}{more}); choose another --out")


def _earlier_run(store: FolderStore, *, resume: bool) -> dict[str, Any] | None:
    """The run that is there and may be gone on with. Raises OutputError for anything else that is there."""
    try:
        run = store.read_json(RUN_FILE)
        if run is not None and not {"inputs", "rows_per_shard", "arrays"} <= run["layout"].keys():
            raise ValueError("its layout is not whole")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{store.shown}/{RUN_FILE}: is not a batch's run ({error}); choose another --out") from error
    if run is None:
        _refuse_foreign(store)
    elif not resume:
        raise OutputError(f"{store.shown}: {standing(store, run)}; add --resume, or choose another --out")
    return run


def _differences(earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    def short(value: object) -> str:
        text = json.dumps(value)
        return text if len(text) <= 80 else "..."

    earlier, wanted = (
        {**run, "layout": None, **{f"layout.{name}": value for name, value in run["layout"].items()}}
        for run in (earlier, wanted)
    )
    names = sorted(name for name in {*earlier, *wanted} if earlier.get(name) != wanted.get(name))
    return "; ".join(f"{name}: {short(earlier.get(name))} there, {short(wanted.get(name))} asked for" for name in names)
