"""Picture in the queue of a watched folder, and what tells its contents apart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from winspect.watch.journal import Content


@dataclass(slots=True)
class Arrival:
    """Picture in the queue.

    Attributes:
        name: below the folder. ``path``: with the folder.
        content: seen last; ``inode``: of the file that holds it.
        arrived: when it was noticed, ``time.monotonic()``.
        due: when to look at it again.
        is_replaced: another file came by this name, or the file became shorter: it is not one that slowly grows.
        failures: how often this content could not be decoded; ``failing_since``: the first time.
    """

    name: str
    path: str
    content: Content
    inode: int
    arrived: float
    due: float
    is_replaced: bool = False
    failures: int = 0
    failing_since: float = 0.0

    def entry(self) -> dict[str, Any]:
        """The picture as rows have it: its name and what tells its content from another."""
        return {"name": self.name, **self.content._asdict()}

    def see(self, status: os.stat_result) -> None:
        """Take the content that is there now for the one to score."""
        self.is_replaced = self.is_replaced or status.st_ino != self.inode or status.st_size < self.content.bytes
        self.content, self.inode = content_of(status), status.st_ino
        if not self.is_replaced:
            self.failures, self.failing_since = 0, 0.0


def content_of(status: os.stat_result) -> Content:
    """What the file system says of a file's content."""
    return Content(status.st_size, status.st_mtime_ns)
