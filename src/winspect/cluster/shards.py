"""Shards: which inputs lie in which, their columns, and their files, each of which says by its footer what it is.

A part file's footer carries the hash of its run, its number and how many of its rows failed: the file alone proves that
the shard is done, however the run ended that wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from winspect.cluster.filesystems import open_input, reason_of
from winspect.cluster.store import FolderStore
from winspect.errors import OutputError

SCHEMA_VERSION = 1
_READERS = 16
"""Footers read at a time: an object store answers each in tens of milliseconds."""
_FOOTER_GUESS = 1 << 16  # bytes; a footer is a few thousand
_FOOTER_KEY = b"winspect"
_FEW_VALUES = ["class", "verdict", "error.type", "model", "weights_sha256"]
_FEWEST_ROWS, _MOST_ROWS, _FEWEST_SHARED = 256, 10_000, 32


def result_schema(*, arrays: bool) -> pa.Schema:
    """The columns of a shard.

    Strings that repeat (class, verdict, model, hash) are plain here and dictionary-encoded by Parquet itself: any
    reader gives plain strings, and a repeated one costs a few bits.

    Args:
        arrays: with each picture's maps: ``tile_maps`` flat, of shape ``map_shape`` (tiles, rows, columns), in the
            range of scores; ``tile_boxes`` flat, x0 y0 x1 y1 of each tile; ``width`` and ``height``; all in pixels.
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
        pa.field("review_threshold", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("product", pa.struct([("name", pa.string()), ("revision", pa.int64())])),
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


def rows_per_shard(count: int, workers: int = 1) -> int:
    """The rows of a shard unless the caller says otherwise: a thousandth of the inputs, 256 to 10,000.

    A kill loses the shards in work, so a shard is small beside the run; a file costs an opening and a footer wherever
    the results are read, so none is smaller than 256 rows, but where several workers would have no shard to work on: a
    few inputs for many workers are two shards a worker, of 32 rows at least.
    """
    rows = min(max(count // 1000, _FEWEST_ROWS), _MOST_ROWS)
    return rows if workers == 1 else min(rows, max(-(-count // (2 * workers)), _FEWEST_SHARED))


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

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Plan:
        """The plan of a run, as ``run.json`` has it."""
        content = json.dumps(run, sort_keys=True).encode()
        return cls(run["layout"]["inputs"], run["layout"]["rows_per_shard"], hashlib.sha256(content).hexdigest())

    @property
    def number(self) -> int:
        """How many shards there are."""
        return -(-self.inputs // self.shard_rows)

    def file(self, shard: int) -> str:
        """A shard's file: wide enough that names sort as numbers do."""
        return f"part-{shard:0{max(5, len(str(self.number - 1)))}d}.parquet"

    def files(self) -> dict[str, int]:
        """All files, in order, and their numbers."""
        return {self.file(number): number for number in range(self.number)}

    def span(self, shard: int) -> range:
        """The ordinals of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.inputs))


@dataclass(frozen=True)
class Shard:
    """A finished shard, as ``shards.json`` lists it."""

    shard: int
    file: str
    rows: int
    failed: int
    bytes: int


class Part(NamedTuple):
    """A finished shard and its file's content: what a worker makes, and the driver puts in place."""

    shard: Shard
    content: pa.Buffer


def encode(plan: Plan, shard: int, rows: pa.Table) -> Part:
    """A shard's rows, in order, as Parquet with its footer."""
    failed = len(rows) - rows["error"].null_count
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
    return Part(Shard(shard, plan.file(shard), len(rows), failed, content.size), content)


class StrangeShardError(ValueError):
    """A whole Parquet file, but of another run, or another shard."""


def read_shards(store: FolderStore, plan: Plan) -> dict[str, Shard | ValueError]:
    """The Parquet files that are there: each as its footer describes it, or the reason why it is no shard of the plan.

    Raises:
        OutputError: one cannot be read now, which proves nothing.
    """
    files, sizes = plan.files(), store.sizes()

    def look(name: str) -> Shard | ValueError:
        if name not in files:
            return StrangeShardError("is none of this run's shards")
        try:
            return _shard_of(plan, files[name], sizes[name], _footer_bytes(store, name))
        except ValueError as error:
            return error
        except OSError as error:
            raise OutputError(f"{store.name}/{name}: {reason_of(error)}; then --resume") from error

    there = [name for name in sizes if name in files or name.endswith(".parquet")]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="winspect-footers") as readers:
        return dict(zip(there, readers.map(look, there), strict=True))


def _footer_bytes(store: FolderStore, name: str) -> bytes:
    """A Parquet file's end. Read apart from its parsing: a network that fails is not a file that is damaged."""
    with open_input(store.fs, store.path(name)) as file:
        size = file.size()
        end = file.read_at(min(size, _FOOTER_GUESS), max(size - _FOOTER_GUESS, 0))
        need = int.from_bytes(end[-8:-4], "little") + 8  # its length, and the magic number
        return end if need <= len(end) else file.read_at(min(size, need), max(size - need, 0))


def _shard_of(plan: Plan, shard: int, size: int, footer_bytes: bytes) -> Shard:
    """A shard as its footer describes it. Raises ValueError where it is not whole, or another's."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(footer_bytes))
        footer = json.loads((metadata.metadata or {}).get(_FOOTER_KEY, b"{}"))
    except (OSError, ValueError) as error:
        raise ValueError(f"is not whole Parquet ({error})") from error
    if (footer.get("run"), footer.get("shard")) != (plan.run_hash, shard):
        raise StrangeShardError("is of another run")
    if metadata.num_rows != len(plan.span(shard)):
        raise ValueError(f"holds {metadata.num_rows} rows, need {len(plan.span(shard))}")
    return Shard(shard, plan.file(shard), metadata.num_rows, footer["failed"], size)
