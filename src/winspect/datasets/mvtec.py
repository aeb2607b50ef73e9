"""The MVTec AD layout, which BTAD, the converted VisA and many own data sets share.

::

    <root>/<category>/train/good/000.png
                      test/good/000.png                      normal: good, ok or normal, in either case
                      test/<type>/000.png                    anomalous: every other name
                      ground_truth/<type>/000_mask.png       or 000.png; any ending a picture may have

``<root>`` may be one category itself. A picture's mask has the picture's name with or without ``_mask``, in the
folder of the same defect type; with both there, ``_mask`` counts. A missing mask is no error here: ``load_mask``
tells. Not read: ``validation`` folders and the several masks per picture of MVTec LOCO.

MVTec AD: Bergmann et al., CVPR 2019; CC BY-NC-SA 4.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from winspect.datasets.items import GOOD, SPLITS, Dataset, Item, means_good
from winspect.datasets.layout import category_folders, files_in, is_picture_name, pictures_in, subfolders
from winspect.errors import SourceError

MASKS_FOLDER = "ground_truth"
WANTED_LAYOUT = "need <category>/train/good, <category>/test/<type> and <category>/ground_truth/<type>"


def open_mvtec(root: Path, categories: Sequence[str] | None = None, *, name: str = "mvtec") -> Dataset:
    """Open a data set in the MVTec AD layout.

    Raises:
        SourceError: no such folder, no category in it or none of a name asked for, pictures outside the type folders,
            two masks for one picture, or no picture at all.
    """
    folders = category_folders(root, is_category, categories, wanted=WANTED_LAYOUT)
    items = tuple(item for category, folder in folders.items() for item in _items(category, folder))
    if not items:
        raise SourceError(f"{root}: no pictures in {', '.join(folders)}: {WANTED_LAYOUT}")
    return Dataset(name, root, tuple(folders), items)


def is_category(folder: Path) -> bool:
    """Whether a folder looks like one category of this layout."""
    return any((folder / split).is_dir() for split in SPLITS)


def _items(category: str, folder: Path) -> list[Item]:
    items = []
    for split in SPLITS:
        _refuse_loose_pictures(folder / split)
        for type_folder in subfolders(folder / split):
            pictures = pictures_in(type_folder)
            if means_good(type_folder.name):
                items += [Item(path, category, split, "normal", GOOD) for path in pictures]
                continue
            masks = _masks(folder / MASKS_FOLDER / type_folder.name)
            items += [
                Item(path, category, split, "anomalous", type_folder.name, _mask_of(path, masks)) for path in pictures
            ]
    return items


def _refuse_loose_pictures(folder: Path) -> None:
    loose = [path for path in files_in(folder) if is_picture_name(path.name)]
    if loose:
        raise SourceError(f"{loose[0]}: outside a folder for its type: put it into {folder / GOOD}, or the defect's")


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in pictures_in(folder):
        first = masks.setdefault(path.stem, path)
        if first != path:
            raise SourceError(f"{first} and {path}: two masks for one picture: keep one")
    return masks


def _mask_of(picture: Path, masks: dict[str, Path]) -> Path | None:
    return masks.get(f"{picture.stem}_mask") or masks.get(picture.stem)
