"""Shards as files: their columns, names and footers, and a folder in which files appear whole or not at all.

A shard's footer carries its number, the hash of its run and how many of its rows failed, so that a file tells by
itself what it is, however the run ended that wrote it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from winspect.cluster.filesystems import named, open_input, open_place, reason_of
from winspect.errors import OutputError, SourceError
from winspect.system.files import output_error

logger = logging.getLogger(__name__)

FOLDER = "_winspect"
RUN_FILE, SHARDS_FILE, SUMMARY_FILE = (f"{FOLDER}/{name}.json" for name in ("run", "shards", "summary"))
SCHEMA_VERSION = 1

READERS = 16
"""Files read at a time: an object store answers each in tens of milliseconds."""

_FOOTER_GUESS = 1 << 16  # bytes; a footer is a few thousand
_TEMPORARY, _FOOTER_KEY = ".tmp", b"winspect"
_FEW_VALUES = ["class", "verdict", "error.type", "model", "weights_sha256"]


def result_schema(*, arrays: bool) -> pa.Schema:
    """The columns of a shard.

    Strings that repeat (class, verdict, model, hash) are plain here and dictionary-encoded by Parquet itself: any
    reader gives plain strings, and a repeated one costs a few bits.

    Args:
        arrays: with each picture's maps: ``tile_maps`` flat, of shape ``map_shape`` (tiles, rows, columns), 0 to 1;
            ``tile_boxes`` flat, x0 y0 x1 y1 of each tile in pixels; ``width`` and ``height`` in pixels.
    """
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("class", pa.string(), nullable=False),
        pa.field("anomaly_score", pa.float64()),
        pa.field("verdict", pa.string()),
        pa.field("threshold", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("boxes", pa.list_(pa.list_(pa.int32()))),
        pa.field("map", pa.string()),
        pa.field("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
        pa.field("warning", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("weights_sha256", pa.string(), nullable=False),
    ]
    if arrays:
        fields += [
            pa.field("tile_maps", pa.list_(pa.float32())),
            pa.field("map_shape", pa.list_(pa.int32())),
            pa.field("tile_boxes", pa.list_(pa.int32())),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
        ]
    return pa.schema(fields)


def rows_per_shard(count: int) -> int:
    """How many rows a shard holds unless told otherwise: a thousandth of the inputs, 256 to 10,000.

    A kill loses what has not reached a finished shard, so a shard is small beside the run; a file costs an opening
    and a footer wherever the results are read, so none is smaller than 256 rows; and the rows of unfinished shards
    wait in memory, so none is larger than 10,000.

    Args:
        count: of inputs.
    """
    return min(max(count // 1000, 256), 10_000)


@dataclass(frozen=True)
class Shard:
    """A finished shard, as ``shards.json`` lists it."""

    shard: int
    file: str
    rows: int
    failed: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """Which inputs lie in which shard: fixed before anything runs.

    Attributes:
        inputs: how many there are. shard_rows: how many a shard holds, but for the last.
        run_hash: SHA-256 of ``run.json``'s content.
    """

    inputs: int
    shard_rows: int
    run_hash: str

    @property
    def number(self) -> int:
        """How many shards there are."""
        return -(-self.inputs // self.shard_rows)

    def file(self, shard: int) -> str:
        """A shard's file: wide enough that names sort as numbers do."""
        return f"part-{shard:0{max(5, len(str(self.number - 1)))}d}.parquet"

    def span(self, shard: int) -> range:
        """The ordinals of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.inputs))


class FolderStore:
    """A folder of any of Arrow's file systems. A file that is written is there whole, or not.

    It is written under a temporary name in ``_winspect`` and renamed. On this machine the bytes are on the disk
    before the name is. An object store has no renaming (Arrow copies and deletes), but its objects appear whole.

    Args:
        place: a folder or a URI.

    Attributes:
        shown: the place as people read it.

    Raises:
        OutputError: the URI is malformed, or its store cannot be opened.
    """

    def __init__(self, place: str) -> None:
        try:
            self.shown = named(place)
            self.fs, root = open_place(place)
        except SourceError as error:
            raise OutputError(f"--out: {error}") from error
        self.root = root.rstrip("/") or root
        self.is_local = self.fs.type_name == "local"

    def path(self, name: str) -> str:
        """The whole path of a file in the folder."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The files and folders in a folder, sorted, with their bytes; none where there is no such folder."""
        found = self.fs.get_file_info(FileSelector(self.path(folder), allow_not_found=True))
        return {info.base_name: info.size or 0 for info in sorted(found, key=lambda info: info.base_name)}

    def make_folder(self, name: str) -> None:
        """Make a folder and those above it, where they are not there."""
        self.fs.create_dir(self.path(name), recursive=True)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such file."""
        with open_input(self.fs, self.path(name), stream=True) as file:
            return file.read()

    def read_json(self, name: str) -> Any:
        """A JSON file's value; None where there is none. Raises ValueError when it is damaged."""
        try:
            return json.loads(self.read(name))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.fs.get_file_info(self.path(name)).type != FileType.NotFound:
            self.fs.delete_file(self.path(name))

    def remove_temporaries(self) -> None:
        """Remove what a run left that was killed while it wrote."""
        for name in self.sizes(FOLDER):
            if name.endswith(_TEMPORARY):
                self.remove(f"{FOLDER}/{name}")

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file under a temporary name, and rename it. Raises OSError; then nothing has the name."""
        path, temporary = self.path(name), self.path(f"{FOLDER}/{name.rpartition('/')[2]}{_TEMPORARY}")
        try:
            with self.fs.open_output_stream(temporary, compression=None) as file:
                file.write(content)
            if self.is_local:
                _sync(temporary, os.O_RDWR)
            if self.fs.type_name == "hdfs":  # renames to no name that is taken; of what is replaced, nothing is lost
                self.remove(name)
            self.fs.move(temporary, path)
        except BaseException:
            with suppress(OSError):
                self.fs.delete_file(temporary)
            raise
        if self.is_local and os.name == "posix":  # elsewhere folders cannot be opened
            _sync(str(Path(path).parent), os.O_RDONLY)

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON, whole or not at all."""
        self.write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def refusal(self, error: OSError) -> OutputError:
        """The store's refusal to write, as an error that names the place and the fix."""
        if self.is_local:
            return output_error(Path(self.root), error)
        return OutputError(f"{self.shown}: cannot write: {reason_of(error)}")


def _sync(path: str, how: int) -> None:
    file = os.open(path, how)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
            raise
    finally:
        os.close(file)


def hash_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_shard(store: FolderStore, plan: Plan, shard: int, rows: pa.Table) -> Shard:
    """Write the rows of a shard, in order. Raises OSError."""
    name, failed = plan.file(shard), len(rows) - rows["error"].null_count
    footer = {"schema": SCHEMA_VERSION, "run": plan.run_hash, "shard": shard, "failed": failed}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata({_FOOTER_KEY: json.dumps(footer)}),
        sink,
        row_group_size=max(len(rows), 1),
        compression="zstd",
        use_dictionary=_FEW_VALUES,
    )
    content = sink.getvalue()
    store.write(name, content)
    return Shard(shard, name, len(rows), failed, content.size)


class StrangeShardError(ValueError):
    """A whole Parquet file, but of another run, or another shard."""


def read_shard(store: FolderStore, plan: Plan, shard: int, size: int) -> Shard:
    """What a shard's file says of itself, by its footer.

    Raises:
        ValueError: why it is not this finished shard. OSError: it cannot be read now; that says nothing about it.
    """
    name = plan.file(shard)
    footer_bytes = _footer_bytes(store, name)
    try:
        metadata = pq.read_metadata(pa.BufferReader(footer_bytes))
        footer = json.loads((metadata.metadata or {}).get(_FOOTER_KEY, b"{}"))
    except (OSError, ValueError) as error:
        raise ValueError(f"is not whole Parquet ({error})") from error
    if (footer.get("run"), footer.get("shard")) != (plan.run_hash, shard):
        raise StrangeShardError("is of another run")
    if metadata.num_rows != len(plan.span(shard)):
        raise ValueError(f"holds {metadata.num_rows} rows, {len(plan.span(shard))} wanted")
    return Shard(shard, name, metadata.num_rows, footer["failed"], size)


def _footer_bytes(store: FolderStore, name: str) -> bytes:
    """A Parquet file's end. Read apart from its parsing: a network that fails is not a file that is damaged."""
    try:
        with open_input(store.fs, store.path(name)) as file:
            size = file.size()
            end = file.read_at(min(size, _FOOTER_GUESS), max(size - _FOOTER_GUESS, 0))
            wanted = int.from_bytes(end[-8:-4], "little") + 8  # its length, and the magic number
            return end if wanted <= len(end) else file.read_at(min(size, wanted), max(size - wanted, 0))
    except FileNotFoundError as error:
        raise ValueError("is not there") from error


def read_columns(store: FolderStore, shard: Shard, columns: list[str]) -> pa.Table:
    """Some columns of a shard. Raises OutputError."""
    try:
        with open_input(store.fs, store.path(shard.file)) as file:
            return pq.ParquetFile(file).read(columns=columns)
    except (OSError, ValueError) as error:
        raise OutputError(f"{store.shown}/{shard.file}: cannot be read ({error}); go on with --resume") from error


def as_list(plan: Plan, shards: Mapping[int, Shard]) -> dict[str, Any]:
    """The content of ``shards.json``."""
    listed = [vars(shards[number]) for number in sorted(shards)]
    return {"schema": SCHEMA_VERSION, "rows_per_shard": plan.shard_rows, "inputs": plan.inputs, "shards": listed}


def finished_shards(store: FolderStore, plan: Plan) -> dict[int, Shard]:
    """The finished shards that are there; of one that was listed and is not there or not whole, the log tells."""
    try:
        listed = {entry["shard"]: entry["bytes"] for entry in (store.read_json(SHARDS_FILE) or {}).get("shards", ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s/%s: cannot be read (%s); the shards tell by themselves", store.shown, SHARDS_FILE, error)
        listed = {}
    sizes = store.sizes()
    numbers = {plan.file(number): number for number in range(plan.number)}
    if strangers := [name for name in sizes if name.endswith(".parquet") and name not in numbers]:
        raise _stranger(store, strangers[0])

    def look(number: int) -> Shard | str:
        size = sizes.get(plan.file(number))
        if size is None:
            return "is not there"
        if size != listed.get(number, size):
            return f"has {size} bytes, {listed[number]} were written"
        try:
            return read_shard(store, plan, number, size)
        except StrangeShardError as error:  # not ours to replace
            raise _stranger(store, plan.file(number)) from error
        except ValueError as error:
            return str(error)
        except OSError as error:
            raise OutputError(f"{store.shown}/{plan.file(number)}: {reason_of(error)}; then --resume") from error

    there = [number for name, number in numbers.items() if name in sizes or number in listed]
    with ThreadPoolExecutor(READERS, thread_name_prefix="winspect-footers") as readers:
        found = dict(zip(there, readers.map(look, there), strict=True))
    for number, shard in found.items():
        if isinstance(shard, str):
            logger.warning("%s/%s %s; it will be done again", store.shown, plan.file(number), shard)
            store.remove(plan.file(number))
    return {number: shard for number, shard in found.items() if isinstance(shard, Shard)}


def _stranger(store: FolderStore, name: str) -> OutputError:
    return OutputError(f"{store.shown}: {name} is none of this run's shards; move it away, or choose another --out")


def visible_names(store: FolderStore) -> list[str]:
    """What a folder holds, but for winspect's own and hidden files."""
    return [name for name in store.sizes() if name != FOLDER and not name.startswith(".")]


def standing(store: FolderStore, earlier: Mapping[str, Any]) -> str:
    """How far the run that is there came."""
    layout = earlier["layout"]
    plan = Plan(layout["inputs"], layout["rows_per_shard"], "")
    there = sum(name.startswith("part-") for name in visible_names(store))
    state = "a finished" if there == plan.number else "an unfinished"
    return f"holds {state} run of winspect batch ({there} of {plan.number} shards)"
