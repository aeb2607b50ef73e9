"""Data sets whose folders say what their pictures show: one table of layouts, one reader.

docs/data.md draws each. A category's folder holds a folder for each split, and that a folder for each type of defect,
``good`` among them. Where there are no such types, a picture's mask says whether it is defective. Masks are found by
:class:`winspect.datasets.folders.MaskFinder`, whatever the layout; a mask that is missing is no error here.

MVTec AD: Bergmann et al., CVPR 2019 (CC BY-NC-SA 4.0). MVTec AD 2: Heckler-Kram et al., arXiv 2503.21622 (CC BY-NC-SA
4.0). BTAD: Mishra et al., ISIE 2021. MPDD: Jezek et al., ICUMT 2021. KolektorSDD2: Bozic et al., Computers in Industry
2021 (CC BY-NC-SA 4.0). DAGM 2007: Wieler and Hahn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from winspect.datasets.folders import (
    MaskFinder,
    check_root,
    files_in,
    is_mask_folder,
    mask_folders,
    masked_stem,
    pictures_in,
    subfolders,
    without_masks,
)
from winspect.datasets.items import DEFECT, GOOD, Dataset, Item, choose_categories, means_good
from winspect.datasets.masks import read_mask
from winspect.errors import SourceError

MASKS_FOLDER = "ground_truth"


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a data set lie.

    Attributes:
        needed: the layout in words, for errors.
        splits: folder in the category, in either case -> split; ``""`` is the category's folder itself.
        label: what decides whether a picture is defective: ``type``, the name of its folder; ``mask``, that it has one;
            ``marks``, that its mask marks something; what has no mask is left out.
        category: name of the data set's only category, where its root is the category's folder.
    """

    needed: str
    splits: Mapping[str, str]
    label: str = "type"
    category: str | None = None

    @property
    def has_splits(self) -> bool:
        """Whether there is a folder for each split."""
        return "" not in self.splits

    def is_category(self, folder: Path) -> bool:
        """Whether a folder looks like one category of this layout."""
        if not self.has_splits:
            return any(means_good(inner.name) for inner in subfolders(folder))
        return bool(self.split_folders(folder))

    def split_folders(self, folder: Path) -> list[tuple[Path, str]]:
        """The folders in a category that hold pictures, each with its split, in the order of the table."""
        if not self.has_splits:
            return [(folder, self.splits[""])]
        there = {inner.name.casefold(): inner for inner in subfolders(folder)}
        return [(there[name], split) for name, split in self.splits.items() if name in there]


_TRAIN_AND_TEST = {"train": "train", "test": "test"}
_MVTEC = Layout(
    f"need <category>/train/good, <category>/test/<type> and <category>/{MASKS_FOLDER}/<type>", _TRAIN_AND_TEST
)
LAYOUTS: dict[str, Layout] = {
    "mvtec": _MVTEC,
    "btad": _MVTEC,
    "mpdd": _MVTEC,
    "mvtec2": Layout(
        f"need <category>/train/good, <category>/test_public/<good or bad> and .../{MASKS_FOLDER}/bad",
        {"train": "train", "test_public": "test"},
    ),
    "ksdd2": Layout(
        "need train/<number>.png, train/<number>_GT.png and the same in test/", _TRAIN_AND_TEST, "marks", "surface"
    ),
    "dagm": Layout(
        "need <class>/Train/<number>.PNG, <class>/Train/Label/<number>_label.PNG and the same in Test/",
        _TRAIN_AND_TEST,
        "mask",
    ),
    "folder": Layout("need <category>/good and <category>/<type of defect>", {"": "test"}),
}
"""Kind of data set -> its layout."""


def open_layout(kind: str, root: Path, categories: Sequence[str] | None = None, *, name: str | None = None) -> Dataset:
    """Open a data set in one of :data:`LAYOUTS`.

    Args:
        root: its folder, or that of one category.
        name: the data set's name; None for ``kind``.

    Raises:
        SourceError: the folder is not of this layout; where another layout is there, it is named.
    """
    layout = LAYOUTS[kind]
    try:
        folders = _category_folders(layout, root, categories)
        # In a category's folder of another layout, train and test hold "good" as categories do.
        if not layout.has_splits and (splits := [f for f in folders.values() if f.name.casefold() in _TRAIN_AND_TEST]):
            raise SourceError(f"{root}: {splits[0].name}/ is a split, not a category: {layout.needed}")
        items = tuple(item for category, folder in folders.items() for item in _items(layout, category, folder))
        if not items:
            raise SourceError(f"{root}: no pictures in {', '.join(folders)}: {layout.needed}")
        if layout.has_splits and not any(item.split == "test" for item in items) and hint(root, kind):
            raise SourceError(f"{root}: no test pictures in {', '.join(folders)}: {layout.needed}")
    except SourceError as error:
        if not (other := hint(root, kind)):
            raise
        raise SourceError(f"{error}{other}") from error
    return Dataset(name or kind, root, tuple(folders), items)


def _category_folders(layout: Layout, root: Path, categories: Sequence[str] | None) -> dict[str, Path]:
    """Name and folder of each chosen category below ``root``, which may be one category itself: it then has the only
    name in ``categories``, else its folder's. Archives may put a category's folder into one of its name."""
    check_root(root)
    if layout.is_category(root):
        name = categories[0] if categories and len(categories) == 1 else layout.category or root.resolve().name
        return dict.fromkeys(choose_categories([name], categories, root), root)
    places = [(folder.name, place) for folder in subfolders(root) for place in (folder / folder.name, folder)]
    folders = {name: place for name, place in places if layout.is_category(place)}  # the outer where both are
    if not folders:
        raise SourceError(f"{root}: no category found here: {layout.needed}")
    return {name: folders[name] for name in choose_categories(list(folders), categories, root)}


def _items(layout: Layout, category: str, folder: Path) -> Iterator[Item]:
    finder, shared = MaskFinder(), mask_folders(folder)
    find = _by_type if layout.label == "type" else _by_mask
    for split_folder, split in layout.split_folders(folder):
        masks = [*mask_folders(split_folder), *shared] if layout.has_splits else shared
        for path, defect, mask in find(layout, split_folder, finder, masks):
            yield Item(path, category, split, "normal" if defect == GOOD else "anomalous", defect, mask)


_Found = Iterator[tuple[Path, str, Path | None]]
"""Pictures, each with the type of its defect and its mask."""


def _by_type(layout: Layout, folder: Path, finder: MaskFinder, masks: Sequence[Path]) -> _Found:
    """The pictures in folders for each type of defect, with masks from a folder of the same name, or from all."""
    if layout.has_splits and (loose := pictures_in(folder)):
        raise SourceError(f"{loose[0]}: outside a folder for its type: put it into {folder / GOOD}, or the defect's")
    for inner in subfolders(folder):
        # A folder named as those of masks are is a type all the same where it has masks of its own elsewhere.
        elsewhere = layout.has_splits and any((place / inner.name).is_dir() for place in masks if place != inner)
        if is_mask_folder(inner.name) and not elsewhere:
            continue
        is_good = means_good(inner.name)
        places = [*(place / inner.name for place in masks), *mask_folders(inner), *masks]
        for path in without_masks(pictures_in(inner)):
            yield (path, GOOD, None) if is_good else (path, inner.name, finder.find(path, places))


def _by_mask(layout: Layout, folder: Path, finder: MaskFinder, masks: Sequence[Path]) -> _Found:
    """The pictures of a split without types."""
    for path in without_masks(pictures_in(folder)):
        mask = finder.find(path, masks)
        if layout.label == "marks" and mask is None:
            continue
        is_good = mask is None or (layout.label == "marks" and not read_mask(mask).any())
        yield (path, GOOD, None) if is_good else (path, DEFECT, mask)


def hint(root: Path, kind: str) -> str:
    """The end of an error: the kind of data set that a folder looks like, where it is another than ``kind``."""
    if not root.is_dir():
        return ""
    places = [root, *subfolders(root)]
    insides = [(place.name.casefold(), inner) for place in places for inner in subfolders(place)]
    splits = [inner for _, inner in insides if inner.name.casefold() in _TRAIN_AND_TEST]
    signs = {
        "mvtec2": any(inner.name == "test_public" for _, inner in insides),
        "dagm": any((split / "Label").is_dir() for split in splits),
        "ksdd2": any(masked_stem(path.stem) for split in splits for path in files_in(split)[:2]),
        "visa": any((place / "split_csv").is_dir() for place in places),
        "realiad": any(place.name == "realiad_jsons" for place in places),
        "mvtec": any(not is_mask_folder(inner.name) for split in splits for inner in subfolders(split)),
        "folder": any(means_good(inner.name) for above, inner in insides if above not in _TRAIN_AND_TEST),
        "meta": any((place / "meta.json").is_file() for place in places),
    }
    asked = {"btad": "mvtec", "mpdd": "mvtec"}.get(kind, kind)
    found = next((name for name, is_there in signs.items() if is_there), None)
    # MVTec AD 2 has a train/good, too; other files beside a layout that is there do not make it another.
    is_other = found not in (None, asked) and not (signs.get(asked) and found != "mvtec2")
    return f"; this looks like --dataset {found}" if is_other else ""
