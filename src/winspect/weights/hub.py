"""Files on the Hugging Face hub, through its own library: resumed, and compared with the hash the hub states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from winspect.errors import WeightsCorruptError
from winspect.weights.cache import hash_file
from winspect.weights.download import DownloadError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def address(repo: str, file: str) -> str:
    """Where a browser finds the file (``HF_ENDPOINT`` is honoured)."""
    return huggingface_hub.hf_hub_url(repo, file)


def find_file(repo: str, files: tuple[str, ...], folder: Path) -> Path:
    """The first of ``files`` on this machine, in ``folder`` or in the hub's own cache, where other programs put it;
    where there is none, the place in ``folder`` it would be fetched to."""
    for file in files:
        if (folder / file).is_file():
            return folder / file
        cached = huggingface_hub.try_to_load_from_cache(repo, file)
        if isinstance(cached, str):
            return Path(cached)
    return folder / files[0]


def fetch(repo: str, files: tuple[str, ...], folder: Path, *, progress: bool = True) -> tuple[Path, str]:
    """Download the first of ``files`` that the repository has.

    Returns:
        The file in ``folder``, and its SHA-256.

    Raises:
        DownloadError: the hub cannot be reached or refuses, or has none of the files.
        WeightsCorruptError: the hash is not the hub's; the file was removed.
    """
    for file in files:
        try:
            expected = huggingface_hub.get_hf_file_metadata(address(repo, file)).etag
            with _progress_bars(progress):
                path = Path(huggingface_hub.hf_hub_download(repo, file, local_dir=folder))
        except LocalEntryNotFoundError as error:
            raise DownloadError(_first_line(error)) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of requests or httpx, by the version of the library
            raise DownloadError(_first_line(error)) from error
        return path, _verified(path, expected)
    raise DownloadError(f"{repo} has none of {', '.join(files)}")


def _verified(path: Path, expected: str | None) -> str:
    """The hub's ETag of a large file is its SHA-256."""
    got = hash_file(path)
    if expected and _SHA256.fullmatch(expected) and got != expected:
        path.unlink()
        raise WeightsCorruptError(
            f"{path}: the file fetched has the wrong SHA-256: expected {expected}, got {got}. It was removed; fetch "
            "it again"
        )
    return got


@contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    if wanted or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
