"""Pictures that a caller gives: files, folders, globs, bytes, arrays, tensors, images, each with a name if need be.

The rules: NumPy arrays are (H, W) or (H, W, channels), torch tensors (H, W) or (channels, H, W); both are uint8, or
floating point in 0..1, arrays uint16, too; channels are RGB(A), or BGR(A) where the caller says so, as OpenCV has them.
A pair (name, picture) gives a picture the name it has in results.
"""

from __future__ import annotations

import errno
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from winspect.errors import PictureError
from winspect.pictures.find import find_pictures
from winspect.system.opening import NotAFileError, open_file

_COLOURS = 3


@dataclass(frozen=True)
class Given:
    """A picture that is more than a source of :mod:`winspect.pictures.decoding`: named, a tensor, or with BGR channels.

    Attributes:
        name: what it is called in results and messages.
        picture: a source, or a torch tensor.
        bgr: the channels of an array or tensor are BGR(A).
    """

    name: str
    picture: Any = field(repr=False)
    bgr: bool = False

    def source(self) -> Any:
        """The picture as :mod:`winspect.pictures.decoding` takes it.

        Raises:
            PictureError: a tensor of another shape.
        """
        source = _array_of(self.picture, self.name) if is_tensor(self.picture) else self.picture
        if self.bgr and isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[2] >= _COLOURS:
            return np.concatenate((source[:, :, 2::-1], source[:, :, 3:]), axis=2)
        return source


def source_name(source: Any) -> str:
    """Name of a picture in results and messages: its path, or a word in angle brackets."""
    if isinstance(source, np.ndarray):
        return "<array>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    if isinstance(source, (bytes, bytearray, memoryview, io.BytesIO)):
        return "<bytes>"
    if isinstance(source, Given):
        return source.name
    # Never its text: that of a tensor or a list holds pixels.
    return str(source) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"


def pictures_given(pictures: Any, *, bgr: bool = False) -> Iterable[Any]:
    """List the pictures given: a file, folder or glob, an array or tensor or a stack of them, an image, any iterable.

    Args:
        bgr: arrays and tensors have BGR channels; files and images say their order themselves.

    Raises:
        SourceError: a folder or glob without pictures.
    """
    if isinstance(pictures, str | os.PathLike):
        name = os.fspath(pictures)
        if os.path.isdir(name) or (glob.has_magic(name) and not os.path.lexists(name)):
            return find_pictures(name)
        return [pictures]
    if _is_one(pictures):
        return [picture_given(pictures, bgr=bgr)]
    given = (picture_given(picture, bgr=bgr) for picture in pictures)
    return list(given) if isinstance(pictures, Sized) else given


def picture_given(picture: Any, *, bgr: bool = False) -> Any:
    """A picture as :func:`winspect.pictures.tiles.prepare` takes it; nothing is read or converted yet."""
    if isinstance(picture, tuple) and len(picture) == 2 and isinstance(picture[0], str):
        return Given(picture[0], picture[1], bgr)
    if is_tensor(picture):
        return Given("<tensor>", picture, bgr)
    return Given("<array>", picture, bgr) if bgr and isinstance(picture, np.ndarray) else picture


def is_tensor(picture: Any) -> bool:
    """Whether it is a torch tensor; torch need not be installed."""
    return type(picture).__module__.partition(".")[0] == "torch" and hasattr(picture, "detach")


def _is_one(pictures: Any) -> bool:
    if isinstance(pictures, np.ndarray) or is_tensor(pictures):
        return pictures.ndim <= len("HWC")
    if isinstance(pictures, tuple):
        return len(pictures) == 2 and isinstance(pictures[0], str) and not isinstance(pictures[1], str | os.PathLike)
    return isinstance(pictures, bytes | io.BytesIO | Image.Image | Given)


def _array_of(tensor: Any, name: str) -> np.ndarray:
    """A tensor (H, W) or (channels, H, W) as an array (H, W) or (H, W, channels)."""
    tensor = tensor.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        need = "need (H, W), (1, H, W), (3, H, W) or (4, H, W): torch has channels first; use permute(2, 0, 1)"
        raise PictureError(name, f"got a tensor of shape {tuple(array.shape)}, {need}")
    return array.transpose(1, 2, 0)


# From a path or bytes to an open file


def is_unread(image: Image.Image) -> bool:
    """Whether a caller's image stands for a file of which nothing is decoded yet, and which we read better."""
    ours = isinstance(image, (JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile))
    return ours and bool(image.tile) and image.fp is not None and image.tell() == 0  # type: ignore[attr-defined]


@contextmanager
def borrowed(file: Any) -> Iterator[BinaryIO]:
    """Read somebody else's file from its start, and put its position back."""
    place = file.tell()
    file.seek(0)
    try:
        yield file
    finally:
        file.seek(place)


def opened(source: Any, name: str) -> BinaryIO:
    """Open a file to read, from a path or from its bytes.

    Raises:
        PictureError: it cannot be opened; says why, and what to do.
    """
    if isinstance(source, io.BytesIO):
        source = source.getvalue()  # with a position apart: the same buffer may be read in several threads
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        raise PictureError(name, f"got {type(source).__name__}, need a path, bytes, a PIL.Image or a NumPy array")
    path = Path(source)
    try:
        return open_file(path)
    except OSError as error:
        raise PictureError(name, _open_reason(path, error)) from error


def _open_reason(path: Path, error: OSError) -> str:
    if isinstance(error, NotAFileError):
        if error.errno != errno.EISDIR:
            return str(error)
        if not os.access(path, os.R_OK | os.X_OK):
            return "a folder that may not be read: give yourself the right (chmod u+rx), or leave it out"
        return "a folder, need a picture file: name the pictures in it"
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"a broken link to {os.readlink(path)}: mend it or delete it"
        return "no such file: check the path"
    if isinstance(error, PermissionError):
        return "not readable (permission denied): give yourself the right to read it (chmod u+r)"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself: mend it or delete it"
    return f"cannot be opened ({error.strerror or error}): check the path"
