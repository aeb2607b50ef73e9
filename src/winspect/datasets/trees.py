"""Where pictures are prepared from, a folder or a tar, read only; and which of its files a reader leaves out."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from winspect.datasets.folders import check_root, is_mask_folder, masked_stem
from winspect.datasets.items import Dataset
from winspect.errors import PictureError, SourceError
from winspect.pictures.formats import (
    START_BYTES,
    count_left_out,
    format_of,
    is_hidden,
    picture_by_name,
)
from winspect.system.opening import check_file, open_file

_TAR_BLOCK_BYTES = 512
_LARGEST_FILE = 1_000_000_000  # bytes of a picture; a header of 512 can ask for any number of them
_TAR_TROUBLE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError)


class Tree:
    """A folder or a tar, file by file under names with ``/``; hidden files are left out.

    Args:
        root: the folder, or the tar.
        tar: the tar, opened.

    Attributes:
        title: name of the folder or the tar, for a category that has none.
    """

    def __init__(self, root: Path, tar: tarfile.TarFile | None = None) -> None:
        self.root, self._tar = root, tar
        self.title = root.resolve().name if tar is None else root.name.partition(".tar")[0]
        self._members = {} if tar is None else dict(_members(root, tar))

    def names(self) -> list[str]:
        """Every file, sorted."""
        return sorted(_walk(self.root) if self._tar is None else self._members)

    def place(self, name: str) -> str:
        """A file's name in messages."""
        return str(self.root / name) if self._tar is None else f"{self.root}:{name}"

    def path(self, name: str) -> Path | None:
        """The file itself; None in a tar."""
        return self.root / name if self._tar is None else None

    def position(self, name: str) -> int:
        """Offset in a tar: a compressed one that is read out of turn is decompressed from the start again."""
        return self._members[name].offset_data if name in self._members else 0

    def size_bytes(self, name: str) -> int | None:
        """A file's size, or None when it is not there."""
        try:
            return (self.root / name).stat().st_size if self._tar is None else self._members[name].size
        except (KeyError, OSError):
            return None

    def read(self, name: str, size: int = -1) -> bytes:
        """A file's bytes, or its first ``size``.

        Raises:
            PictureError: it cannot be read.
        """
        fix = "check the file" if self._tar is None else "get the archive again"
        try:
            with open_file(self.root / name) if self._tar is None else _extract(self._tar, self._members[name]) as file:
                return file.read(size)
        except (KeyError, *_TAR_TROUBLE) as error:
            reason = getattr(error, "strerror", None) or error
            raise PictureError(self.place(name), f"cannot be read ({reason}): {fix}") from error

    def is_picture(self, name: str) -> bool:
        """Whether a file is a picture: by its name where that tells, else by its first bytes."""
        known = picture_by_name(name)
        if known is not None:
            return known
        try:
            return format_of(self.read(name, START_BYTES)) is not None
        except PictureError:
            return False


def _walk(root: Path) -> Iterator[str]:
    """Names of a folder's files. Links to folders are followed, but not round a loop."""

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be searched ({error.strerror}): check your rights") from error

    above: dict[str, frozenset[str]] = {}  # folder -> what it lies in, links resolved
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = above.pop(folder, frozenset()) | {os.path.realpath(folder)}
        inside = {name: os.path.join(folder, name) for name in folders if not is_hidden(name)}
        folders[:] = [name for name, path in inside.items() if os.path.realpath(path) not in real]
        above.update((inside[name], real) for name in folders)
        prefix = Path(os.path.relpath(folder, root)).as_posix() + "/"
        yield from (prefix.removeprefix("./") + name for name in files if not is_hidden(name))


def _members(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """A tar's files by name. Nothing is ever extracted by these names: links and devices are left out, and names that
    lead outside refused."""
    for member in tar.getmembers():
        parts = member.name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "":
            raise SourceError(f"{path}: holds {member.name!r}, which leads outside: get the archive from its makers")
        if member.isreg() and not any(is_hidden(part) for part in parts if part != "."):
            yield "/".join(part for part in parts if part not in ("", ".")), member


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if member.issparse() or member.size > _LARGEST_FILE:
        what = "a sparse file" if member.issparse() else "a file"
        raise ValueError(f"{what} of {member.size} bytes, need a stored one of at most {_LARGEST_FILE}")
    return tar.extractfile(member) or io.BytesIO()


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """A folder or a tar, for the length of a with-block.

    Raises:
        SourceError: it is not there, not a tar, or a tar that is cut off or holds names that lead outside.
    """
    if path.is_dir() or not path.exists():
        yield Tree(check_root(path))
        return
    try:
        check_file(path)
        tar = tarfile.open(path, "r:*")  # noqa: SIM115 (closed below; the errors of opening are told apart first)
    except _TAR_TROUBLE as error:
        raise SourceError(f"{path}: not a tar, or cut off at its start ({error}): get the archive again") from error
    with tar:
        _check_whole(path, tar)
        yield Tree(path, tar)


def _check_whole(path: Path, tar: tarfile.TarFile) -> None:
    """Refuse a tar that ends before its end. tarfile itself stops quietly at a header that is cut off or damaged."""
    again = "get the archive again (a download can go on where it stopped); what was prepared so far is kept"
    try:
        count = len(tar.getmembers())
        fileobj = tar.fileobj
        if fileobj is None:
            return
        fileobj.seek(tar.offset)
        end = fileobj.read(_TAR_BLOCK_BYTES)
    except _TAR_TROUBLE as error:
        raise SourceError(f"{path}: the archive is cut off or damaged ({error}): {again}") from error
    if end and end != bytes(_TAR_BLOCK_BYTES):
        raise SourceError(f"{path}: the archive is cut off or damaged after {count} files: {again}")


_LeftOut = tuple[list[str], dict[str, int]]


def left_out_of(tree: Tree, taken: Iterable[str], categories: Sequence[str] | None) -> _LeftOut:
    """The files of a tree that nothing takes. Masks do not count: a mask that is missed is missed at its picture.

    Args:
        taken: names of those that are read.
        categories: only below folders of these names, where there are some.

    Returns:
        Names, for messages, of the pictures among them; ending -> how many other files.
    """
    taken = set(taken)
    names = [name for name in tree.names() if name not in taken and not _is_mask(name)]
    if categories and _below(taken, categories):
        names = _below(names, categories)
    pictures = {name: tree.place(name) for name in names if tree.is_picture(name)}
    return list(pictures.values()), count_left_out(name for name in names if name not in pictures)


def left_out_by(dataset: Dataset, categories: Sequence[str] | None) -> _LeftOut:
    """The files below a data set's root that are no item's picture or mask."""
    taken = (path.relative_to(dataset.root).as_posix() for path in dataset.paths if path.is_relative_to(dataset.root))
    return left_out_of(Tree(check_root(dataset.root)), taken, categories)


def _is_mask(name: str) -> bool:
    *folders, file = name.split("/")
    return masked_stem(PurePosixPath(file).stem) is not None or any(map(is_mask_folder, folders))


def _below(names: Iterable[str], categories: Collection[str]) -> list[str]:
    return [name for name in names if not set(categories).isdisjoint(name.split("/")[:-1])]
