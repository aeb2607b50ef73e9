"""Making the files of a prepared data set, each whole or not there.

The source is only read. A file that may be a link to it is never written into, but replaced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from winspect.datasets.masks import decode_mask, encode_mask, is_binary_mask
from winspect.datasets.plan import Job
from winspect.datasets.trees import Tree
from winspect.errors import OutputError, SettingsError
from winspect.system.files import output_error, replacing


def make_file(job: Job, tree: Tree, target: Path, link: str) -> bool:
    """Make one file, unless it is there and whole, in the way that was asked for.

    Args:
        job: its source must be in the tree.
        target: the file to be; its folder is made.
        link: ``"copy"``, or ``"hard"`` to link pictures; masks that are converted are always files of their own.

    Returns:
        Whether it was made now.

    Raises:
        PictureError: the source cannot be read, or is not a mask.
        OutputError: the target cannot be written.
        SettingsError: the target is the source itself.
    """
    if _is_made(job, tree, target, link):
        return False
    path = tree.path(job.source)
    if link == "hard" and not job.is_mask and path is not None:
        _link(path.resolve(), target)  # a hard link to a symbolic link would break when what it names moves
    else:
        data = tree.read(job.source)
        write_file(target, encode_mask(decode_mask(data, tree.place(job.source))) if job.is_mask else data)
    return True


def _is_made(job: Job, tree: Tree, target: Path, link: str) -> bool:
    if not target.is_file():
        return False
    if job.is_mask:
        return is_binary_mask(target)
    path = tree.path(job.source)
    linked = path is not None and target.samefile(path)
    if linked and path is not None and target.parent.resolve() == path.parent.resolve():
        raise SettingsError(f"{target} is the source itself, through a link to its folder: choose another --out")
    return linked == (link == "hard") and target.stat().st_size == tree.size_bytes(job.source)


def _link(path: Path, target: Path) -> None:
    with _new_file(target) as temporary:
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise OutputError(
                    f"{target}: cannot be a hard link to {path} ({error.strerror}): use --link copy"
                ) from error
            raise


def write_file(target: Path, data: bytes) -> None:
    """Write a whole file or none, in a folder that is made if need be.

    Raises:
        OutputError: it cannot be written.
    """
    with _new_file(target) as temporary:
        temporary.write_bytes(data)


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """``replacing``, with the folder made, and with nothing at the temporary name.

    A run that was killed may have left a hard link to the source there, and writing into that would change the source.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(target.parent, error) from error
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        yield temporary
