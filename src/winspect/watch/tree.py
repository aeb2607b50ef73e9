"""The pictures below a folder: which names count, and what the file system says of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from winspect.sources import EXTENSIONS

_TEMPORARY = frozenset((".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart"))


def is_wanted(name: str) -> bool:
    """Whether a path below the folder is a picture: a known ending, and no part hidden or temporary.

    >>> [name for name in ("a.png", ".a.png", "a.png.part", "a.tmp.png", "~a.png", "a.txt") if is_wanted(name)]
    ['a.png']
    """
    *folders, file = name.split(os.sep)
    stem, ending = os.path.splitext(file)
    return (
        ending.lower() in EXTENSIONS
        and not file.startswith((".", "~"))
        and os.path.splitext(stem)[1].lower() not in _TEMPORARY
        and not any(folder.startswith(".") for folder in folders)
    )


class Tree:
    """A folder as a place of pictures. Names are paths below it.

    Links to files are pictures under their own name, also those that lead nowhere, which is said of them later. Links
    to folders are not followed: what they lead to would be judged under two names.

    Args:
        recursive: with everything below it.
        ignore: folders whose contents are left out.
        complain: told of folders below that cannot be looked through.
    """

    def __init__(self, root: Path, *, recursive: bool, ignore: Iterable[Path], complain: Callable[[str], None]) -> None:
        self.root, self.recursive = root, recursive
        self._complain = complain
        self._real = os.path.realpath(root)
        ignored = (below(self._real, os.path.realpath(folder)) for folder in ignore)
        self._ignored = tuple(folder for folder in ignored if folder)

    def walk(self, top: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """All pictures below, in no order.

        Raises:
            OSError: the root itself cannot be read.
        """
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        name = os.path.join(folder, entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            folders.extend([name] * self.enters(name))
                        elif is_wanted(name) and (status := self.status(name)) is not None:
                            yield name, status
            except OSError as error:
                if not folder:
                    raise
                if not isinstance(error, FileNotFoundError):
                    self._complain(f"{self.root / folder}: cannot be looked through ({error.strerror})")

    def status(self, name: str) -> os.stat_result | None:
        """Of a file, or of a link that leads nowhere; None for what is gone or something else."""
        path = self.root / name
        try:
            status = os.stat(path)
        except OSError:
            try:
                status = os.lstat(path)
            except OSError:
                return None
            return status if stat.S_ISLNK(status.st_mode) else None
        return status if stat.S_ISREG(status.st_mode) else None

    def enters(self, folder: str) -> bool:
        """Whether what is in a folder below belongs here, as far as its name says."""
        hidden = any(part.startswith(".") for part in folder.split(os.sep))
        own = any(folder == ignored or folder.startswith(ignored + os.sep) for ignored in self._ignored)
        return self.recursive and not hidden and not own

    def reaches(self, name: str) -> bool:
        """Whether :meth:`walk` would come to a file, or folder, by this name."""
        folder = os.path.dirname(name)
        if not folder:
            return True
        parts = folder.split(os.sep)
        links = (os.path.islink(os.path.join(self.root, *parts[: depth + 1])) for depth in range(len(parts)))
        return self.enters(folder) and not any(links)


def below(top: str, path: str) -> str:
    """The path as seen from a folder; empty for the folder itself and what lies elsewhere."""
    prefix = top.rstrip(os.sep) + os.sep
    return path.removeprefix(prefix) if path.startswith(prefix) else ""
