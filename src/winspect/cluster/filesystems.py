"""Local paths and URIs through Arrow's file systems: opening and listing.

A URI is ``scheme://...`` as Arrow reads it, percent-encoded, with the store's settings as its query:
``s3://bucket/line%204/a.png?region=eu-central-1``. A picture found below it is named in the same way, query included,
so that a worker anywhere opens it with the same settings.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from winspect.errors import SourceError
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
FAILURES = (OSError, ValueError, pa.ArrowException)  # what Arrow raises where a place cannot be read
_LOOKS_AT_ONCE = 16
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


class UnusableError(ValueError):
    """A place that cannot be used; the message is a reason that stands behind the place's name."""


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
    """The file system that a path or URI is on, and its path there. Raises SourceError where it cannot be opened."""
    with _named_errors(place):
        return open_raw(place)


@contextmanager
def _named_errors(place: str, what: str = "") -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise SourceError(f"{named(place)!r}: {what}{reason_of(error)}") from error


def open_raw(place: str) -> tuple[fs.FileSystem, str]:
    """As :func:`open_place`, with the errors of Arrow, whose reasons :func:`reason_of` tells."""
    path = local_path(place)
    if path is not None:
        return fs.LocalFileSystem(), os.path.abspath(path)
    if re.match(SECRET_URI, place):
        raise UnusableError("holds a password, which every result would repeat: give it in the environment")
    uri = Uri.split(place)
    if uri.head.endswith(":///") or uri.head.startswith("file:"):
        raise UnusableError("names no bucket or host: write s3://BUCKET/FOLDER, or file:///FOLDER for a local one")
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
    if isinstance(error, UnusableError | NotAFileError):
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
    """File, directory or not found. Raises SourceError where the place cannot be looked at."""
    with _named_errors(place):
        system, path = open_raw(place)
        return system.get_file_info(path).type


def list_folder(place: str, endings: Collection[str] = ()) -> list[str]:
    """All pictures below a URI, and files with one of these endings, as paths under its head, in natural order.

    Hidden and system files are passed over; what else is left out is counted in the log.

    Raises:
        SourceError: the folder cannot be listed.
    """
    system, folder = open_place(place)
    with _named_errors(place, "cannot be listed: "):
        # One recursive listing: a store answers it in far fewer requests than one for each folder.
        infos = system.get_file_info(fs.FileSelector(folder, recursive=True))
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
    names = (path[below:].split("/") for path, known in sought.items() if known)
    return [top + "/".join(parts) for parts in sorted(names, key=lambda parts: [natural_key(name) for name in parts])]


def _start_of(system: fs.FileSystem, path: str) -> bytes:
    try:
        with open_input(system, path) as file:
            return bytes(file.read(START_BYTES))
    except FAILURES:
        return b""
