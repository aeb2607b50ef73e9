"""The place of a run's results: part files that appear whole, and going on with them after any kill.

A part that is there is a shard that is done: resuming lists the parts and reads their footers, and everything else is
work to do. At any instant a kill leaves one of these behind, and resuming does this:

* a temporary file in ``_winspect``: removed;
* a part file: taken, by its footer; done again where that is not whole;
* nothing but the folder: a new run.

``shards.json`` lists the finished shards for people and programs, when a run ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from winspect.cluster.shards import (
    SCHEMA_VERSION,
    Part,
    Plan,
    Shard,
    StrangeShardError,
    read_shards,
    rows_per_shard,
)
from winspect.cluster.store import FOLDER, RUN_FILE, SHARDS_FILE, SUMMARY_FILE, TEMPORARY, FolderStore
from winspect.errors import OutputError, SettingsError
from winspect.methods.identity import brief, differences
from winspect.system.files import make_folder
from winspect.system.run_folder import FolderLock

logger = logging.getLogger(__name__)


class Destination:
    """The place of a run's results. Make it with :meth:`open`; use it in a with-block.

    Attributes:
        plan: which inputs lie in which shard.
        shards: the finished shards by number.
    """

    def __init__(self, store: FolderStore, plan: Plan, shards: dict[int, Shard], lock: ExitStack) -> None:
        self.store, self.plan, self.shards, self._lock = store, plan, shards, lock

    @classmethod
    def open(
        cls,
        place: str,
        run: Mapping[str, Any],
        *,
        count: int,
        shard_rows: int | None = None,
        workers: int = 1,
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
            shard_rows: rows of a shard; None: the earlier run's, or :func:`rows_per_shard` of ``workers``.
            arrays: rows come with their maps; see :func:`winspect.cluster.shards.result_schema`.
            resume: keep the shards that are there. A new or empty folder simply starts.

        Raises:
            OutputError: the place cannot be written or holds other files, another run, or, without ``resume``, any
                run; or another run is writing there.
            SettingsError: ``count`` or ``shard_rows`` is less than 1.
        """
        for name, value in (("count", count), ("shard_rows", shard_rows)):
            if value is not None and value < 1:
                raise SettingsError(f"{name}: got {value}, need at least 1")
        store = FolderStore(place)
        try:
            with ExitStack() as lock:
                if not store.sizes(FOLDER):  # nothing is left in a folder that is refused
                    _refuse_foreign(store)
                _lock(store, lock)
                earlier = _earlier_run(store, resume=resume)
                if shard_rows is None and earlier is not None:
                    shard_rows = earlier["layout"]["rows_per_shard"]
                layout = {"inputs": count, "rows_per_shard": shard_rows or rows_per_shard(count, workers)}
                run = {**run, "schema": SCHEMA_VERSION, "layout": {**layout, "arrays": arrays}}
                run = json.loads(json.dumps(run))  # as it is read back
                plan = Plan.of(earlier or run)
                return cls(store, plan, _begun(store, plan, run, earlier), lock.pop_all())
        except OSError as error:
            raise store.refusal(error) from error

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """List the shards, and let others write there."""
        shards = [vars(self.shards[number]) for number in sorted(self.shards)]
        counts = {"rows_per_shard": self.plan.shard_rows, "inputs": self.plan.inputs}
        try:
            self._write(SHARDS_FILE, {"schema": SCHEMA_VERSION, **counts, "shards": shards})
        except OutputError:
            if error is None:
                raise
        finally:
            self._lock.close()

    @property
    def rows_done(self) -> int:
        """Rows in finished shards."""
        return sum(shard.rows for shard in self.shards.values())

    @property
    def failed(self) -> int:
        """Rows in finished shards that have an error."""
        return sum(shard.failed for shard in self.shards.values())

    def missing(self) -> list[int]:
        """The shards that are not done, in order."""
        return [number for number in range(self.plan.number) if number not in self.shards]

    def add(self, part: Part) -> None:
        """Put a shard's file in place. Raises OutputError; then finished shards are kept."""
        self._write(part.shard.file, part.content)
        self.shards[part.shard.shard] = part.shard

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write ``_winspect/summary.json``. Raises OutputError."""
        self._write(SUMMARY_FILE, dict(summary))

    def check(self) -> None:
        """Prove by the footers of the files that are there that every input has exactly one row.

        Raises:
            OutputError: a shard is missing, damaged or not of this run, or there is a Parquet file too many.
        """
        name = self.store.name
        try:
            found = read_shards(self.store, self.plan)
        except OSError as error:
            raise OutputError(f"{name}: cannot be listed ({error})") from error
        wrong = [f"{file} {fault}" for file, fault in found.items() if isinstance(fault, ValueError)]
        wrong += [f"{file} is not there" for file in self.plan.files() if file not in found]
        if wrong:
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise OutputError(
                f"{name}: not every input has exactly one row: {'; '.join(wrong[:3])}{more}; "
                "move away what does not belong there, and run again with --resume"
            )

    def _write(self, name: str, content: Any) -> None:
        try:
            self.store.write(name, content)
        except OSError as error:
            kept = f"finished shards are kept ({len(self.shards)} of {self.plan.number}), go on with --resume"
            raise OutputError(f"{self.store.refusal(error)}; {kept}") from error


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


def _lock(store: FolderStore, held: ExitStack) -> None:
    """Make the folder, and keep others from writing there while a stack is open."""
    if store.is_local:
        lock = FolderLock(make_folder(Path(store.path(FOLDER))) / "lock", store.name)
        lock.acquire()
        held.callback(lock.release)
    else:
        store.fs.create_dir(store.path(FOLDER), recursive=True)


def _begun(
    store: FolderStore, plan: Plan, run: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> dict[int, Shard]:
    """The finished shards of a folder that nobody else writes; parts that are not whole are removed."""
    if earlier is not None and (different := differences(_flat(earlier), _flat(run))):
        words = "; ".join(each.in_words("{name}: {first} there, {second} asked for", brief) for each in different)
        raise OutputError(f"{store.name}: holds another run ({words}); choose another --out")
    for name in store.sizes(FOLDER):
        if name.endswith(TEMPORARY):  # a run was killed while it wrote
            store.remove(f"{FOLDER}/{name}")
    if earlier is None:
        store.write(RUN_FILE, dict(run))
        return {}
    shards: dict[int, Shard] = {}
    for name, found in read_shards(store, plan).items():
        if isinstance(found, Shard):
            shards[found.shard] = found
        elif isinstance(found, StrangeShardError):  # not ours to replace
            fix = "move it away, or choose another --out"
            raise OutputError(f"{store.name}: {name} is none of this run's shards; {fix}") from found
        else:
            logger.warning("%s/%s %s; it will be done again", store.name, name, found)
            store.remove(name)
    if len(shards) < plan.number:
        store.remove(SUMMARY_FILE)
    return shards


def _refuse_foreign(store: FolderStore) -> None:
    if names := store.visible_names():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise OutputError(f"{store.name}: holds files of no winspect batch ({names[0]}{more}); choose another --out")


def _earlier_run(store: FolderStore, *, resume: bool) -> dict[str, Any] | None:
    """The run that is there and may be gone on with. Raises OutputError for anything else that is there."""
    try:
        run = store.read_json(RUN_FILE)
        number = 0 if run is None else Plan.of(run).number
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{store.name}/{RUN_FILE}: is not a batch's run ({error}); choose another --out") from error
    if run is None:
        _refuse_foreign(store)
    elif not resume:
        there = sum(name.startswith("part-") for name in store.visible_names())
        state = "a finished" if there == number else "an unfinished"
        raise OutputError(
            f"{store.name}: holds {state} run of winspect batch ({there} of {number} shards); add --resume, or choose "
            "another --out"
        )
    return run


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a run, those of its layout by a name of their own."""
    layout = {f"layout.{name}": value for name, value in run["layout"].items()}
    return {**{name: value for name, value in run.items() if name != "layout"}, **layout}
