"""The pictures of inputs that are no local files: read from stores and Parquet files, in order and a few ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from winspect.cluster.filesystems import FAILURES, UnusableError, local_path, named, open_input, open_raw, reason_of
from winspect.errors import PictureError
from winspect.pictures.given import Given

Row = Mapping[str, Any]
"""An input, as :meth:`winspect.cluster.inputs.Inputs.rows` gives it."""
Picture = str | bytes | PictureError

MAX_BYTES = 1 << 30
"""Largest picture read from a store, in bytes."""

_READ_AHEAD = 1 << 22  # bytes of a Parquet file held at a time, not a whole column of pictures
_PICTURES_AT_A_TIME = 8
_READS_AT_ONCE = 16
_AS_THEY_ARE = "leave the files of a run as they are until it is done"


def sources_of(rows: Sequence[Row], seen: Callable[[Row, str | bytes], object]) -> list[str | Given]:
    """The pictures of inputs as ``predict_many`` takes them: local files by path, others read when they are decoded.

    Args:
        seen: called with an input and its picture when that is read, if it is no local file.
    """
    shelf, sources = _Shelf(rows, seen), list[str | Given]()
    for number, row in enumerate(rows):
        name = row["path"] or row["id"]
        is_file = row["file"] is None and local_path(name) == name
        sources.append(name if is_file else _Shelved(name, (shelf, number)))
    return sources


class _Shelf:
    """Pictures read in order, whoever asks for which."""

    def __init__(self, rows: Sequence[Row], seen: Callable[[Row, str | bytes], object]) -> None:
        self._rows, self._seen, self._pictures = rows, seen, enumerate(pictures_of(rows))
        self._read: dict[int, Picture] = {}
        self._lock = Lock()

    def take(self, number: int) -> str | bytes:
        """The picture with this number; once. Raises PictureError where it cannot be had."""
        with self._lock:
            while number not in self._read:
                at, picture = next(self._pictures)
                self._read[at] = picture
            picture = self._read.pop(number)
        if isinstance(picture, PictureError):
            raise picture
        self._seen(self._rows[number], picture)
        return picture


class _Shelved(Given):
    """A picture on a :class:`_Shelf`: ``picture`` is the shelf and its number there."""

    def source(self) -> Any:
        """Read it, in the thread that decodes it."""
        shelf, number = self.picture
        return shelf.take(number)


def pictures_of(rows: Sequence[Row]) -> Iterator[Picture]:
    """The picture of each input, in order: a local file's path, else its bytes; nothing is raised.

    URIs are read several at a time, ahead; pictures embedded in a Parquet file a few at a time, and each row group once
    where the rows are in order. A picture that cannot be had is a ``PictureError`` in its place.
    """
    for (file, column), group in groupby(rows, key=lambda row: (row["file"], row["column"])):
        if file is None:
            yield from _ahead(row["path"] for row in group)
        else:
            members = list(group)
            yield from _one_each(_embedded(file, column, members), members)


def _ahead(paths: Iterable[str]) -> Iterator[Picture]:
    """Each path's picture, in order; some are read while others are asked for."""
    left = iter(paths)
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="winspect-reads") as pool:
        waiting = deque(pool.submit(_read, path) for path in islice(left, _READS_AT_ONCE))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_read, path) for path in islice(left, 1))


def _read(path: str) -> Picture:
    local = local_path(path)
    if local is not None:  # winspect.pictures reads it
        return local
    try:
        system, key = open_raw(path)
        with open_input(system, key) as file:
            size = file.size()
            if size > MAX_BYTES:
                raise UnusableError(f"{size / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} are read: reduce it")
            return bytes(file.read())
    except FAILURES as error:
        return PictureError(named(path), reason_of(error))


def _one_each(pictures: Iterable[bytes | PictureError | None], rows: Sequence[Row]) -> Iterator[bytes | PictureError]:
    """As many embedded pictures as rows: errors stand for what is empty, and for those behind a failure."""
    left = deque(rows)
    try:
        for picture in pictures:
            row = left.popleft()
            yield picture or _error(row, f", row {row['row']}: holds no picture: put one in, or leave it out")
        if left:
            raise UnusableError(f"has fewer rows than before: {_AS_THEY_ARE}")
    except FAILURES as error:
        yield from (_error(row, f": {reason_of(error)}") for row in left)


def _error(row: Row, what: str) -> PictureError:
    return PictureError(row["path"] or row["id"], named(row["file"]) + what)


def _embedded(file: str, column: str, rows: Sequence[Row]) -> Iterator[bytes | PictureError]:
    """The pictures in some rows of a Parquet file, ascending; a row group that is damaged fails alone."""
    system, path = open_raw(file)
    with open_input(system, path) as opened:
        parquet = pq.ParquetFile(opened, buffer_size=_READ_AHEAD)
        ends = np.cumsum([parquet.metadata.row_group(at).num_rows for at in range(parquet.num_row_groups)])
        for group, some in groupby(rows, key=lambda row: int(np.searchsorted(ends, row["row"], side="right"))):
            if group == parquet.num_row_groups:
                return
            members, first = list(some), int(ends[group - 1]) if group else 0
            yield from _one_each(_of_group(parquet, group, first, column, [row["row"] for row in members]), members)


def _of_group(
    parquet: pq.ParquetFile, group: int, first: int, column: str, rows: Iterable[int]
) -> Iterator[bytes | None]:
    """The pictures in some rows of a row group, whose first row is ``first``; a few are read at a time."""
    left = deque(rows)
    for batch in parquet.iter_batches(_PICTURES_AT_A_TIME, row_groups=[group], columns=[column], use_threads=False):
        pictures = cells(batch, column).cast(pa.large_binary())
        while left and left[0] < first + len(pictures):
            yield pictures[left.popleft() - first].as_py()
        if not left:
            return
        first += len(pictures)


def cells(batch: pa.RecordBatch, column: str) -> pa.Array:
    """A column, or a field of a struct (``image.bytes``).

    Raises:
        ValueError: there is none of this name.
    """
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    if name not in batch.schema.names:
        raise UnusableError(f"has no column {column}: {_AS_THEY_ARE}")
    return pc.struct_field(batch.column(name), field)
