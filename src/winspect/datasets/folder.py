"""Plain folders: ``good/`` and anything else.

::

    <root>/<category>/good/...         normal: good, ok or normal, in either case
                      scratch/...      anomalous, of the defect type "scratch"
                      <any name>/...

``<root>`` may be one category itself. There is no train split and there are no masks: every picture is to be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from winspect.datasets.items import GOOD, Dataset, Item, means_good
from winspect.datasets.layout import category_folders, pictures_in, subfolders
from winspect.errors import SourceError

WANTED_LAYOUT = "need <category>/good and <category>/<type of defect>"


def open_folder(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open plain folders.

    Raises:
        SourceError: no such folder, no category in it or none of a name asked for, or no picture at all.
    """
    folders = category_folders(root, is_category, categories, wanted=WANTED_LAYOUT)
    items = tuple(item for category, folder in folders.items() for item in _items(category, folder))
    if not items:
        raise SourceError(f"{root}: no pictures in {', '.join(folders)}: {WANTED_LAYOUT}")
    return Dataset("folder", root, tuple(folders), items)


def is_category(folder: Path) -> bool:
    """Whether a folder has a folder of normal pictures."""
    return any(means_good(inner.name) for inner in subfolders(folder))


def _items(category: str, folder: Path) -> list[Item]:
    items = []
    for inner in subfolders(folder):
        label, defect_type = ("normal", GOOD) if means_good(inner.name) else ("anomalous", inner.name)
        items += [Item(path, category, "test", label, defect_type) for path in pictures_in(inner)]
    return items
