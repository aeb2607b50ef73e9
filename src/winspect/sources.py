"""Where pictures come from: files, folders and globs -> one ordered list of paths."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from winspect.errors import SourceError

logger = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""File names with these endings, in either case, count as pictures when a folder or a glob is searched."""

Pattern = str | os.PathLike[str]


def find_pictures(patterns: Pattern | Sequence[Pattern], *, extensions: Collection[str] = EXTENSIONS) -> list[Path]:
    """Expand files, folders and globs to picture paths, in the order given, each once.

    * A file is taken as it is, whatever its ending.
    * A folder is searched with everything below it, in natural order (``part2`` before ``part10``). Hidden files and
      folders are left out. Links to folders are followed, each real folder is visited once, and a link that leads
      back is reported in the log.
    * A glob (``*``, ``?``, ``[...]``, ``**`` for any depth) matches files and folders. If it spells out an ending
      (``*.dat``), files with that ending count as pictures too.

    What cannot be read is kept rather than hidden: a broken link or a subfolder without read permission becomes an
    entry of the list, and fails there under its own name.

    Args:
        patterns: one or several paths or globs. A name that exists is never read as a glob.
        extensions: with the dot, in either case.

    Raises:
        SourceError: nothing was given or found, or a path does not exist or may not be read.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    if not patterns:
        raise SourceError("got no files, folders or patterns: name at least one")
    endings = frozenset(ending.lower() for ending in extensions)
    found: dict[str, str] = {}
    for pattern in patterns:
        for path in _expand(os.fspath(pattern), endings):
            # Absolute but not resolved: two links to one picture are two pictures, `a.jpg` and `./a.jpg` are one.
            found.setdefault(os.path.abspath(path), path)
    if not found:
        where = ", ".join(os.fspath(pattern) for pattern in patterns)
        raise SourceError(f"no pictures in {where}: looked for files ending in {', '.join(sorted(endings))}")
    return [Path(path) for path in found.values()]


def _expand(pattern: str, endings: frozenset[str]) -> list[str]:
    if os.path.isdir(pattern):
        return _search(pattern, endings)
    if os.path.lexists(pattern):  # a broken link as well: its own error is better than "not found"
        return [pattern]
    if not glob.has_magic(pattern):
        raise SourceError(f"{pattern!r}: no such file or folder: check the path")
    found = _expand_glob(pattern, endings)
    if not found:
        raise SourceError(f"{pattern!r} matches no pictures: check the pattern")
    return found


def _expand_glob(pattern: str, endings: frozenset[str]) -> list[str]:
    parts = Path(pattern).parts
    ending = os.path.splitext(parts[-1])[1].lower()
    if ending and not glob.has_magic(ending):
        endings |= {ending}
    if "**" not in parts:
        hits = sorted(glob.glob(pattern), key=natural_key)
        return [path for hit in hits for path in _from_hit(hit, endings)]
    # The standard library's `**` follows links round a loop until the system stops it; our own search does not.
    depth = parts.index("**")
    tops = sorted(glob.glob(os.path.join(*parts[:depth])), key=natural_key) if depth else [os.curdir]
    return [
        path
        for top in tops
        if os.path.isdir(top)
        for path in _search(top, endings)
        if _matches(path.removeprefix(top).strip(os.sep).split(os.sep), parts[depth:])
    ]


def _from_hit(hit: str, endings: frozenset[str]) -> list[str]:
    if os.path.isdir(hit):
        return _search(hit, endings)
    return [hit] if os.path.splitext(hit)[1].lower() in endings else []


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the glob matches the path or one of the folders it is in."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _search(top: str, endings: frozenset[str]) -> list[str]:
    """All pictures below a folder, in natural order."""
    found = []
    visited: dict[tuple[int, int], str] = {}
    stack = [(top, True)]  # not recursion: folders may be nested deeper than Python's limit
    while stack:
        path, is_folder = stack.pop()
        if not is_folder:
            found.append(path)
            continue
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                logger.warning("%s leads back to %s, which is searched once only", path, visited[identity])
                continue
            visited[identity] = path
            with os.scandir(path) as entries:
                stack.extend(reversed(_wanted(entries, endings)))
        except OSError as error:
            if path == top:
                raise SourceError(f"{top!r} cannot be searched ({error.strerror}): check your rights") from error
            logger.warning("%s cannot be searched (%s)", path, error.strerror)
            found.append(path)
    return found


def _wanted(entries: Iterable[os.DirEntry[str]], endings: frozenset[str]) -> list[tuple[str, bool]]:
    """(path, is a folder) of the entries to look at, in natural order."""
    wanted = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        is_folder = _is_folder(entry)
        if is_folder or _is_picture(entry, endings):
            wanted.append((natural_key(entry.name), entry.path, is_folder))
    return [(path, is_folder) for _, path, is_folder in sorted(wanted)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_picture(entry: os.DirEntry[str], endings: frozenset[str]) -> bool:
    ending = os.path.splitext(entry.name)[1].lower()
    # A broken link without an ending may have been a folder of pictures.
    return ending in endings or (not ending and entry.is_symlink() and not os.path.exists(entry.path))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Numbers compare as numbers, letters without case; the name itself breaks ties.

    >>> sorted(["b10.png", "b9.png", "A1.png"], key=natural_key)
    ['A1.png', 'b9.png', 'b10.png']
    """
    pieces = re.split("([0-9]+)", name.casefold())
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name
