"""Opening a path that a user gives: a stored file, or an error at once; a pipe or a device would block for ever."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import TextIO

Place = str | os.PathLike[str]

_FLAGS = os.O_RDONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(OSError):
    """The path is there, but is no stored file. ``strerror`` says what it is, in words, and what is needed."""

    def __str__(self) -> str:
        return str(self.strerror)


def open_file(path: Place) -> io.BufferedReader:
    """Open a stored file to read its bytes. Never waits for another program, and disturbs none.

    Raises:
        NotAFileError: a folder, named pipe, socket or device, or a file of ``/proc`` that the system makes up.
        OSError: it is not there or cannot be opened.
    """
    try:
        _check(path, os.stat(path))  # before opening, which alone can wake a pipe's writer or rewind a tape
        handle = _opened(path)
    except ValueError as error:  # a null byte, or a character that the file system cannot encode
        raise NotAFileError(errno.EINVAL, f"a name that no file can have ({error})", os.fspath(path)) from error
    try:
        status = os.fstat(handle)
        _check(path, status)  # what was looked at may have been replaced meanwhile
        if status.st_size == 0:
            _check_empty(path, handle)
        if _NO_WAITING:
            os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_file(path: Place) -> None:
    """Check a path as :func:`open_file` does, for libraries that open paths themselves."""
    open_file(path).close()


def open_text(path: Place, *, encoding: str = "utf-8", errors: str = "strict", newline: str | None = None) -> TextIO:
    """Open a stored file to read text; errors as in :func:`open_file`."""
    return io.TextIOWrapper(open_file(path), encoding=encoding, errors=errors, newline=newline)


def read_bytes(path: Place) -> bytes:
    """Read all bytes of a stored file; errors as in :func:`open_file`."""
    with open_file(path) as file:
        return file.read()


def read_text(path: Place, *, encoding: str = "utf-8") -> str:
    """Read the text of a stored file; errors as in :func:`open_file`, and ``UnicodeDecodeError``."""
    with open_text(path, encoding=encoding) as file:
        return file.read()


def _opened(path: Place) -> int:
    try:
        return os.open(path, _FLAGS | _NO_WAITING)
    except BlockingIOError:  # a file server is asked to give up its lease of a stored file: that ends by itself
        return os.open(path, _FLAGS)


def _check(path: Place, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise NotAFileError(errno.EISDIR, "a folder, need a file", os.fspath(path))
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no stored file")
    raise NotAFileError(errno.EINVAL, f"{kind}, need a file: copy its content to a file", os.fspath(path))


def _check_empty(path: Place, handle: int) -> None:
    """Refuse a file of size 0 that has content: the system makes it up while it is read, perhaps without an end."""
    try:
        made_up = bool(os.read(handle, 1)) and os.fstat(handle).st_size == 0
    except OSError:
        made_up = True
    if made_up:
        reason = "a file that the system makes up as it is read, need a stored one: copy its content to a file"
        raise NotAFileError(errno.EINVAL, reason, os.fspath(path))
    os.lseek(handle, 0, os.SEEK_SET)
