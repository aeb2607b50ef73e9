"""Preparing a data set file by file: which file of the source becomes which of the result, and making it.

A file is whole or not there. The source is only read; a file that may be a link to it is replaced, never written into.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from winspect.datasets.items import Dataset, choose_categories, dataset_of
from winspect.datasets.layouts import LAYOUTS, MASKS_FOLDER
from winspect.datasets.masks import decode_mask, encode_mask
from winspect.datasets.tables import decode_text
from winspect.datasets.trees import Tree
from winspect.datasets.visa import BAD, SPLIT_FILE, read_split
from winspect.errors import OutputError, SettingsError, SourceError
from winspect.system.files import output_error, replacing

_LAYOUT = re.compile(rf"(?:(?:.*/)?([^/]+)/)?(train|test|{MASKS_FOLDER})(/[^/]+/[^/]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes:
        source: its name in the source tree.
        target: its name in the prepared data set.
        is_mask: to be written as 0 and 255, rather than taken as it is.
    """

    source: str
    target: str
    is_mask: bool = False


def plan_visa(tree: Tree, categories: Sequence[str] | None) -> list[Job]:
    """The files of VisA, raw (by its split file, in whichever folder) or converted already."""
    places = [name for name in tree.names() if f"/{name}".endswith(f"/{SPLIT_FILE}")]
    if not places:
        try:
            return plan_layout(tree, categories)
        except SourceError as error:
            raise SourceError(f"{error}; or VisA as it is downloaded, with {SPLIT_FILE}") from error
    split_file = min(places, key=len)
    prefix, where = split_file.removesuffix(SPLIT_FILE), f"{tree.root}/{split_file}"
    split = read_split(decode_text(tree.read(split_file), where), where)
    jobs = []
    for item in dataset_of("visa", tree.root, split, categories).items:
        target = f"{item.category}/{item.split}/{item.defect_type}/{item.path.name}"
        jobs.append(Job(prefix + item.path.as_posix(), target))
        if item.mask:
            target = f"{item.category}/{MASKS_FOLDER}/{BAD}/{item.path.stem}.png"
            jobs.append(Job(prefix + item.mask.as_posix(), target, is_mask=True))
    return jobs


def plan_layout(tree: Tree, categories: Sequence[str] | None) -> list[Job]:
    """The files of the MVTec AD layout, wherever in the tree it starts, its folders' names in any case; every picture
    and mask is taken as it is."""
    found: dict[str, list[Job]] = {}
    for name in tree.names():
        match = _LAYOUT.fullmatch(name)
        if match and tree.is_picture(name):
            category = match[1] or tree.title
            found.setdefault(category, []).append(Job(name, f"{category}/{match[2].lower()}{match[3]}"))
    if not found:
        raise SourceError(f"{tree.root}: no category found here: {LAYOUTS['mvtec'].needed}")
    chosen = choose_categories(list(found), categories, tree.root)
    return [job for category in chosen for job in found[category]]


def plan_folders(dataset: Dataset) -> list[Job]:
    """Plain folders, ``<category>/<type>/<file>``, of an opened data set."""
    return [
        Job(item.path.relative_to(dataset.root).as_posix(), f"{item.category}/{item.defect_type}/{item.path.name}")
        for item in dataset.items
    ]


def without_repeats(jobs: list[Job], where: Path) -> list[Job]:
    """Refuse two files for one place: one would quietly take the other's."""
    first: dict[str, str] = {}
    for job in jobs:
        before = first.setdefault(job.target, job.source)
        if before != job.source:
            raise SourceError(f"{where}: {before} and {job.source} would both become {job.target}: rename one")
    return list(dict.fromkeys(jobs))


def make_file(job: Job, tree: Tree, target: Path, link: str) -> bool:
    """Make one file, unless it is there and whole, in the way that was asked for.

    Args:
        job: its source must be in the tree.
        target: the file to be; its folder is made.
        link: ``"copy"``, or ``"hard"`` to link pictures; masks are converted, and so always files of their own.

    Returns:
        Whether it was made now.

    Raises:
        PictureError: the source cannot be read, or is not a mask.
        OutputError: the target cannot be written.
        SettingsError: the target is the source itself.
    """
    path, is_there = tree.path(job.source), target.is_file()
    is_link = path is not None and is_there and target.samefile(path)
    if path is not None and is_link and target.parent.resolve() == path.parent.resolve():
        raise SettingsError(f"{target} is the source itself, through a link to its folder: choose another --out")
    if job.is_mask:
        data = encode_mask(decode_mask(tree.read(job.source), tree.place(job.source)))
        if is_there and target.read_bytes() == data:
            return False
    elif is_there and is_link == (link == "hard") and target.stat().st_size == tree.size_bytes(job.source):
        return False
    elif path is not None and link == "hard":
        _link(path.resolve(), target)  # a hard link to a symbolic link would break when what it names moves
        return True
    else:
        data = tree.read(job.source)
    with new_file(target) as temporary:
        temporary.write_bytes(data)
    return True


def _link(path: Path, target: Path) -> None:
    with new_file(target) as temporary:
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise OutputError(
                    f"{target}: cannot be a hard link to {path} ({error.strerror}): use --link copy"
                ) from error
            raise


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
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
