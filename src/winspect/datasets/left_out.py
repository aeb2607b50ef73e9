"""Files of a data set that its reader leaves out: counted by ending, pictures among them named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from winspect.datasets.items import Dataset
from winspect.datasets.mask_files import is_mask_folder, masked_stem
from winspect.datasets.trees import FolderTree, Tree, is_picture_of
from winspect.pictures.formats import count_left_out, left_out_in_words


@dataclass(frozen=True)
class LeftOut:
    """What a reader leaves out.

    Attributes:
        pictures: what to call the pictures among it, each.
        others: ending -> how many other files.
    """

    pictures: tuple[str, ...]
    others: dict[str, int]

    def __str__(self) -> str:
        """One line for people; empty for nothing."""
        count = len(self.pictures)
        pictures = f"{count} picture{'s' * (count > 1)} left out, as {self.pictures[0]}" if count else ""
        return "; ".join(filter(None, (pictures, left_out_in_words(self.others))))


def left_out_of(tree: Tree, taken: Iterable[str], categories: Sequence[str] | None) -> LeftOut:
    """The files of a tree that nothing takes. Masks do not count: a mask that is missed is missed at its picture.

    Args:
        taken: names of those that are read.
        categories: only below folders of these names, where there are some.
    """
    taken = set(taken)
    names = [name for name in tree.names() if name not in taken and not _is_mask(name)]
    if categories:
        names = _below(names, categories) if _below(taken, categories) else names
    pictures = {name: tree.place(name) for name in names if is_picture_of(tree, name)}
    return LeftOut(tuple(pictures.values()), count_left_out(name for name in names if name not in pictures))


def left_out_by(dataset: Dataset, categories: Sequence[str] | None) -> LeftOut:
    """The files below a data set's root that are no item's picture or mask."""
    tree = FolderTree(dataset.root)
    paths = (path for item in dataset.items for path in (item.path, item.mask) if path is not None)
    taken = (path.relative_to(dataset.root).as_posix() for path in paths if path.is_relative_to(dataset.root))
    return left_out_of(tree, taken, categories)


def _is_mask(name: str) -> bool:
    *folders, file = name.split("/")
    return masked_stem(PurePosixPath(file).stem) is not None or any(map(is_mask_folder, folders))


def _below(names: Iterable[str], categories: Collection[str]) -> list[str]:
    return [name for name in names if not set(categories).isdisjoint(name.split("/")[:-1])]
