"""Local paths and URIs through Arrow's file systems: opening, listing, and the pictures of inputs.

A URI is ``scheme://...`` as Arrow reads it, percent-encoded, with the store's settings as its query:
``s3://bucket/line%204/a.png?region=eu-central-1``. A picture found below it is named in the same way, query included,
so that a worker anywhere opens it with the same settings.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from winspect.errors import PictureError, SourceError
from winspect.pictures.find import natural_key
from winspect.pictures.formats import (
    START_BYTES,
    count_left_out,
    ending_of,
    format_of,
    is_hidden,
    left_out_in_words,
    picture_by_name,
)
from winspect.system.opening import NotAFileError, check_file

logger = logging.getLogger(__name__)

SCHEMES = ("abfs", "abfss", "file", "gcs", "gs", "hdfs", "s3", "viewfs")
URI_START = "^[A-Za-z][A-Za-z0-9+.-]+://"  # two letters or more: C:// is a drive
SECRET_URI = (
    r"(?i)^[a-z][a-z0-9+.-]+://([^/?]*:[^/?]*@|[^?]*\?(.*&)?([^=&]*(secret|password|token|credential)[^=&]*|sig)=)"
)
MAX_BYTES = 1 << 30
"""Largest picture read from a store, in bytes."""

FAILURES = (OSError, ValueError, pa.ArrowException)  # what Arrow raises where a place cannot be read
_READ_AHEAD = 1 << 22  # bytes of a Parquet file held at a time, not a whole column of pictures
_PICTURES_AT_A_TIME = 8
_LOOKS_AT_ONCE = _READS_AT_ONCE = 16
_AS_THEY_ARE = "leave the files of a run as they are until it is done"
_REASONS = (
    (r"Unrecognized filesystem type", f"its scheme is not one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"),
    (r"NO_SUCH_BUCKET|ContainerNotFound|bucket does not exist", "no such bucket: check its name"),
    (
        r"ACCESS_DENIED|AccessDenied|Forbidden|Permission ?[Dd]enied|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH"
        r"|UNAUTHORIZED|Unauthenticated|UNRECOGNIZED_CLIENT|HTTP status 40[13]|INVALID_CLIENT_TOKEN",
        "access denied: give the store's credentials, in the environment, to the driver and to every worker",
    ),
    (
        r"NETWORK_CONNECTION|resolve host|Connection refused|CONNECT_ERROR|timed? ?out|UnknownHost",
        "the store cannot be reached: check the address and the network",
    ),
    (r"libjvm|libhdfs|CLASSPATH", "hdfs:// needs Java and Hadoop's libhdfs: set JAVA_HOME and HADOOP_HOME"),
    (r"NO_SUCH_KEY|NotFound|HTTP status 404|Path does not exist", "no such file: check the path"),
)


class Uri(NamedTuple):
    """``head`` (scheme and bucket, with a slash), ``path`` (decoded, no slash in front) and ``query`` (with its ?)."""

    head: str
    path: str
    query: str

    @classmethod
    def split(cls, text: str) -> Uri:
        text, mark, query = text.partition("?")
        scheme, _, rest = text.partition("://")
        place, _, path = rest.partition("/")
        return cls(f"{scheme.lower()}://{place}/", unquote(path.strip("/")), mark + query)

    def at(self, path: str) -> str:
        """The URI of another path under the same head and query."""
        return self.head + quote(path) + self.query


class _UnusableError(ValueError):
    """The message is a reason that stands behind the place's name."""


def is_uri(text: str) -> bool:
    """Whether the text is a URI (``s3://...``), not a path. A drive letter is a path."""
    return re.match(URI_START, text) is not None


def named(place: str) -> str:
    """What people read: a path as it is, a URI without query and password."""
    return re.sub("^([^/]*//[^/:@]*):[^/]*@", r"\1@", place.partition("?")[0]) if is_uri(place) else place


def local_path(place: str) -> str | None:
    """The path that a path or a ``file://`` URI stands for; ``None`` for other URIs."""
    if not is_uri(place):
        return place
    uri = Uri.split(place)
    if uri.head != "file:///":
        return None
    return uri.path if re.match("[A-Za-z]:", uri.path) else f"/{uri.path}"


def open_place(place: str) -> tuple[fs.FileSystem, str]:
    """The file system that a path or URI is on, and its path there.

    Raises:
        SourceError: the URI is malformed or holds a password, or its store cannot be opened.
    """
    try:
        return _open(place)
    except FAILURES as error:
        raise SourceError(f"{named(place)!r}: {reason_of(error)}") from error


def _open(place: str) -> tuple[fs.FileSystem, str]:
    path = local_path(place)
    if path is not None:
        return fs.LocalFileSystem(), os.path.abspath(path)
    if re.match(SECRET_URI, place):
        raise _UnusableError("holds a password, which every result would repeat: give it in the environment")
    uri = Uri.split(place)
    if uri.head.endswith(":///") or uri.head.startswith("file:"):
        raise _UnusableError("names no bucket or host: write s3://BUCKET/FOLDER, or file:///FOLDER for a local one")
    system, prefix = _opened_root(uri.head, uri.query)
    return system, prefix + uri.path if uri.path else prefix.rstrip("/")


def open_input(system: fs.FileSystem, path: str, *, stream: bool = False) -> pa.NativeFile:
    """A file to read, from its start to its end where it is a stream; a local one must be a stored file."""
    if isinstance(system, fs.LocalFileSystem):
        check_file(path)
    return system.open_input_stream(path, compression=None) if stream else system.open_input_file(path)


@lru_cache(maxsize=64)  # opening an S3 bucket asks for its region: once per process, not once per picture
def _opened_root(head: str, query: str) -> tuple[fs.FileSystem, str]:
    """The file system of a bucket or host, and what stands in front of every path in it."""
    system, root = fs.FileSystem.from_uri(head + query)
    return system, root if not root or root.endswith("/") else root + "/"


def reason_of(error: Exception) -> str:
    """What a store's error means, in a line."""
    text = " ".join(str(error).split())
    if isinstance(error, _UnusableError | NotAFileError):
        return text
    if isinstance(error, FileNotFoundError):
        return "no such file: check the path"
    if isinstance(error, PermissionError):
        return "access denied: give yourself the right to read it"
    for pattern, reason in _REASONS:
        if re.search(pattern, text):
            return reason
    return f"cannot be opened ({text[:200] or type(error).__name__})"


def kind_of(place: str) -> fs.FileType:
    """File, directory or not found.

    Raises:
        SourceError: the place cannot be looked at.
    """
    system, path = open_place(place)
    try:
        return system.get_file_info(path).type
    except FAILURES as error:
        raise SourceError(f"{named(place)!r}: {reason_of(error)}") from error


def list_folder(place: str, endings: Collection[str] = ()) -> list[str]:
    """All pictures below a URI, and files with one of these endings, as paths under its head, in natural order.

    Hidden and system files are passed over; what else is left out is counted in the log.

    Raises:
        SourceError: the folder cannot be listed.
    """
    system, folder = open_place(place)
    try:
        # One recursive listing: a store answers it in far fewer requests than one for each folder.
        infos = system.get_file_info(fs.FileSelector(folder, recursive=True))
    except FAILURES as error:
        raise SourceError(f"{named(place)!r}: cannot be listed: {reason_of(error)}") from error
    below = len(folder.rstrip("/")) + 1 if folder else 0
    found = [info.path for info in infos if info.type == fs.FileType.File]
    visible = [path for path in found if not any(map(is_hidden, path[below:].split("/")))]
    sought = {path: ending_of(path) in endings or picture_by_name(path) for path in visible}
    unclear = [path for path, known in sought.items() if known is None]
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:  # each is a request to a store
        starts = pool.map(partial(_start_of, system), unclear)
        sought |= {path: format_of(start) is not None for path, start in zip(unclear, starts, strict=True)}
    if left_out := left_out_in_words(count_left_out(path for path, known in sought.items() if not known)):
        logger.warning("%s: %s", named(place), left_out)
    uri = Uri.split(place)
    top = uri.path + "/" if uri.path else ""
    return [top + path for path in sorted((path[below:] for path, known in sought.items() if known), key=_key)]


def _start_of(system: fs.FileSystem, path: str) -> bytes:
    try:
        with open_input(system, path) as file:
            return bytes(file.read(START_BYTES))
    except FAILURES:
        return b""


@lru_cache(maxsize=4096)
def _folder_key(folder: str) -> tuple[Any, ...]:
    return tuple(natural_key(name) for name in folder.split("/")) if folder else ()


def _key(path: str) -> tuple[Any, ...]:
    """Sorts paths as a search meets them, folder by folder."""
    folder, _, name = path.rpartition("/")
    return (*_folder_key(folder), natural_key(name))


def read_picture(path: str) -> str | bytes:
    """A local path as it is (``winspect.pictures.tiles`` reads it), the bytes of a URI.

    Raises:
        PictureError: the URI cannot be read, or is larger than ``MAX_BYTES``.
    """
    local = local_path(path)
    if local is not None:
        return local
    try:
        system, key = _open(path)
        with open_input(system, key) as file:
            size = file.size()
            if size > MAX_BYTES:
                raise _UnusableError(f"{size / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} are read: reduce it")
            return file.read()
    except FAILURES as error:
        raise PictureError(named(path), reason_of(error)) from error


def pictures_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[str | bytes | PictureError]:
    """The picture of each row of inputs, in order: a local file's path, else its bytes; nothing is raised.

    Local files are left to the threads that decode. URIs are read several at a time, ahead; pictures embedded in a
    Parquet file a few at a time, and each row group once where the rows are in order. A picture that cannot be had is
    a ``PictureError`` in its place.
    """
    for (file, column), group in groupby(rows, key=lambda row: (row["file"], row["column"])):
        if file is None:
            yield from _ahead(row["path"] for row in group)
        else:
            yield from _embedded(file, column, [(row["row"], row["path"] or row["id"]) for row in group])


def _ahead(paths: Iterable[str]) -> Iterator[str | bytes | PictureError]:
    """Each path's picture, in order; some URIs are read while others are asked for."""
    waiting: deque[Future[str | bytes | PictureError]] = deque()
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="winspect-reads") as pool:
        for path in paths:
            if not waiting and local_path(path) is not None:
                yield _or_error(path)
                continue
            waiting.append(pool.submit(_or_error, path))
            if len(waiting) == _READS_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _or_error(path: str) -> str | bytes | PictureError:
    try:
        return read_picture(path)
    except PictureError as error:
        return error


def _embedded(file: str, column: str, items: Sequence[tuple[int, str]]) -> Iterator[bytes | PictureError]:
    """The pictures in some rows of a Parquet file, ascending; ``items`` has (row, name)."""
    done = 0
    try:
        system, path = _open(file)
        with open_input(system, path) as opened:
            parquet = pq.ParquetFile(opened, buffer_size=_READ_AHEAD)
            ends = np.cumsum([parquet.metadata.row_group(at).num_rows for at in range(parquet.num_row_groups)])
            for group, members in groupby(items, key=lambda item: int(np.searchsorted(ends, item[0], side="right"))):
                first = int(ends[group - 1]) if group else 0
                for picture in _of_group(parquet, group, first, column, list(members), named(file)):
                    done += 1
                    yield picture
    except FAILURES as error:
        yield from (PictureError(name, f"{named(file)}: {reason_of(error)}") for _, name in items[done:])


def _of_group(
    parquet: pq.ParquetFile, group: int, first: int, column: str, items: Sequence[tuple[int, str]], file: str
) -> Iterator[bytes | PictureError]:
    """As :func:`_embedded`, within one row group, whose first row is ``first``; a few pictures are read at a time."""
    done = 0
    try:
        if group >= parquet.num_row_groups:
            raise _UnusableError(f"has fewer rows than before: {_AS_THEY_ARE}")
        for batch in parquet.iter_batches(_PICTURES_AT_A_TIME, row_groups=[group], columns=[column], use_threads=False):
            pictures = cells(batch, column).cast(pa.large_binary())
            while done < len(items) and items[done][0] < first + len(pictures):
                row, name = items[done]
                done += 1
                picture = pictures[row - first].as_py()
                yield picture or PictureError(name, f"{file}, row {row}: holds no picture: put one in, or leave it out")
            first += len(pictures)
        if done < len(items):
            raise _UnusableError(f"ends within a row group: {_AS_THEY_ARE}")
    except FAILURES as error:
        yield from (PictureError(name, f"{file}: {reason_of(error)}") for _, name in items[done:])


def cells(batch: pa.RecordBatch, column: str) -> pa.Array:
    """A column, or a field of a struct (``image.bytes``).

    Raises:
        ValueError: there is none of this name.
    """
    if column in batch.schema.names:
        return batch.column(column)
    name, _, field = column.rpartition(".")
    if name not in batch.schema.names:
        raise _UnusableError(f"has no column {column}: {_AS_THEY_ARE}")
    return pc.struct_field(batch.column(name), field)
