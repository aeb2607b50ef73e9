"""Manifests of a batch: CSV, JSON lines and Parquet -> a table with a row per picture, checked, no picture read.

Columns: ``path`` (or ``image``, ``file``), which count from the manifest's folder; in Parquet also a binary column
``bytes``, ``image`` or ``picture``, or a struct with a field ``bytes``, as Hugging Face datasets have it. ``class`` or
``category``, and ``id``, may be left out. Others are ignored. Text files: see :mod:`winspect.datasets.tables`.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from winspect.cluster.filesystems import FAILURES, cells, named, open_input, open_place, reason_of
from winspect.cluster.rows import BATCH_ROWS, SCHEMA, Problems, Raw, checked, with_slashes
from winspect.datasets.tables import TEXT_TABLES, TextTable, encoding_of, not_text
from winspect.errors import SourceError

logger = logging.getLogger(__name__)

MANIFESTS = (*TEXT_TABLES, ".parquet")
_KEYS = {"id": ("id",), "path": ("path", "image", "file"), "class": ("class", "category")}
_RECORD_TYPES = (pa.int64(), pa.string(), pa.string(), pa.string())
_PARSED_ROWS = 1 << 11
_LOOKED_AT = 64  # pictures at a time
_LARGE_GROUP = 1 << 30  # bytes
_PICTURE_KEYS = ("bytes", "image", "picture")


def read_manifest(manifest: str, *, default_class: str, problems: Problems) -> pa.Table:
    """The rows of a manifest (SCHEMA); those that cannot be used go to ``problems``.

    Args:
        manifest: a path or a URI.
        default_class: of rows without one.

    Raises:
        SourceError: not to be opened, not such a file, cut off, without rows or without the columns.
    """
    before, tables, unnamed = problems.count, [], 0
    try:
        reader = _READERS[os.path.splitext(named(manifest))[1].lower()](manifest, problems)
        for raw in reader.batches():
            tables.append(checked(raw, manifest, default_class, problems))
            unnamed += 0 if raw.has_id else len(raw.line)
    except UnicodeDecodeError as error:
        raise not_text(named(manifest), error, with_position=False) from error
    except SourceError:
        raise
    except FAILURES as error:
        raise SourceError(f"{named(manifest)}: {reason_of(error)}") from error
    if reader.has_id and unnamed:
        raise SourceError(f"{named(manifest)}: the first {unnamed} rows have no id, later ones do: add it to all")
    if not any(map(len, tables)) and problems.count == before:
        raise SourceError(f"{named(manifest)}: no rows: write one per picture, with path")
    return with_slashes(pa.concat_tables(tables or [SCHEMA.empty_table()]), manifest)


class _Reader:
    """A manifest's rows, batch by batch."""

    has_id = False
    column: str | None = None  # that holds pictures

    def __init__(self, manifest: str, problems: Problems) -> None:
        self.manifest, self.problems = manifest, problems

    def batches(self) -> Iterator[Raw]:
        raise NotImplementedError


class _TextReader(_Reader):
    """CSV and JSON lines."""

    def batches(self) -> Iterator[Raw]:
        system, path = open_place(self.manifest)
        ending = os.path.splitext(named(self.manifest))[1]
        table = TextTable(ending, _KEYS, partial(self.problems.add, self.manifest))
        with open_input(system, path, stream=True) as stream, io.BufferedReader(stream) as buffered:
            text = io.TextIOWrapper(buffered, encoding=encoding_of(buffered.peek(2)[:2]), newline="")
            # A few rows at a time stay in the processor's cache: twice as fast as all of a batch at once.
            records = table.rows(text)
            few = iter(lambda: list(islice(records, _PARSED_ROWS)), [])
            arrays = (
                [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), _RECORD_TYPES, strict=True)]
                for rows in few
            )
            while some := list(islice(arrays, BATCH_ROWS // _PARSED_ROWS)):
                line, given, path, category = (pa.concat_arrays(parts) for parts in zip(*some, strict=True))
                self._check_columns(table)
                self.has_id = "id" in table.found
                yield Raw(given, path, category, pa.nulls(len(line), pa.int64()), line, self.has_id)
        self._check_columns(table)

    def _check_columns(self, table: TextTable) -> None:
        if table.names and "path" not in table.found:
            got = ", ".join(table.names)
            raise SourceError(f"{named(self.manifest)}: got the columns {got}, need path (or image or file): add it")


class _ParquetReader(_Reader):
    def batches(self) -> Iterator[Raw]:
        system, path = open_place(self.manifest)
        with open_input(system, path) as file:
            try:
                parquet = pq.ParquetFile(file, buffer_size=1 << 20)
            except (ValueError, pa.ArrowException) as error:
                raise SourceError(f"{named(self.manifest)}: not a Parquet file, or cut off: write it again") from error
            columns = self._columns(parquet.schema_arrow)
            self.has_id = columns["id"] is not None
            try:
                yield from self._rows(parquet, columns)
            except FAILURES as error:
                text = " ".join(str(error).split())[:200]
                raise SourceError(f"{named(self.manifest)}: damaged or cut off ({text}): write it again") from error

    def _columns(self, schema: pa.Schema) -> dict[str, str | None]:
        """Which column is the id, the path and the class; ``self.column`` is the one with the pictures."""
        names = {name.strip().lower(): name for name in schema.names}
        kinds = {key: _value_type(schema.field(schema.names.index(name)).type) for key, name in names.items()}
        paths = [key for key in _KEYS["path"] if key in names and _is_text(kinds[key])]
        found = {"id": "id", "class": next((key for key in _KEYS["class"] if key in names), None)}
        chosen = {role: names.get(key) if key else None for role, key in found.items()}
        chosen["path"] = names[paths[0]] if paths else None
        for key in _PICTURE_KEYS:
            if key in names and _is_binary(kinds[key]):
                self.column = names[key]
            elif key in names and pa.types.is_struct(kinds[key]) and "bytes" in (inner := _fields(kinds[key])):
                if not _is_binary(inner["bytes"]):
                    continue
                self.column = f"{names[key]}.bytes"
                if not paths and _is_text(inner.get("path", pa.null())):
                    chosen["path"] = f"{names[key]}.path"
            else:
                continue
            break
        if self.column is None and chosen["path"] is None:
            got = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema) or "none"
            need = "need path or image (text), or bytes, image or picture (binary)"
            raise SourceError(f"{named(self.manifest)}: got the columns {got}, {need}: add one")
        for role in ("id", "class"):
            kind = kinds.get(found[role] or "")
            if kind is not None and not _is_scalar(kind):
                raise SourceError(f"{named(self.manifest)}: column {chosen[role]} is {kind}, need text or a number")
        return chosen

    def _rows(self, parquet: pq.ParquetFile, columns: dict[str, str | None]) -> Iterator[Raw]:
        self._warn_of_size(parquet)
        first = 0
        for filled, members in groupby(range(parquet.num_row_groups), key=lambda group: self._filled(parquet, group)):
            # Pictures are looked at, a few at a time, only where the statistics do not say which rows have one.
            looked_at = self.column if filled is None else None
            needed = sorted({name for name in (*columns.values(), looked_at) if name is not None})
            slim = (
                [
                    *(_texts(batch, columns[role]) for role in ("id", "path", "class")),
                    cells(batch, looked_at).is_valid() if looked_at else pa.repeat(bool(filled), batch.num_rows),
                ]
                for batch in _batches(parquet, list(members), needed, _LOOKED_AT if looked_at else BATCH_ROWS)
            )
            while some := list(islice(slim, BATCH_ROWS // _LOOKED_AT if looked_at else 1)):
                given, path, category, has = (pa.concat_arrays(arrays) for arrays in zip(*some, strict=True))
                line = pa.array(np.arange(first, first + len(has)))
                first += len(has)
                row = pc.if_else(has, line, pa.scalar(None, pa.int64()))
                yield Raw(given, path, category, row, line, self.has_id, self.column)

    def _filled(self, parquet: pq.ParquetFile, group: int) -> bool | None:
        """Whether all (or none) of a row group's rows hold a picture, by its statistics; ``None``: one must look."""
        if self.column is None:
            return False
        chunk = self._chunk(parquet, group)
        if chunk.statistics is None or not chunk.statistics.has_null_count:
            return None
        nulls = chunk.statistics.null_count
        return True if nulls == 0 else False if nulls == chunk.num_values else None

    def _chunk(self, parquet: pq.ParquetFile, group: int) -> Any:
        """What the file says of the pictures in a row group."""
        leaf = next(at for at in range(len(parquet.schema)) if parquet.schema.column(at).path == self.column)
        return parquet.metadata.row_group(group).column(leaf)

    def _warn_of_size(self, parquet: pq.ParquetFile) -> None:
        groups = range(parquet.num_row_groups) if self.column else ()
        most = max((self._chunk(parquet, group).total_compressed_size for group in groups), default=0)
        if most > _LARGE_GROUP:
            logger.warning(
                "%s: a row group holds %.1f GB of pictures, and each block of inputs reads it from its front: "
                "smaller ones, of some hundred pictures, are read much faster",
                named(self.manifest),
                most / 1e9,
            )


def _batches(parquet: pq.ParquetFile, groups: list[int], columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """These columns only. Without any, batches with nothing but a number of rows."""
    if columns:
        yield from parquet.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False)
        return
    left = sum(parquet.metadata.row_group(group).num_rows for group in groups)
    while left > 0:
        yield pa.record_batch([pa.nulls(min(rows, left))], [""])
        left -= rows


def _texts(batch: pa.RecordBatch, column: str | None) -> pa.Array:
    if column is None:
        return pa.nulls(batch.num_rows, pa.string())
    values = cells(batch, column)
    plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    return plain.cast(pa.string())


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _fields(kind: pa.StructType) -> dict[str, pa.DataType]:
    return {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}


def _is_scalar(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or _is_binary(kind) or pa.types.is_fixed_size_binary(kind))


_READERS: dict[str, type[_Reader]] = {**dict.fromkeys(TEXT_TABLES, _TextReader), ".parquet": _ParquetReader}
