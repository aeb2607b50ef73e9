"""Search for pictures: files, folders and globs -> one ordered list of paths."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from winspect.errors import SourceError
from winspect.pictures.formats import FORMAT_NAMES, count_left_out, ending_of, is_hidden, is_picture, left_out_in_words
from winspect.system.files import MAPS_FOLDER

logger = logging.getLogger(__name__)

Pattern = str | os.PathLike[str]
T = TypeVar("T")


def find_pictures(patterns: Pattern | Sequence[Pattern], *, extensions: Collection[str] | None = None) -> list[Path]:
    """Expand files, folders and globs to picture paths, in the order given, each once.

    * A file is taken as it is, whatever its ending.
    * A folder is searched with everything below it, in natural order (``part2`` before ``part10``), for pictures as
      :mod:`winspect.pictures.formats` tells them, by content where the name leaves it open. Hidden and system files
      and folders are passed over, and so are the heat maps of an earlier run. Links to folders are followed, each
      real folder is visited once, and a link that leads back is reported in the log.
    * A glob (``*``, ``?``, ``[...]``, ``**`` for any depth) matches files and folders. If it spells out an ending
      (``*.dat``), files with that ending count as pictures too.

    What cannot be read is kept rather than hidden: a broken link or a subfolder without read permission becomes an
    entry of the list, and fails there under its own name. Files that are left out are counted by ending in the log.

    Args:
        patterns: one or several paths or globs. A name that exists is never read as a glob.
        extensions: search for files that end like this instead, with the dot, in either case.

    Raises:
        SourceError: nothing was given or found, or a path does not exist or may not be read.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    if not patterns:
        raise SourceError("got no files, folders or patterns: name at least one")
    search = _Search(None if extensions is None else frozenset(ending.lower() for ending in extensions))
    found: dict[str, str] = {}
    for pattern in patterns:
        for path in search.expand(os.fspath(pattern)):
            # Absolute but not resolved: two links to one picture are two pictures, `a.jpg` and `./a.jpg` are one.
            found.setdefault(os.path.abspath(path), path)
    where = ", ".join(os.fspath(pattern) for pattern in patterns)
    if not found and search.endings is not None:
        raise SourceError(f"no pictures in {where}: looked for files ending in {', '.join(sorted(search.endings))}")
    left_out = left_out_in_words(count_left_out(path for key, path in search.left_out.items() if key not in found))
    if not found:
        raise SourceError(f"no pictures in {where}: looked for {FORMAT_NAMES}{left_out and f'; {left_out}'}")
    if left_out and search.endings is None:
        logger.warning("%s: %s", where, left_out)
    return [Path(path) for path in found.values()]


class _Search:
    """Expands patterns, and remembers which files it left out.

    Args:
        endings: what to search for; None for pictures.
    """

    def __init__(self, endings: frozenset[str] | None) -> None:
        self.endings = endings
        self.left_out: dict[str, str] = {}
        self._unsearchable: set[str] = set()

    def expand(self, pattern: str) -> list[str]:
        """The files that a file, folder or glob stands for."""
        if os.path.isdir(pattern):
            return self._kept(self._files_below(pattern))
        if os.path.lexists(pattern):  # a broken link as well: its own error is better than "not found"
            return [pattern]
        if not glob.has_magic(pattern):
            raise SourceError(f"{pattern!r}: no such file or folder: check the path")
        found = self._expand_glob(pattern)
        if not found:
            raise SourceError(f"{pattern!r} matches no pictures: check the pattern")
        return found

    def _expand_glob(self, pattern: str) -> list[str]:
        parts = Path(pattern).parts
        ending = os.path.splitext(parts[-1])[1].lower()
        further = ending if ending and not glob.has_magic(ending) else None
        # The standard library's `**` follows links round a loop until the system stops it; our own search does not.
        depth = parts.index("**") if "**" in parts else len(parts)
        below = parts[depth:]
        top = str(Path(*parts[:depth])) if below else pattern
        files = (
            path
            for hit in sorted(glob.glob(top), key=natural_key)
            for path in (self._files_below(hit) if os.path.isdir(hit) else [hit] if not below else [])
            if _matches(path.removeprefix(hit).strip(os.sep).split(os.sep), below)
        )
        return self._kept(files, further)

    def _kept(self, files: Iterable[str], further: str | None = None) -> list[str]:
        kept = []
        for path in files:
            if self._is_sought(path, further):
                kept.append(path)
            else:
                self.left_out[os.path.abspath(path)] = path
        return kept

    def _is_sought(self, path: str, further: str | None) -> bool:
        ending = ending_of(path)
        is_known = (ending and ending == further) or path in self._unsearchable
        if is_known or (is_picture(path) if self.endings is None else ending in self.endings):
            return True
        # A broken link without an ending may have been a folder of pictures.
        return not ending and os.path.islink(path) and not os.path.exists(path)

    def _files_below(self, top: str) -> Iterator[str]:
        """All files below a folder, in natural order, without hidden ones; and folders that cannot be searched."""
        visited: dict[tuple[int, int], str] = {}
        stack = [(top, True)]  # not recursion: folders may be nested deeper than Python's limit
        while stack:
            path, is_folder = stack.pop()
            if not is_folder:
                yield path
                continue
            try:
                status = os.stat(path)
                identity = (status.st_dev, status.st_ino)
                if identity in visited:
                    logger.warning("%s leads back to %s, which is searched once only", path, visited[identity])
                    continue
                visited[identity] = path
                with os.scandir(path) as entries:
                    stack.extend(reversed(_in_order(path, entries)))
            except OSError as error:
                if path == top:
                    raise SourceError(f"{top!r} cannot be searched ({error.strerror}): check your rights") from error
                logger.warning("%s cannot be searched (%s)", path, error.strerror)
                self._unsearchable.add(path)
                yield path


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the glob matches the path or one of the folders it is in."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _in_order(folder: str, entries: Iterable[os.DirEntry[str]]) -> list[tuple[str, bool]]:
    """(path, is a folder) of the visible entries, in natural order, without heat maps beside the results of a run."""
    kept = (entry for entry in entries if not is_hidden(entry.name))
    visible = [(natural_key(entry.name), entry.path, _is_folder(entry)) for entry in kept]
    if any(_is_results(key[1]) for key, _, _ in visible):
        maps = os.path.join(folder, MAPS_FOLDER)
        if any(path == maps and is_folder for _, path, is_folder in visible):
            logger.warning("%s: heat maps of an earlier run, not searched", maps)
            visible = [entry for entry in visible if entry[1] != maps]
    return [(path, is_folder) for _, path, is_folder in sorted(visible)]


def _is_results(name: str) -> bool:
    return name == "results.json" or (name.startswith("predictions") and name.endswith(".jsonl"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def at_even_steps(pictures: Sequence[T], count: int) -> list[T]:
    """``count`` of the pictures from the first to the last, in order; all where there are no more.

    >>> at_even_steps("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if count >= len(pictures):
        return list(pictures)
    steps = max(count - 1, 1)
    return [pictures[round(number * (len(pictures) - 1) / steps)] for number in range(count)]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Numbers compare as numbers, letters without case; the name itself breaks ties.

    >>> sorted(["b10.png", "b9.png", "A1.png"], key=natural_key)
    ['A1.png', 'b9.png', 'b10.png']
    """
    pieces = re.split("([0-9]+)", name.casefold())
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name
