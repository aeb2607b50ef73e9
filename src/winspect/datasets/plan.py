"""What to put where: which file of the source becomes which file of the prepared data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from winspect.datasets.items import GOOD, Dataset, choose_categories
from winspect.datasets.layouts import LAYOUTS, MASKS_FOLDER
from winspect.datasets.tables import decode_text
from winspect.datasets.trees import FolderTree, Tree, is_picture_of
from winspect.datasets.visa import DEFECT, SPLIT_FILE, find_raw, read_split
from winspect.errors import SourceError

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
    """VisA, raw (by its split file) or converted already.

    Raises:
        SourceError: neither is here, the split file is damaged, or an unknown category.
    """
    prefix = _split_prefix(tree)
    if prefix is None:
        try:
            return plan_layout(tree, categories)
        except SourceError as error:
            raise SourceError(f"{error}; or VisA as it is downloaded, with {SPLIT_FILE}") from error
    where = f"{tree.root}/{prefix}{SPLIT_FILE}"
    rows = read_split(decode_text(tree.read(prefix + SPLIT_FILE), where), where)
    chosen = choose_categories(list(dict.fromkeys(row.category for row in rows)), categories, tree.root)
    jobs = []
    for row in (row for row in rows if row.category in chosen):
        picture = PurePosixPath(row.image)
        type_folder = GOOD if row.label == "normal" else DEFECT
        jobs.append(Job(prefix + row.image, f"{row.category}/{row.split}/{type_folder}/{picture.name}"))
        if row.mask:
            target = f"{row.category}/{MASKS_FOLDER}/{DEFECT}/{picture.stem}.png"
            jobs.append(Job(prefix + row.mask, target, is_mask=True))
    return _without_repeats(jobs, where)


def _split_prefix(tree: Tree) -> str | None:
    """The folder, with its slash, that holds the split file: the tree itself or one in it."""
    if tree.size_bytes(SPLIT_FILE) is not None:
        return ""
    if isinstance(tree, FolderTree):
        raw = find_raw(tree.root)
        return None if raw is None else f"{raw.name}/"
    places = [name for name in tree.names() if name.endswith(f"/{SPLIT_FILE}")]
    return min(places, key=len).removesuffix(SPLIT_FILE) if places else None


def plan_layout(tree: Tree, categories: Sequence[str] | None) -> list[Job]:
    """The MVTec AD layout, wherever in the tree it starts, its folders' names in any case; every picture and mask is
    taken as it is.

    Raises:
        SourceError: the layout is not here, or an unknown category.
    """
    found: dict[str, list[Job]] = {}
    for name in tree.names():
        match = _LAYOUT.fullmatch(name)
        if match and is_picture_of(tree, name):
            category = match[1] or tree.title
            found.setdefault(category, []).append(Job(name, f"{category}/{match[2].lower()}{match[3]}"))
    if not found:
        raise SourceError(f"{tree.root}: no category found here: {LAYOUTS['mvtec'].wanted}")
    chosen = choose_categories(list(found), categories, tree.root)
    return _without_repeats([job for category in chosen for job in found[category]], str(tree.root))


def plan_folders(dataset: Dataset) -> list[Job]:
    """Plain folders, ``<category>/<type>/<file>``, of an opened data set."""
    jobs = [
        Job(item.path.relative_to(dataset.root).as_posix(), f"{item.category}/{item.defect_type}/{item.path.name}")
        for item in dataset.items
    ]
    return _without_repeats(jobs, str(dataset.root))


def _without_repeats(jobs: list[Job], where: str) -> list[Job]:
    """Refuse two files for one place: one would quietly take the other's."""
    first: dict[str, str] = {}
    for job in jobs:
        before = first.setdefault(job.target, job.source)
        if before != job.source:
            raise SourceError(f"{where}: {before} and {job.source} would both become {job.target}: rename one")
    return list(dict.fromkeys(jobs))
