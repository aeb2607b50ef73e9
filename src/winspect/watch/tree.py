"""The pictures below a folder: which names count, and what the file system says of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from winspect.pictures.formats import (
    UNFINISHED,
    count_left_out,
    ending_of,
    format_of,
    is_hidden,
    left_out_in_words,
    picture_by_name,
    read_start,
)

_MOST_REMEMBERED = 100_000


class Content(NamedTuple):
    """Length and last change of a file: they tell its contents apart."""

    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Content:
        """The content that the file system tells of."""
        return cls(status.st_size, status.st_mtime_ns)


def may_be_picture(name: str) -> bool | None:
    """Whether a path below the folder is a picture as far as its name tells: no part of it hidden or temporary. None
    where its content must be asked.

    >>> [may_be_picture(name) for name in ("a.png", ".a.png", "a.png.part", "a.tmp.png", "~a.png", "a.txt", "a.raw")]
    [True, False, False, False, False, False, None]
    """
    *folders, file = name.split(os.sep)
    temporary = file.startswith("~") or ending_of(os.path.splitext(file)[0]) in UNFINISHED
    return False if temporary or any(map(is_hidden, (*folders, file))) else picture_by_name(file)


class Tree:
    """A folder as a place of pictures. Names are paths below it.

    Links to files are pictures under the link's name, also those that lead nowhere, which is reported when they are
    read. Links to folders are not followed: what they lead to would be scored under two names.

    Args:
        recursive: with everything below it.
        ignore: folders whose contents are left out.
        complain: called with what is left out: folders that cannot be scanned, files that are no pictures.
    """

    def __init__(self, root: Path, *, recursive: bool, ignore: Iterable[Path], complain: Callable[[str], None]) -> None:
        self.root, self.recursive = root, recursive
        self._complain = complain
        self._real = os.path.realpath(root)
        ignored = (below(self._real, os.path.realpath(folder)) for folder in ignore)
        self._ignored = tuple(folder for folder in ignored if folder)
        self._looked_at: dict[str, tuple[Content, bool]] = {}
        self._known_endings: set[str] = set()

    def walk(self, top: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """All pictures below, in no order.

        Files that are no pictures are counted in one line, and again only when there are some of another ending.

        Raises:
            OSError: the root itself cannot be read.
        """
        folders, left_out = [top], []
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        name = os.path.join(folder, entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            folders.extend([name] * self.enters(name))
                        elif (status := self.picture(name)) is not None:
                            yield name, status
                        elif may_be_picture(name) is not True:
                            left_out.append(name)
            except OSError as error:
                if not folder:
                    raise
                if not isinstance(error, FileNotFoundError):
                    self._complain(f"{self.root / folder}: cannot be scanned ({error.strerror})")
        counts = count_left_out(left_out)
        if not self._known_endings.issuperset(counts):
            self._known_endings.update(counts)
            self._complain(f"{self.root / top}: {left_out_in_words(counts)}")

    def picture(self, name: str) -> os.stat_result | None:
        """The status of a picture; None for what is gone or no picture. Content is asked once for each version."""
        known = may_be_picture(name)
        status = None if known is False else self.status(name)
        if known or status is None:
            return status
        content = Content.of(status)
        seen, is_picture = self._looked_at.get(name, (None, False))
        if seen != content:
            start = read_start(self.root / name)
            is_picture = format_of(start) is not None
            if len(self._looked_at) >= _MOST_REMEMBERED:
                self._looked_at.clear()
            if start:  # else it is empty, or cannot be read as yet
                self._looked_at[name] = (content, is_picture)
        return status if is_picture else None

    def status(self, name: str) -> os.stat_result | None:
        """Of a file, or of a link that leads nowhere; None for what is gone or something else."""
        for look, is_file in ((os.stat, stat.S_ISREG), (os.lstat, stat.S_ISLNK)):
            with suppress(OSError):
                status = look(self.root / name)
                return status if is_file(status.st_mode) else None
        return None

    def enters(self, folder: str) -> bool:
        """Whether what is in a folder below belongs here, as far as its name says."""
        hidden = any(map(is_hidden, folder.split(os.sep)))
        is_ignored = any(folder == ignored or folder.startswith(ignored + os.sep) for ignored in self._ignored)
        return self.recursive and not hidden and not is_ignored

    def reaches(self, name: str) -> bool:
        """Whether :meth:`walk` would come to a file, or folder, by this name."""
        folders = Path(name).parts[:-1]
        links = ((self.root / Path(*folders[: depth + 1])).is_symlink() for depth in range(len(folders)))
        return not folders or (self.enters(os.path.join(*folders)) and not any(links))


def below(top: str, path: str) -> str:
    """The path as seen from a folder; empty for the folder itself and what lies elsewhere."""
    prefix = top.rstrip(os.sep) + os.sep
    return path.removeprefix(prefix) if path.startswith(prefix) else ""
