"""Atomic writes, folders for results, and the user's home folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    probe = path / f".winspect-{os.getpid()}"
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
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; renamed to ``path`` when the block ends well, removed when it does not.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise output_error(path, error) from error
        raise


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
