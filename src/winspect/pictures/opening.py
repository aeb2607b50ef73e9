"""From what a caller gives to a file that can be read, or the reason why there is none."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, JpegImagePlugin, TiffImagePlugin

from winspect.errors import PictureError
from winspect.system.opening import NotAFileError, open_file


def is_unread(image: Image.Image) -> bool:
    """Whether a caller's image stands for a file of which nothing is decoded yet, and which we read better."""
    ours = isinstance(image, (JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile))
    return ours and bool(image.tile) and image.fp is not None and image.tell() == 0  # type: ignore[attr-defined]


@contextmanager
def borrowed(file: Any) -> Iterator[BinaryIO]:
    """A file that somebody else reads, from its start; given back where it was."""
    place = file.tell()
    file.seek(0)
    try:
        yield file
    finally:
        file.seek(place)


def opened(source: Any, name: str) -> BinaryIO:
    """A file to read, from a path or from its bytes.

    Raises:
        PictureError: it cannot be opened; says why, and what to do.
    """
    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())  # own position: the same buffer may be read in several threads
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        raise PictureError(
            name,
            f"got {type(source).__name__}, need a path, bytes, a PIL.Image or a NumPy array",
        )
    path = Path(source)
    try:
        return open_file(path)
    except OSError as error:
        raise PictureError(path, _open_reason(path, error)) from error


def _folder_reason(path: Path) -> str:
    if not os.access(path, os.R_OK | os.X_OK):
        return "a folder that may not be read: give yourself the right (chmod u+rx), or leave it out"
    return "a folder, need a picture file: name the pictures in it"


def _open_reason(path: Path, error: OSError) -> str:
    if isinstance(error, NotAFileError):
        return _folder_reason(path) if error.errno == errno.EISDIR else str(error)
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"a broken link to {os.readlink(path)}: mend it or delete it"
        return "no such file: check the path"
    if isinstance(error, PermissionError):
        return "not readable (permission denied): give yourself the right to read it (chmod u+r)"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself: mend it or delete it"
    return f"cannot be opened ({error.strerror or error}): check the path"
