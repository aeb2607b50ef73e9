"""Files of judged pictures that somebody may ask for again: a bounded folder, the oldest make room."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

from winspect.errors import FeedbackError
from winspect.system.files import make_folder, replacing_in_cache

logger = logging.getLogger(__name__)

Kind = Literal["drawn", "recent"]


class KeptPictures:
    """Pictures of the audit sample (``drawn``), which stay until they are judged, and others (``recent``).

    Each kind has half of the room. Where the drawn ones fill theirs no more are drawn until some are judged; of the
    others the oldest go.

    Args:
        folder: ``drawn/`` and ``recent/`` are in it; a file is named by the id of its row.
        max_bytes: of all.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.most = folder, max_bytes // 2
        self._lock = threading.Lock()
        self._sizes: dict[Kind, dict[str, int]] = {"drawn": {}, "recent": {}}
        for kind, sizes in self._sizes.items():
            place = make_folder(folder / kind)
            for left_over in place.glob(".*.tmp"):  # of a service that was killed
                left_over.unlink(missing_ok=True)
            found = [(path.stat(), path.name) for path in place.iterdir()]
            sizes.update({name: status.st_size for status, name in sorted(found, key=lambda each: each[0].st_mtime_ns)})

    def has_room(self, size: int) -> bool:
        """Whether a drawn picture of so many bytes can be kept."""
        return sum(self._sizes["drawn"].values()) + size <= self.most

    def save(self, kind: Kind, id: str, content: bytes) -> Path | None:
        """Keep a file; returns where, None where it is larger than the room for its kind.

        Raises:
            OSError: it cannot be written.
        """
        if len(content) > self.most:
            return None
        path = self.folder / kind / id
        with self._lock:
            sizes = self._sizes[kind]
            while kind == "recent" and sizes and sum(sizes.values()) + len(content) > self.most:
                self._drop(kind, next(iter(sizes)))
            with replacing_in_cache(path) as temporary:
                temporary.write_bytes(content)
            sizes[id] = len(content)
        return path

    def read(self, id: str) -> bytes:
        """The file of a picture.

        Raises:
            FeedbackError: it was not kept, or has made room.
        """
        for kind in self._sizes:
            with suppress(OSError):
                return (self.folder / kind / id).read_bytes()
        raise FeedbackError(f"{id}: the picture is not kept any more; the newest that were flagged or drawn are")

    def has(self, id: str) -> bool:
        """Whether the file of a picture is there."""
        return any(id in sizes for sizes in self._sizes.values())

    def release(self, id: str) -> None:
        """Let a drawn picture that has its answer make room like others."""
        if id in self._sizes["drawn"]:
            with suppress(OSError, FeedbackError):
                self.save("recent", id, self.read(id))
            with self._lock:
                self._drop("drawn", id)

    def drop(self, id: str) -> None:
        """Forget a file, where it is there."""
        with self._lock:
            for kind, sizes in self._sizes.items():
                if id in sizes:
                    self._drop(kind, id)

    def _drop(self, kind: Kind, id: str) -> None:
        del self._sizes[kind][id]
        with suppress(OSError):
            (self.folder / kind / id).unlink(missing_ok=True)
