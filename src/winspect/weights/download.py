"""Fetching large files: to a temporary name, resumable, verified, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from winspect.errors import WeightsCorruptError
from winspect.system.opening import read_text
from winspect.weights.cache import hash_file, write_json

TIMEOUT_S = 20.0
RETRIES = 4
RETRIES_UNREACHABLE = 1  # without a network, say so soon
BACKOFF_S = 1.0
_CHUNK_BYTES = 1 << 20
_RETRYABLE_STATUS = (408, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416


class DownloadError(Exception):
    """The file could not be fetched. The message is the reason; what was got so far is kept for the next try."""


class _RetryableError(Exception):
    """A cut connection, a timeout, or a server that is busy."""

    def __init__(self, reason: str, retries: int = RETRIES) -> None:
        super().__init__(reason)
        self.retries = retries


@dataclass(frozen=True)
class _Version:
    """Which version of the file the bytes on disk belong to."""

    url: str
    etag: str | None
    size_bytes: int | None


def fetch_url(url: str, target: Path, *, sha256_prefix: str | None = None, progress: bool = True) -> str:
    """Download to ``target``, going on where an earlier try stopped.

    The bytes go to ``<target>.part``; only a complete file with the right hash gets the final name. Of several
    processes one downloads, and the others wait for it.

    Args:
        url: http or https.
        target: the file to be.
        sha256_prefix: first hexadecimal digits of its SHA-256, if known.
        progress: draw a bar on stderr.

    Returns:
        The file's SHA-256.

    Raises:
        DownloadError: the server cannot be reached or refuses, or there is no space.
        WeightsCorruptError: the hash is wrong; the file was removed.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file():  # another process was faster
                return hash_file(target)
            _fetch_with_retries(url, target, progress)
            return _verify_and_rename(url, target, sha256_prefix)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}") from error


def _fetch_with_retries(url: str, target: Path, progress: bool) -> None:
    """Try again after a failure that may pass, waiting longer each time; bytes gained reset the count."""
    part = _part(target)
    failures = 0
    while True:
        before = _size(part)
        try:
            _fetch_once(url, target, progress)
            return
        except _RetryableError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > error.retries:
                raise DownloadError(str(error)) from error
        time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _fetch_once(url: str, target: Path, progress: bool) -> None:
    part, note = _part(target), _note(target)
    known = _read_version(note, url)
    if known is None:
        part.unlink(missing_ok=True)
    have = _size(part)
    if known is not None and have and have == known.size_bytes:
        return  # complete; the run before ended between the last byte and the rename
    try:
        with _open(url, have, known) as response:
            version = _version_of(url, response)
            resumed = response.status == 206 and _resumes(response, have) and version == known
            if response.status == 206 and not resumed:
                note.unlink(missing_ok=True)
                raise _RetryableError("the file on the server has changed")
            have = have if resumed else 0
            write_json(note, asdict(version))
            _check_space(part, version, have)
            _copy(response, part, have, version, tqdm_name=target.name if progress else None)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _RANGE_NOT_SATISFIABLE and have:
                note.unlink(missing_ok=True)
                raise _RetryableError("the part fetched so far is longer than the file") from error
            kind = _RetryableError if error.code in _RETRYABLE_STATUS else DownloadError
            raise kind(f"the server says HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _RetryableError(f"the server cannot be reached ({error.reason})", RETRIES_UNREACHABLE) from error
    except (TimeoutError, ConnectionError, HTTPException) as error:  # while the server should answer
        raise _RetryableError(f"the connection was lost ({error or type(error).__name__})") from error
    if version.size_bytes is not None and _size(part) != version.size_bytes:
        raise _RetryableError(f"the connection was lost after {_size(part)} of {version.size_bytes} bytes")


def _open(url: str, have: int, known: _Version | None) -> HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "winspect", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if known and known.etag and not known.etag.startswith("W/"):
            request.add_header("If-Range", known.etag)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    return response


def _version_of(url: str, response: HTTPResponse) -> _Version:
    length = response.headers.get("Content-Length")
    if response.status == 206:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    return _Version(url, response.headers.get("ETag"), int(length) if length and length.isdecimal() else None)


def _resumes(response: HTTPResponse, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _check_space(part: Path, version: _Version, have: int) -> None:
    if version.size_bytes is None:
        return
    needed, free = version.size_bytes - have, shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(f"{part.parent} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed")


def _copy(response: HTTPResponse, part: Path, have: int, version: _Version, tqdm_name: str | None) -> None:
    bar = tqdm(
        desc=tqdm_name, initial=have, total=version.size_bytes, unit="B", unit_scale=True, disable=tqdm_name is None
    )
    with bar, part.open("ab" if have else "wb") as file:
        for chunk in _chunks(response):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The response's bytes. An error of the connection is told from one of the disk here."""
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)  # what is there, so that a stall loses nothing
        except (OSError, HTTPException) as error:
            raise _RetryableError(f"the connection was lost ({error or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _verify_and_rename(url: str, target: Path, sha256_prefix: str | None) -> str:
    part, note = _part(target), _note(target)
    got = hash_file(part)
    if sha256_prefix and not got.startswith(sha256_prefix):
        part.unlink()
        note.unlink(missing_ok=True)
        raise WeightsCorruptError(
            f"{url}: the file fetched has the wrong SHA-256: expected {sha256_prefix}..., got {got}. It was removed; "
            "fetch it again, and if that does not help, from another place"
        )
    part.replace(target)
    note.unlink(missing_ok=True)
    return got


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _note(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_version(note: Path, url: str) -> _Version | None:
    """The version the part belongs to; None where nothing could tell that the server still has the same."""
    with suppress(OSError, ValueError, TypeError):
        version = _Version(**json.loads(read_text(note)))
        if version.url == url and (version.etag or version.size_bytes):
            return version
    return None
