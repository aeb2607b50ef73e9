"""Fetching weights files: from a URL, resumed and verified here, or from the Hugging Face hub by its own library."""

from __future__ import annotations

import os
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
from filelock import FileLock
from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError
from tqdm import tqdm

from winspect.errors import WeightsCorruptError
from winspect.weights.cache import hash_file

TIMEOUT_S = 20.0
RETRIES = 4
RETRIES_UNREACHABLE = 1  # without a network, report it soon
BACKOFF_S = 1.0
_CHUNK_BYTES = 1 << 20
_RETRYABLE_STATUS = (408, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchError(Exception):
    """The file could not be fetched; the message is the reason. What arrived is kept for the next try.

    ``retries`` is how often the same request is worth another try: after a cut connection, a timeout, a busy server.
    """

    def __init__(self, reason: str, retries: int = 0) -> None:
        super().__init__(reason)
        self.retries = retries


@dataclass(frozen=True)
class Url:
    """A file at an http or https address.

    Attributes:
        url: the address.
        sha256_prefix: first hexadecimal digits of the file's SHA-256; None where nothing states them.
    """

    url: str
    sha256_prefix: str | None = None

    def find(self, folder: Path) -> Path:
        """The file's path in ``folder``, whether it is there or not."""
        return folder / last_part(self.url)

    def address(self, path: Path) -> str:
        """Where a browser finds the file."""
        return self.url

    def fetch(self, folder: Path) -> Path:
        """Download into ``folder``, continuing where an earlier try stopped if a hash can prove the whole.

        The bytes go to a file ending in ``.part``; only a complete one with the right hash gets the final name. Of
        several processes one downloads, and the others wait for it. Progress is drawn on stderr.

        Raises:
            FetchError: the server cannot be reached or refuses, or there is no space.
            WeightsCorruptError: the hash is wrong; the file was removed.
        """
        target = self.find(folder)
        part = target.with_name(target.name + ".part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_file():  # another process was faster
                    _download(self.url, part, self.sha256_prefix or "")
                    part.replace(target)
                return target
        except OSError as error:
            raise FetchError(f"cannot write {target}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Repository:
    """A file in a repository on the Hugging Face hub, which states the SHA-256 of every large file.

    Attributes:
        repo: ``OWNER/NAME``.
        files: names the file may have, the preferred one first.
    """

    repo: str
    files: tuple[str, ...]
    sha256_prefix = None

    def find(self, folder: Path) -> Path:
        """The first of the files on this machine, below ``folder`` or in the hub's own cache, where other programs
        put it; where there is none, the path below ``folder`` it would be fetched to."""
        place = self._place(folder)
        for file in self.files:
            if (place / file).is_file():
                return place / file
            cached = huggingface_hub.try_to_load_from_cache(self.repo, file)
            if isinstance(cached, str):
                return Path(cached)
        return place / self.files[0]

    def address(self, path: Path) -> str:
        """Where a browser finds the file (``HF_ENDPOINT`` is honoured)."""
        return huggingface_hub.hf_hub_url(self.repo, path.name)

    def fetch(self, folder: Path) -> Path:
        """Download the first of the files that the repository has; as :meth:`Url.fetch`."""
        for file in self.files:
            try:
                etag = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(self.repo, file)).etag
                path = Path(huggingface_hub.hf_hub_download(self.repo, file, local_dir=self._place(folder)))
            except LocalEntryNotFoundError as error:
                raise FetchError(_first_line(error)) from error
            except EntryNotFoundError:
                continue
            except Exception as error:  # of requests or httpx, by the version of the library
                raise FetchError(_first_line(error)) from error
            if etag and _SHA256.fullmatch(etag):  # what a large file's ETag is
                _check_hash(path, etag, str(path))
            return path
        raise FetchError(f"{self.repo} has none of {', '.join(self.files)}")

    def _place(self, folder: Path) -> Path:
        return folder / self.repo.replace("/", "--")


def last_part(url: str) -> str:
    """The file name in a URL."""
    return urlsplit(url).path.rpartition("/")[2]


def _download(url: str, part: Path, sha256_prefix: str) -> None:
    """Fill ``part`` and verify it."""
    left_over = _size(part) if sha256_prefix else 0
    if not (left_over and hash_file(part).startswith(sha256_prefix)):  # else a run ended just before the rename
        _fetch_with_retries(url, part, resume=bool(sha256_prefix))
    if left_over and not hash_file(part).startswith(sha256_prefix):  # the bytes left over were of another version
        part.unlink()
        _fetch_with_retries(url, part, resume=True)
    _check_hash(part, sha256_prefix, url)


def _check_hash(path: Path, expected: str, name: str) -> None:
    if not expected or (sha256 := hash_file(path)).startswith(expected):
        return
    path.unlink()
    shown = expected if len(expected) == len(sha256) else f"{expected}..."
    raise WeightsCorruptError(
        f"{name}: the file fetched has the wrong SHA-256: expected {shown}, got {sha256}. It was removed; "
        "fetch it again, and if that does not help, from another place"
    )


def _fetch_with_retries(url: str, part: Path, *, resume: bool) -> None:
    """Try again after a failure that may pass, waiting longer each time; bytes gained reset the count."""
    failures = 0
    while True:
        have = _size(part) if resume else 0
        try:
            return _fetch_once(url, part, have)
        except FetchError as error:
            failures = 1 if resume and _size(part) > have else failures + 1
            if failures > error.retries:
                raise
        time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _fetch_once(url: str, part: Path, have: int) -> None:
    """One request for the bytes after the first ``have``, which lie in ``part`` already."""
    request = urllib.request.Request(url, headers={"User-Agent": "winspect", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            have = have if response.status == 206 else 0  # some servers always send the whole file
            length = response.headers.get("Content-Length") or ""
            total = have + int(length) if length.isdecimal() else None
            _copy(response, part, have, total)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _RANGE_NOT_SATISFIABLE and have:
                part.unlink()
                raise FetchError("the part fetched so far is longer than the file", RETRIES) from error
            retries = RETRIES if error.code in _RETRYABLE_STATUS else 0
            raise FetchError(f"the server says HTTP {error.code} {error.reason}", retries) from error
    except urllib.error.URLError as error:
        raise FetchError(f"the server cannot be reached ({error.reason})", RETRIES_UNREACHABLE) from error
    except (TimeoutError, ConnectionError, HTTPException) as error:  # before the server answers
        raise _lost(error) from error
    if total is not None and _size(part) != total:
        raise FetchError(f"the connection was lost after {_size(part)} of {total} bytes", RETRIES)


def _copy(response: HTTPResponse, part: Path, have: int, total: int | None) -> None:
    needed, free = (total or 0) - have, shutil.disk_usage(part.parent).free
    if needed > free:
        raise FetchError(f"{part.parent} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed")
    bar = tqdm(desc=part.stem, initial=have, total=total, unit="B", unit_scale=True)
    with bar, part.open("ab" if have else "wb") as file:
        while chunk := _read(response):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _read(response: HTTPResponse) -> bytes:
    """The bytes that have arrived, so that a stall loses nothing; an error here is the connection's, not the disk's."""
    try:
        return response.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _lost(error) from error


def _lost(error: Exception) -> FetchError:
    return FetchError(f"the connection was lost ({error or type(error).__name__})", RETRIES)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
