"""A folder on any of Arrow's file systems, in which files are written atomically."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSelector, FileType

from winspect.cluster.filesystems import named, open_input, open_place, reason_of
from winspect.errors import OutputError, SourceError
from winspect.system.files import output_error

FOLDER = "_winspect"
RUN_FILE, SHARDS_FILE, SUMMARY_FILE = (f"{FOLDER}/{name}.json" for name in ("run", "shards", "summary"))
TEMPORARY = ".tmp"


class FolderStore:
    """A folder whose files are written under a temporary name in ``_winspect``, and renamed.

    On this machine the bytes are on the disk before the name is. An object store has no renaming (Arrow copies and
    deletes), but its objects appear whole.

    Args:
        place: a folder or a URI.

    Attributes:
        name: the place as people read it.

    Raises:
        OutputError: the URI is malformed, or its store cannot be opened.
    """

    def __init__(self, place: str) -> None:
        try:
            self.fs, root = open_place(place)
        except SourceError as error:
            raise OutputError(f"--out: {error}") from error
        self.name, self.root = named(place), root.rstrip("/") or root
        self.is_local = self.fs.type_name == "local"

    def path(self, name: str) -> str:
        """The whole path of a file in the folder."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The files and folders in a folder, sorted, with their bytes; none where there is no such folder."""
        found = self.fs.get_file_info(FileSelector(self.path(folder), allow_not_found=True))
        return {info.base_name: info.size or 0 for info in sorted(found, key=lambda info: info.base_name)}

    def visible_names(self) -> list[str]:
        """What the folder holds, but for winspect's own and hidden files."""
        return [name for name in self.sizes() if name != FOLDER and not name.startswith(".")]

    def read_json(self, name: str) -> Any:
        """A JSON file's value; None where there is none. Raises ValueError when it is damaged."""
        try:
            with open_input(self.fs, self.path(name), stream=True) as file:
                return json.loads(file.read())
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.fs.get_file_info(self.path(name)).type != FileType.NotFound:
            self.fs.delete_file(self.path(name))

    def write(self, name: str, content: bytes | pa.Buffer | dict[str, Any]) -> None:
        """Write a file, or a value as JSON, atomically. Raises OSError; then nothing has the name."""
        if isinstance(content, dict):
            content = (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
        path, temporary = self.path(name), self.path(f"{FOLDER}/{name.rpartition('/')[2]}{TEMPORARY}")
        try:
            with self.fs.open_output_stream(temporary, compression=None) as file:
                file.write(content)
            if self.is_local:
                _sync(temporary, os.O_RDWR)
            if self.fs.type_name == "hdfs":  # renames to no name that is taken; of what is replaced, nothing is lost
                self.remove(name)
            self.fs.move(temporary, path)
        except BaseException:
            with suppress(OSError):
                self.fs.delete_file(temporary)
            raise
        if self.is_local and os.name == "posix":  # elsewhere folders cannot be opened
            _sync(os.path.dirname(path), os.O_RDONLY)

    def refusal(self, error: OSError) -> OutputError:
        """The store's refusal to write, as an error that names the place and the fix."""
        if self.is_local:
            return output_error(Path(self.root), error)
        return OutputError(f"{self.name}: cannot write: {reason_of(error)}")


def _sync(path: str, how: int) -> None:
    file = os.open(path, how)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
            raise
    finally:
        os.close(file)
