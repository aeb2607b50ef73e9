"""Manifests of a batch: CSV, JSON lines and Parquet -> a table with a row per picture, checked, no picture read.

Columns: ``path`` (or ``image``, ``file``), which count from the manifest's folder; in Parquet also a binary column
``bytes``, ``image`` or ``picture``, or a struct with a field ``bytes``, as Hugging Face datasets have it. ``class`` or
``category``, and ``id``, may be left out. Others are ignored. Text files: see :mod:`winspect.datasets.tables`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from winspect.cluster.filesystems import FAILURES, named, open_input, open_place, reason_of
from winspect.cluster.pictures import cells
from winspect.cluster.rows import SCHEMA, Problems, Raw, checked
from winspect.datasets.tables import TEXT_TABLES, Separators, TextTable, encoding_of, not_text
from winspect.errors import SourceError
from winspect.pictures.formats import ending_of

logger = logging.getLogger(__name__)

MANIFESTS = (*TEXT_TABLES, ".parquet")
_KEYS = {"id": ("id",), "path": ("path", "image", "file"), "class": ("class", "category")}
_RECORD_TYPES = (pa.int64(), pa.string(), pa.string(), pa.string())
_BATCH_ROWS = 1 << 16
_PARSED_ROWS = 1 << 12  # they stay in the processor's cache
_LOOKED_AT = 64  # pictures at a time
_LARGE_GROUP = 1 << 30  # bytes
_PICTURE_KEYS = ("bytes", "image", "picture")


def read_manifest(manifest: str, *, default_class: str, problems: Problems) -> pa.Table:
    """The rows of a manifest, a path or a URI (SCHEMA); those that cannot be used go to ``problems``.

    Raises:
        SourceError: not to be opened, not such a file, cut off, without rows or without the columns.
    """
    before, tables, has_id, unnamed = problems.count, [SCHEMA.empty_table()], False, 0
    ending = ending_of(named(manifest))
    is_text, separators = ending in TEXT_TABLES, Separators(manifest)
    try:
        system, path = open_place(manifest)
        with open_input(system, path, stream=is_text) as file:
            read = _text_rows(file, manifest, ending, problems) if is_text else _parquet_rows(file, manifest)
            for raw in read:
                tables.append(checked(raw, manifest, default_class, separators, problems))
                has_id = raw.has_id
                unnamed += 0 if raw.has_id else len(raw.line)
    except UnicodeDecodeError as error:
        raise not_text(named(manifest), error, with_position=False) from error
    except SourceError:
        raise
    except FAILURES as error:
        raise SourceError(f"{named(manifest)}: {reason_of(error)}") from error
    if has_id and unnamed:
        raise SourceError(f"{named(manifest)}: the first {unnamed} rows have no id, later ones do: add it to all")
    if not any(map(len, tables)) and problems.count == before:
        raise SourceError(f"{named(manifest)}: no rows: write one per picture, with path")
    separators.report()
    return pa.concat_tables(tables)


def _text_rows(file: pa.NativeFile, manifest: str, ending: str, problems: Problems) -> Iterator[Raw]:
    """The rows of CSV and JSON lines, batch by batch."""
    table = TextTable(ending, _KEYS, partial(problems.add, manifest))
    buffered = io.BufferedReader(file, 1 << 16)
    text = io.TextIOWrapper(buffered, encoding=encoding_of(buffered.peek(2)[:2]), newline="")
    records = table.rows(text)
    while some := list(islice(records, _PARSED_ROWS)):
        columns = zip(zip(*some, strict=True), _RECORD_TYPES, strict=True)
        line, given, path, category = (pa.array(values, kind) for values, kind in columns)
        _check_columns(table, manifest)
        yield Raw(given, path, category, pa.nulls(len(line), pa.int64()), line, "id" in table.found)
    _check_columns(table, manifest)


def _check_columns(table: TextTable, manifest: str) -> None:
    if table.names and "path" not in table.found:
        got = ", ".join(table.names)
        raise SourceError(f"{named(manifest)}: got the columns {got}, need path (or image or file): add it")


def _parquet_rows(file: pa.NativeFile, manifest: str) -> Iterator[Raw]:
    """The rows of a Parquet file, batch by batch; its pictures stay where they are."""
    try:
        parquet = pq.ParquetFile(file, buffer_size=1 << 20)
    except (ValueError, pa.ArrowException) as error:
        raise SourceError(f"{named(manifest)}: not a Parquet file, or cut off: write it again") from error
    columns, pictures = _columns(parquet.schema_arrow, manifest)
    needed = sorted({name for name in columns.values() if name is not None})
    groups, first = range(parquet.num_row_groups), 0
    try:
        there = pa.chunked_array([_filled(parquet, group, pictures) for group in groups], pa.bool_()).combine_chunks()
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=needed, use_threads=False):
            given, path, category = (_texts(batch, columns[role], manifest) for role in ("id", "path", "class"))
            line = pa.array(np.arange(first, first + len(batch)))
            row = pc.if_else(there.slice(first, len(batch)), line, pa.scalar(None, pa.int64()))
            first += len(batch)
            yield Raw(given, path, category, row, line, columns["id"] is not None, pictures)
    except SourceError:
        raise
    except FAILURES as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError(f"{named(manifest)}: damaged or cut off ({text}): write it again") from error
    most = max((parquet.metadata.row_group(group).total_byte_size for group in groups), default=0)
    if pictures is not None and most > _LARGE_GROUP:
        advice = "each shard reads it from its front: smaller ones, of some hundred pictures, are read much faster"
        logger.warning("%s: a row group holds %.1f GB of pictures, and %s", named(manifest), most / 1e9, advice)


def _columns(schema: pa.Schema, manifest: str) -> tuple[dict[str, str | None], str | None]:
    """Which column is the id, the path and the class; and which has the pictures."""
    names = {field.name.strip().lower(): field for field in reversed(schema)}
    found = {
        role: next((names[key].name for key in keys if key in names and (role != "path" or _is_text(names[key]))), None)
        for role, keys in _KEYS.items()
    }
    pictures = None
    for field in (names[key] for key in _PICTURE_KEYS if key in names):
        inner = {part.name: part for part in field.flatten()} if pa.types.is_struct(field.type) else {}
        inside = f"{field.name}.bytes"
        if _is_binary(field) or (inside in inner and _is_binary(inner[inside])):
            pictures = inside if inner else field.name
            written = f"{field.name}.path"
            if found["path"] is None and written in inner and _is_text(inner[written]):
                found["path"] = written
            break
    if pictures is None and found["path"] is None:
        got = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema) or "none"
        need = "need path or image (text), or bytes, image or picture (binary)"
        raise SourceError(f"{named(manifest)}: got the columns {got}, {need}: add one")
    return found, pictures


def _filled(parquet: pq.ParquetFile, group: int, column: str | None) -> pa.Array:
    """Which of a row group's rows hold a picture: by its statistics where they tell, else a few are read at a time."""
    content = parquet.metadata.row_group(group)
    if column is None:
        return pa.repeat(False, content.num_rows)
    leaf = next(at for at in range(len(parquet.schema)) if parquet.schema.column(at).path == column)
    statistics = content.column(leaf).statistics
    if statistics is not None and statistics.has_null_count and statistics.null_count in (0, content.num_rows):
        return pa.repeat(statistics.null_count == 0, content.num_rows)
    some = parquet.iter_batches(_LOOKED_AT, row_groups=[group], columns=[column], use_threads=False)
    return pa.concat_arrays([cells(batch, column).is_valid() for batch in some])


def _texts(batch: pa.RecordBatch, column: str | None, manifest: str) -> pa.Array:
    if column is None:
        return pa.nulls(len(batch), pa.string())
    values = cells(batch, column)
    try:
        return (values.dictionary_decode() if pa.types.is_dictionary(values.type) else values).cast(pa.string())
    except pa.ArrowException as error:
        raise SourceError(f"{named(manifest)}: column {column} is {values.type}, need text or a number") from error


def _is_text(field: pa.Field) -> bool:
    return _plain(field) in (pa.string(), pa.large_string(), pa.string_view())


def _is_binary(field: pa.Field) -> bool:
    return _plain(field) in (pa.binary(), pa.large_binary(), pa.binary_view())


def _plain(field: pa.Field) -> pa.DataType:
    return field.type.value_type if pa.types.is_dictionary(field.type) else field.type
