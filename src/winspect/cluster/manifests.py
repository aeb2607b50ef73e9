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
    before, tables, has_id, unnamed = problems.count, [], False, 0
    ending = os.path.splitext(named(manifest))[1]
    is_text = ending.lower() in TEXT_TABLES
    try:
        system, path = open_place(manifest)
        with open_input(system, path, stream=is_text) as file:
            read = _text_rows(file, manifest, ending, problems) if is_text else _parquet_rows(file, manifest)
            for raw in read:
                tables.append(checked(raw, manifest, default_class, problems))
                has_id = raw.has_id
                unnamed += 0 if raw.has_id else len(raw.line)
    except UnicodeDecodeError as error:
        raise not_text(named(manifest), error, with_position=False) from error
    except FAILURES as error:
        raise (
            error if isinstance(error, SourceError) else SourceError(f"{named(manifest)}: {reason_of(error)}")
        ) from error
    if has_id and unnamed:
        raise SourceError(f"{named(manifest)}: the first {unnamed} rows have no id, later ones do: add it to all")
    if not any(map(len, tables)) and problems.count == before:
        raise SourceError(f"{named(manifest)}: no rows: write one per picture, with path")
    return with_slashes(pa.concat_tables(tables or [SCHEMA.empty_table()]), manifest)


def _text_rows(file: pa.NativeFile, manifest: str, ending: str, problems: Problems) -> Iterator[Raw]:
    """The rows of CSV and JSON lines, batch by batch."""
    table = TextTable(ending, _KEYS, partial(problems.add, manifest))
    with io.BufferedReader(file) as buffered:
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
            _check_columns(table, manifest)
            yield Raw(given, path, category, pa.nulls(len(line), pa.int64()), line, "id" in table.found)
    _check_columns(table, manifest)


def _check_columns(table: TextTable, manifest: str) -> None:
    if table.names and "path" not in table.found:
        got = ", ".join(table.names)
        raise SourceError(f"{named(manifest)}: got the columns {got}, need path (or image or file): add it")


def _parquet_rows(file: pa.NativeFile, manifest: str) -> Iterator[Raw]:
    """The rows of a Parquet file, batch by batch."""
    try:
        parquet = pq.ParquetFile(file, buffer_size=1 << 20)
    except (ValueError, pa.ArrowException) as error:
        raise SourceError(f"{named(manifest)}: not a Parquet file, or cut off: write it again") from error
    columns, pictures = _columns(parquet.schema_arrow, manifest)
    try:
        _warn_of_size(parquet, pictures, manifest)
        first = 0
        for filled, members in groupby(
            range(parquet.num_row_groups), key=lambda group: _filled(parquet, group, pictures)
        ):
            # Pictures are looked at, a few at a time, only where the statistics do not say which rows have one.
            looked_at = pictures if filled is None else None
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
                yield Raw(given, path, category, row, line, columns["id"] is not None, pictures)
    except FAILURES as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError(f"{named(manifest)}: damaged or cut off ({text}): write it again") from error


def _columns(schema: pa.Schema, manifest: str) -> tuple[dict[str, str | None], str | None]:
    """Which column is the id, the path and the class; and which has the pictures."""
    names = {name.strip().lower(): name for name in schema.names}
    kinds = {key: _value_type(schema.field(schema.names.index(name)).type) for key, name in names.items()}
    paths = [key for key in _KEYS["path"] if key in names and _is_text(kinds[key])]
    found = {"id": "id", "class": next((key for key in _KEYS["class"] if key in names), None)}
    chosen = {role: names.get(key) if key else None for role, key in found.items()}
    chosen["path"] = names[paths[0]] if paths else None
    pictures = None
    for key in (key for key in _PICTURE_KEYS if key in names):
        if _is_binary(kinds[key]):
            pictures = names[key]
            break
        inner = _fields(kinds[key]) if pa.types.is_struct(kinds[key]) else {}
        if _is_binary(inner.get("bytes", pa.null())):
            pictures = f"{names[key]}.bytes"
            if not paths and _is_text(inner.get("path", pa.null())):
                chosen["path"] = f"{names[key]}.path"
            break
    if pictures is None and chosen["path"] is None:
        got = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema) or "none"
        need = "need path or image (text), or bytes, image or picture (binary)"
        raise SourceError(f"{named(manifest)}: got the columns {got}, {need}: add one")
    for role in ("id", "class"):
        kind = kinds.get(found[role] or "")
        if kind is not None and not _is_scalar(kind):
            raise SourceError(f"{named(manifest)}: column {chosen[role]} is {kind}, need text or a number")
    return chosen, pictures


def _filled(parquet: pq.ParquetFile, group: int, column: str | None) -> bool | None:
    """Whether all (or none) of a row group's rows hold a picture, by its statistics; ``None``: one must look."""
    if column is None:
        return False
    chunk = _chunk(parquet, group, column)
    if chunk.statistics is None or not chunk.statistics.has_null_count:
        return None
    nulls = chunk.statistics.null_count
    return True if nulls == 0 else False if nulls == chunk.num_values else None


def _chunk(parquet: pq.ParquetFile, group: int, column: str) -> Any:
    """What the file says of the pictures in a row group."""
    leaf = next(at for at in range(len(parquet.schema)) if parquet.schema.column(at).path == column)
    return parquet.metadata.row_group(group).column(leaf)


def _warn_of_size(parquet: pq.ParquetFile, column: str | None, manifest: str) -> None:
    groups = range(parquet.num_row_groups) if column else ()
    most = max((_chunk(parquet, group, str(column)).total_compressed_size for group in groups), default=0)
    if most > _LARGE_GROUP:
        logger.warning(
            "%s: a row group holds %.1f GB of pictures, and each shard reads it from its front: smaller ones, of some "
            "hundred pictures, are read much faster",
            named(manifest),
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
