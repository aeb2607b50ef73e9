"""Graphs that are slow to make, kept on disk: whole and verified, or made anew."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from winspect.system.opening import read_text
from winspect.weights.cache import hash_file, name_of, write_json

logger = logging.getLogger(__name__)

LIMIT_BYTES = 8_000_000_000
"""All graphs together; the ones not used for longest are removed first."""

_MANIFEST = "manifest.json"
_MAKING = ".making-"
_STALE_S = 24 * 3600  # whoever has not finished by then has been killed


class GraphCache:
    """Folders of files, one per key.

    Args:
        folder: where they lie; made on first use.
        identity: of the weights: hash, architecture, activation. Part of every key.
        limit_bytes: of all keys together; the ones not used for longest are removed first.
    """

    def __init__(self, folder: Path, identity: str, *, limit_bytes: int | None = None) -> None:
        self.folder, self.identity, self.limit_bytes = folder, identity, limit_bytes

    def get(self, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a key, its files verified by their SHA-256; made where it is missing or damaged.

        Args:
            key: everything that decides the content, as JSON: engine and its version, precision, layout ...
            make: writes the files into the folder it is given.

        Returns:
            The folder. Where the cache cannot be written, a temporary one that lives as long as this object.
        """
        key = {**key, "weights": self.identity}
        place = self.folder / name_of(key)
        if _is_whole(place):
            return place
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=self.folder, prefix=_MAKING))
        except OSError as error:
            logger.warning("%s: cannot keep graphs (%s); they are made anew next time", self.folder, error)
            made = place = Path(tempfile.mkdtemp(prefix="winspect-"))
            weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        try:
            make(made)
            files = {path.name: hash_file(path) for path in sorted(made.iterdir())}
            write_json(made / _MANIFEST, {"key": key, "files": files})
            if made != place:
                _put(made, place)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        self._prune(keep=place)
        return place

    def find(self, key: Mapping[str, Any]) -> Path | None:
        """The folder of a key, its files verified; None where it is missing or was damaged."""
        place = self.folder / name_of({**key, "weights": self.identity})
        return place if _is_whole(place) else None

    def _prune(self, keep: Path) -> None:
        with suppress(OSError):
            for half in self.folder.glob(f"{_MAKING}*"):
                if half.stat().st_mtime < time.time() - _STALE_S:
                    shutil.rmtree(half, ignore_errors=True)
            folders = [path for path in self.folder.iterdir() if (path / _MANIFEST).is_file() and path != keep]
            sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in [*folders, keep]}
            used = sum(sizes.values())
            for path in sorted(folders, key=lambda path: (path / _MANIFEST).stat().st_mtime):
                if used <= (LIMIT_BYTES if self.limit_bytes is None else self.limit_bytes):
                    return
                shutil.rmtree(path, ignore_errors=True)
                used -= sizes[path]


def _is_whole(place: Path) -> bool:
    manifest = place / _MANIFEST
    if not place.exists():
        return False
    try:
        files = json.loads(read_text(manifest))["files"]
        damaged = [name for name, sha256 in files.items() if hash_file(place / name) != sha256]
        damaged += [] if files else [f"{_MANIFEST} lists nothing"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        damaged = [f"{_MANIFEST}: {error}"]
    if damaged:
        logger.warning("%s: damaged graph cache (%s); making it anew", place, ", ".join(damaged))
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.unlink()  # a file where the folder should be
        return False
    with suppress(OSError):
        os.utime(manifest)  # used now: see _prune
    return True


def _put(made: Path, place: Path) -> None:
    """Rename; where another process was first, keep what it made, which is the same."""
    try:
        made.rename(place)
    except OSError:
        if not _is_whole(place):
            raise
        shutil.rmtree(made, ignore_errors=True)
