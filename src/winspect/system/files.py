"""Atomic writes, folders for results, and the user's home folder."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from winspect.errors import OutputError, SettingsError

MAPS_FOLDER = "maps"
"""Subfolder of heat maps and raw maps in a folder of results."""


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn the operating system's refusal to write into an error that names the place and the fix."""
    fixes = {
        errno.ENOSPC: "the disk is full; free some space",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EACCES: "no permission to write there; choose another --out",
        errno.EPERM: "no permission to write there; choose another --out",
        errno.EROFS: "the file system is read-only; choose another --out",
        errno.ENOTDIR: "a part of this path is a file, not a folder; choose another --out",
        errno.EEXIST: "this is a file, not a folder; choose another --out",
    }
    return OutputError(f"{path}: cannot write: {fixes.get(error.errno or 0, error.strerror or str(error))}")


def make_folder(path: Path) -> Path:
    """Make a folder for results, and prove that it can be written.

    Raises:
        OutputError: it cannot be made or written; names the reason and the fix.
    """
    probe = path / f".winspect-{os.getpid()}-{threading.get_native_id()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"winspect")
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise output_error(path, error) from error
    return path


@contextmanager
def replacing_in_cache(path: Path) -> Iterator[Path]:
    """A temporary name to write to; renamed to ``path`` when the block ends well, removed when it does not.

    For files that nobody asked for, such as a cache's: errors of the system are the caller's to handle.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """:func:`replacing_in_cache`, for files that a user asked for.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with replacing_in_cache(path) as temporary:
            yield temporary
    except OSError as error:
        raise output_error(path, error) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file atomically; text as UTF-8, and as escapes where a file's name in it is none.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def append_line(path: Path, line: bytes) -> int:
    """Write one line or several through to the disk, at the end of a file; where that fails, the file is as it was.

    The name of a new file lasts, too, where the system lets a folder be opened.

    Returns:
        The byte at which it begins.

    Raises:
        OSError: what the system says; the same line can be tried again.
    """
    # Opened for each line: a file that was moved away or deleted meanwhile must not swallow what follows.
    is_new = not path.exists()
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            rest = line
            while rest:  # where the disk gets full in the middle, the system takes some, and complains at the next call
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(start)
            raise
    if is_new:
        with suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    return start


def write_json(path: Path, document: Any, *, indent: int | None = 2, **options: Any) -> None:
    """Write a document atomically; ``options`` are those of :func:`json.dumps`. Errors as of :func:`write_file`."""
    write_file(path, json.dumps(document, indent=indent, **options) + "\n")


def home_folder(instead: str) -> Path:
    """Home folder of the user who runs the program; a container's user may have none.

    Args:
        instead: environment variable that can name the folder instead, for the message.

    Raises:
        SettingsError: there is none.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise SettingsError(
            f"this user has no home folder to keep files in: set {instead}, or HOME, to a folder"
        ) from error


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replace a leading ``~`` by the home folder, where there is one."""
    return Path(os.path.expanduser(path))
