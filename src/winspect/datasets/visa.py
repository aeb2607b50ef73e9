"""VisA, as it is downloaded and as its makers' script converts it.

::

    <root>/split_csv/1cls.csv                        object,split,label,image,mask: the official split
           <category>/Data/Images/{Normal,Anomaly}/  pictures
           <category>/Data/Masks/Anomaly/            masks, 0 and several other values
           <category>/image_anno.csv                 image,label,mask: the names of the defects

or, converted, the MVTec AD layout with the one defect type ``bad``: ``<root>/<category>/{train,test,ground_truth}``,
where ``<root>`` may also be the folder above ``1cls``.

VisA: Zou et al., "SPot-the-Difference", ECCV 2022 (arXiv 2207.14315); CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from winspect.datasets.folders import check_root, subfolders
from winspect.datasets.items import GOOD, SPLITS, Dataset, Item, check_some_there, dataset_of, item_of
from winspect.datasets.layouts import LAYOUTS, open_layout
from winspect.datasets.tables import read_text, table_rows
from winspect.errors import SourceError

SPLIT_FILE = "split_csv/1cls.csv"
BAD = "bad"
"""The name of every defect in the converted layout."""
_SPLIT_COLUMNS = {name: (name,) for name in ("object", "split", "label", "image", "mask")}
_ANNOTATION_COLUMNS = {name: (name,) for name in ("image", "label")}


def open_visa(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open VisA, raw or converted.

    Pictures that the split names but that are not there are kept: each fails under its own name when it is read.
    """
    check_root(root)
    for folder in (root, *subfolders(root)):
        if (folder / SPLIT_FILE).is_file():
            return _open_raw(folder, categories)
    is_category = LAYOUTS["mvtec"].is_category
    for folder in (root, root / "1cls", root / "VisA_pytorch" / "1cls"):
        if is_category(folder) or any(map(is_category, subfolders(folder))):
            return open_layout("mvtec", folder, categories, name="visa")
    raise SourceError(
        f"{root}: VisA is not here: need {SPLIT_FILE} and the categories' folders, or the converted layout "
        "<category>/{train,test,ground_truth}"
    )


def read_split(text: str, name: str) -> list[Item]:
    """The pictures of a split file; their paths count from the data set's root and never lead out of it.

    Args:
        text: its contents.
        name: the file's name for errors.

    Raises:
        SourceError: a column is missing, or a line is wrong or names a file outside the data set.
    """
    items = []
    for where, row in table_rows(text, name, ".csv", _SPLIT_COLUMNS, need=_SPLIT_COLUMNS):
        if row["split"] not in SPLITS or row["label"] not in ("normal", "anomaly"):
            got = f"{row['split']!r} and {row['label']!r}"
            raise SourceError(f"{where}: got split and label {got}, need train or test, and normal or anomaly")
        for path in (row["object"], row["image"], row["mask"] or "none"):
            if not is_safe(path):
                raise SourceError(f"{where}: got the path {path!r}, need one inside the data set: mend the file")
        if "/" in row["object"]:
            raise SourceError(f"{where}: got the category {row['object']!r}, need a plain name: mend the file")
        label = "normal" if row["label"] == "normal" else "anomalous"
        items.append(item_of(row["image"], row["object"], row["split"], label, BAD, row["mask"]))
    if not items:
        raise SourceError(f"{name}: no rows: get the data set again")
    return items


def is_safe(path: str) -> bool:
    """Whether a path with ``/`` is relative and stays below its root, on any system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not any(part in ("..", "/", "//") or "\\" in part or ":" in part for part in parts)


def _open_raw(root: Path, categories: Sequence[str] | None) -> Dataset:
    split = read_split(read_text(root / SPLIT_FILE), str(root / SPLIT_FILE))
    listed = dataset_of("visa", root, split, categories)
    defects = {image: defect for category in listed.categories for image, defect in _defect_names(root, category)}
    items = tuple(
        replace(
            item,
            path=root / item.path,
            mask=root / item.mask if item.mask else None,
            defect_type=defects.get(item.path.as_posix(), BAD) if item.is_anomalous else GOOD,
        )
        for item in listed.items
    )
    return check_some_there(replace(listed, items=items))


def _defect_names(root: Path, category: str) -> Iterator[tuple[str, str]]:
    """Pictures and the names of their defects, where the data set's annotation is there."""
    path = root / category / "image_anno.csv"
    if path.is_file():
        for _, row in table_rows(read_text(path), str(path), ".csv", _ANNOTATION_COLUMNS, need=_ANNOTATION_COLUMNS):
            yield row["image"], row["label"] or BAD
