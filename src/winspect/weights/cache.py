"""The folder downloaded weights live in, and SHA-256 of large files, hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from winspect.system.files import expanded, home_folder, replacing_in_cache
from winspect.system.opening import open_file, read_text

CACHE_VARIABLE = "WINSPECT_CACHE"
_CHUNK_BYTES = 4 << 20


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache: ``cache_dir`` if given, else ``$WINSPECT_CACHE``, else the platform's folder for caches.

    The folder is not created.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return expanded(chosen).absolute()
    if sys.platform == "win32":  # pragma: no cover
        return (
            Path(os.environ.get("LOCALAPPDATA") or home_folder(CACHE_VARIABLE) / "AppData" / "Local")
            / "winspect"
            / "Cache"
        )
    if sys.platform == "darwin":  # pragma: no cover
        return home_folder(CACHE_VARIABLE) / "Library" / "Caches" / "winspect"
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder(CACHE_VARIABLE) / ".cache") / "winspect"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits, read in pieces into one buffer."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with open_file(path) as file:
        while n := file.readinto(buffer):
            digest.update(view[:n])
    return digest.hexdigest()


def sha256_of(path: Path, cache_dir: str | os.PathLike[str] | None = None) -> str:
    """SHA-256 of a file, remembered in the cache under its path, size and modification time.

    Hashing 600 MB costs about a second at every start; a cache that cannot be written only costs that second.
    """
    known = remembered_sha256(path, cache_dir)
    if known is None:
        known = hash_file(path)
        with suppress(OSError):
            note_path = _note_path(path, cache_dir)
            note_path.parent.mkdir(parents=True, exist_ok=True)
            write_json(note_path, {"file": _fingerprint(path), "sha256": known})
    return known


def remembered_sha256(path: Path, cache_dir: str | os.PathLike[str] | None = None) -> str | None:
    """The SHA-256 noted for this very file (path, size, modification time), or None."""
    with suppress(OSError, ValueError):
        note = json.loads(read_text(_note_path(path, cache_dir)))
        if isinstance(note, dict) and note.get("file") == _fingerprint(path):
            return str(note["sha256"])
    return None


def name_of(key: object) -> str:
    """The name of a cached file or folder: 32 hexadecimal digits of a key, anything that JSON can hold."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with replacing_in_cache(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _fingerprint(path: Path) -> list[str | int]:
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _note_path(path: Path, cache_dir: str | os.PathLike[str] | None) -> Path:
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return cache_folder(cache_dir) / "sha256" / f"{key}.json"
