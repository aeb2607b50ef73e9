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

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from winspect.datasets.folders import check_root, subfolders
from winspect.datasets.items import GOOD, SPLITS, Dataset, Item, check_some_there, choose_categories, dataset_of
from winspect.datasets.layouts import LAYOUTS, open_layout
from winspect.datasets.tables import read_text, table_rows
from winspect.errors import SourceError

SPLIT_FILE = "split_csv/1cls.csv"
BAD = "bad"
"""The name of every defect in the converted layout."""
_LABELS = {"normal": "normal", "anomaly": "anomalous"}
_SPLIT_COLUMNS = {name: (name,) for name in ("object", "split", "label", "image", "mask")}
_ANNOTATION_COLUMNS = {name: (name,) for name in ("image", "label")}


class SplitRow(NamedTuple):
    """One line of the split file; paths with ``/``, from the data set's root, never leading out of it."""

    category: str
    split: str
    label: str
    image: str
    mask: str | None


def open_visa(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open VisA, raw or converted.

    Pictures that the split names but that are not there are kept: each fails under its own name when it is read.

    Raises:
        SourceError: neither layout is found here, the split file is damaged, a category does not exist, or none of
            the pictures that the split names is there.
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


def read_split(text: str, name: str) -> list[SplitRow]:
    """The rows of a split file.

    Args:
        text: its contents.
        name: the file's name for errors.

    Raises:
        SourceError: a column is missing, or a line is wrong or names a file outside the data set.
    """
    rows = []
    for where, row in table_rows(text, name, ".csv", _SPLIT_COLUMNS, need=_SPLIT_COLUMNS):
        if row["split"] not in SPLITS or row["label"] not in _LABELS:
            got = f"{row['split']!r} and {row['label']!r}"
            raise SourceError(f"{where}: got split and label {got}, need train or test, and normal or anomaly")
        for path in (row["object"], row["image"], row["mask"] or "none"):
            if not is_safe(path):
                raise SourceError(f"{where}: got the path {path!r}, need one inside the data set: mend the file")
        if "/" in row["object"]:
            raise SourceError(f"{where}: got the category {row['object']!r}, need a plain name: mend the file")
        label = _LABELS[row["label"]]
        mask = row["mask"] if row["mask"] and label == "anomalous" else None
        rows.append(SplitRow(row["object"], row["split"], label, row["image"], mask))
    if not rows:
        raise SourceError(f"{name}: no rows: get the data set again")
    return rows


def is_safe(path: str) -> bool:
    """Whether a path with ``/`` is relative and stays below its root, on any system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not any(part in ("..", "/", "//") or "\\" in part or ":" in part for part in parts)


def _open_raw(root: Path, categories: Sequence[str] | None) -> Dataset:
    rows = read_split(read_text(root / SPLIT_FILE), str(root / SPLIT_FILE))
    chosen = choose_categories(list(dict.fromkeys(row.category for row in rows)), categories, root)
    defects = {image: defect for category in chosen for image, defect in _defect_names(root, category).items()}
    items = [
        Item(
            root / row.image,
            row.category,
            row.split,
            row.label,
            defects.get(row.image, BAD) if row.label == "anomalous" else GOOD,
            root / row.mask if row.mask else None,
        )
        for row in rows
    ]
    return check_some_there(dataset_of("visa", root, items, categories))


def _defect_names(root: Path, category: str) -> dict[str, str]:
    """Picture -> the names of its defects, where the data set's annotation is there."""
    path = root / category / "image_anno.csv"
    if not path.is_file():
        return {}
    rows = table_rows(read_text(path), str(path), ".csv", _ANNOTATION_COLUMNS, need=_ANNOTATION_COLUMNS)
    return {row["image"]: row["label"] or BAD for _, row in rows}
