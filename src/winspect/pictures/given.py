"""Pictures that a caller gives: files, folders, globs, lists of paths, videos, bytes, arrays, tensors, images.

Each has a name if need be. Nothing is ever fetched: a URL is refused.

The rules: NumPy arrays are (H, W) or (H, W, channels), torch tensors (H, W) or (channels, H, W); both are uint8, or
floating point in 0..1, arrays uint16, too; channels are RGB(A), or BGR(A) where the caller says so, as OpenCV has them.
A pair (name, picture) gives a picture the name it has in results.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from winspect.errors import PictureError, SourceError
from winspect.pictures.find import find_pictures
from winspect.pictures.formats import ending_of
from winspect.pictures.video import VIDEO_ENDINGS, frames_of
from winspect.system.files import expanded
from winspect.system.opening import NotAFileError, open_file, read_text

_COLOURS = 3
LIST_ENDING = ".txt"
"""A file with this ending, in either case, lists paths of pictures, a line each."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters or more: C:/ is a drive
_NOT_FETCHED = "a URL, and nothing is fetched: download the picture, and name its file"


@dataclass(frozen=True)
class Given:
    """A picture that is more than a source of :mod:`winspect.pictures.decoding`: named, a tensor, or with BGR channels.

    Attributes:
        name: what it is called in results and messages.
        picture: a source, a torch tensor, or the error of a picture that was lost before it came here.
        bgr: the channels of an array or tensor are BGR(A).
    """

    name: str
    picture: Any = field(repr=False)
    bgr: bool = False

    def source(self) -> Any:
        """The picture as :mod:`winspect.pictures.decoding` takes it.

        Raises:
            PictureError: a tensor of another shape, or the error that stands for the picture.
        """
        if isinstance(self.picture, PictureError):
            raise self.picture
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
    """List the pictures given.

    Args:
        pictures: a file; a folder or glob; a text file that lists paths (:data:`LIST_ENDING`, relative to its folder);
            a video (:data:`~winspect.pictures.video.VIDEO_ENDINGS`), whose frames are read one by one; an array or
            tensor, or a stack of them; an image, a file's bytes, a pair (name, picture); any iterable of pictures.
        bgr: arrays and tensors have BGR channels; files and images say their order themselves.

    Returns:
        The pictures; with a length unless they come one by one, as those of a generator or a video do.

    Raises:
        SourceError: no pictures there; a URL; a list or a video that cannot be read.
    """
    if isinstance(pictures, str | os.PathLike):
        name = os.fspath(pictures)
        kind = _kind_of(name)
        if kind == "url":
            raise SourceError(f"got {_NOT_FETCHED}")
        if kind == "search":
            return find_pictures(name)
        if kind == "list":
            return _listed(Path(name))
        if kind == "video":
            return (Given(*frame) for frame in frames_of(name))
        return [pictures]
    if _is_one(pictures):
        return [picture_given(pictures, bgr=bgr)]
    if not isinstance(pictures, Iterable):
        need = "need a path, an array, a tensor, a Pillow image, or several of them"
        raise SourceError(f"got {type(pictures).__name__}, {need}")
    given = (picture_given(picture, bgr=bgr) for picture in pictures)
    return list(given) if isinstance(pictures, Sized) else given


def is_single(pictures: Any) -> bool:
    """Whether what is given stands for one picture, by its kind: a folder with a single picture does not."""
    if isinstance(pictures, str | os.PathLike):
        return _kind_of(os.fspath(pictures)) == "picture"
    return _is_one(pictures)


def _kind_of(name: str) -> Literal["picture", "search", "list", "video", "url"]:
    """What a path stands for; a name that exists is neither a glob nor a URL."""
    if os.path.isdir(name):
        return "search"
    if not os.path.lexists(name):
        if _URL.match(name):
            return "url"
        if glob.has_magic(name):
            return "search"
    ending = ending_of(name)
    return "list" if ending == LIST_ENDING else "video" if ending in VIDEO_ENDINGS else "picture"


def _listed(path: Path) -> list[Path]:
    """The pictures that a text file lists; empty lines, and lines that begin with ``#``, are passed over.

    Raises:
        SourceError: it cannot be read, lists none, or has a URL.
    """
    try:
        lines = read_text(path, encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SourceError(
            f"{path}: cannot be read as a list of pictures ({reason}); need a path on each line"
        ) from error
    names = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    listed = [(number, name) for number, name in names if name and not name.startswith("#")]
    for number, name in listed:
        if _URL.match(name):
            raise SourceError(f"{path}, line {number}: {_NOT_FETCHED}")
    if not listed:
        raise SourceError(f"{path}: lists no pictures; need a path on each line")
    return [path.parent / expanded(name) for _, name in listed]


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
        if _URL.match(os.fspath(path)):
            return _NOT_FETCHED
        return "no such file: check the path"
    if isinstance(error, PermissionError):
        return "not readable (permission denied): give yourself the right to read it (chmod u+r)"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself: mend it or delete it"
    return f"cannot be opened ({error.strerror or error}): check the path"
