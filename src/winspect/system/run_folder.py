"""A folder of results belongs to a single run: its lock, its identity, and the order in which they are written.

The order is the same for every folder that can be gone on with: lock; where a run starts anew, remove the rows that
are there; write the identity; write rows. A kill after any step leaves the rows of the identity that is there, or none.

Locks are the operating system's: they end with the process that holds them, however it ends. Importing this imports
nothing that an edge installation does not have.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from winspect.errors import OutputError
from winspect.system.files import make_folder, output_error, write_json
from winspect.system.opening import read_text

logger = logging.getLogger(__name__)

LOCK_FILE = ".winspect.lock"


class FolderLock:
    """Keeps other runs, of this process or another, from writing to a folder.

    Where the file system has no locks, a warning is logged, and the run goes on.

    Args:
        path: the file that is locked; removed at the end, and left behind by a process that is killed.
        name: of the folder, in messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: int | None = None

    def acquire(self) -> None:
        """Lock, without waiting.

        Raises:
            OutputError: another run holds it, or the file cannot be written.
        """
        while self._file is None:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise output_error(self.path, error) from error
            try:
                _lock(file)
            except BlockingIOError as error:
                os.close(file)
                raise OutputError(
                    f"{self.name}: another winspect run is writing there; wait for its end, or choose another --out"
                ) from error
            except OSError as error:
                logger.warning("%s: cannot be locked (%s); see that no other run writes there", self.name, error)
            if _is_at(file, self.path):
                self._file = file
            else:  # the run before removed it between the two steps
                os.close(file)

    def release(self) -> None:
        """Unlock."""
        file, self._file = self._file, None
        if file is None:
            return
        if sys.platform != "win32":  # while it is locked: nobody else can have locked a file by this name
            with suppress(OSError):
                self.path.unlink()
        os.close(file)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """A folder for results, made where it is not there, that no other run writes to meanwhile.

    Raises:
        OutputError: it cannot be written, or another run is writing there.
    """
    lock = FolderLock(make_folder(folder) / LOCK_FILE, str(folder))
    lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


def read_identity(path: Path, *, fix: str) -> dict[str, Any] | None:
    """The document that a run wrote of itself; None where there is none.

    Args:
        fix: what to do about a file that cannot be read.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        identity = json.loads(read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot read the run to go on with ({error}); {fix}") from error
    if not isinstance(identity, dict):
        raise OutputError(f"{path}: not a run to go on with; {fix}")
    return identity


def begin(path: Path, run: Mapping[str, Any], *, empty: Iterable[Path] = (), remove: Iterable[Path] = ()) -> None:
    """Write the identity of a run, after what an earlier run has left is gone.

    Args:
        path: of the identity.
        run: as JSON has it.
        empty, remove: files of an earlier run, where it is not gone on with. An emptied one stays what it is: a link to
            another place.

    Raises:
        OutputError: a file cannot be removed or written.
    """
    try:
        for file in filter(Path.exists, empty):
            file.open("wb").close()
        for file in remove:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(Path(error.filename or path), error) from error
    write_json(path, run)


def _is_at(file: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(file), there)


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(file: int) -> None:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
