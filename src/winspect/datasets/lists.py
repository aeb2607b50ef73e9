"""Data sets that come with a list of their pictures: manifests, ``meta.json`` and Real-IAD. docs/data.md draws them.

A manifest is a table, see :mod:`winspect.datasets.tables`; labels: see :func:`winspect.datasets.items.label_of`.

``meta.json`` is the format of AnomalyCLIP (Zhou et al., ICLR 2024) and its successors, whatever data set they made it
from. Real-IAD: Wang et al., CVPR 2024; its splits are a file for each category.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from winspect.datasets.folders import check_root, subfolders
from winspect.datasets.items import (
    BAD_WORDS,
    GOOD_WORDS,
    SPLITS,
    Dataset,
    Item,
    check_some_there,
    choose_categories,
    dataset_of,
    item_of,
    label_of,
)
from winspect.datasets.layouts import hint
from winspect.datasets.tables import TEXT_TABLES, Row, Separators, read_text, table_rows
from winspect.errors import SourceError

DEFAULT_CATEGORY = "object"
META_FILE, REALIAD_JSONS = "meta.json", "realiad_jsons"
_COLUMNS = {
    "image": ("image", "path", "file"),
    **{name: (name,) for name in ("label", "category", "split", "defect_type", "mask")},
}
_NEEDED = ("image", "label")


def open_manifest(path: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open a manifest; a line that is wrong is named in the error.

    Pictures that it names but that are not there are kept: each fails under its own name when it is read.

    Args:
        path: a ``.csv``, ``.jsonl`` or ``.ndjson`` file, or a folder that holds ``manifest.csv`` or ``.jsonl``.
        categories: a manifest without categories may be given one name, which then is its category.
    """
    path = _manifest_file(path)
    rows = list(table_rows(read_text(path), str(path), path.suffix, _COLUMNS, need=_NEEDED))
    if not rows:
        raise SourceError(f"{path}: no rows: write one line per picture, with {', '.join(_NEEDED)}")
    unnamed = not any(row["category"] for _, row in rows)
    default = categories[0] if unnamed and categories and len(categories) == 1 else DEFAULT_CATEGORY
    separators, items = Separators(str(path)), dict[Path, tuple[str, Item]]()
    for where, row in rows:
        item = _manifest_item(row, where, path.parent, separators, default)
        before, _ = items.setdefault(item.path, (where, item))
        if before != where:
            raise SourceError(f"{where}: {item.path} is already in {before.rpartition(', ')[2]}: keep one of them")
    separators.report()
    return dataset_of("manifest", path, [item for _, item in items.values()], categories)


def _manifest_file(path: Path) -> Path:
    if path.is_dir():
        found = [path / f"manifest{ending}" for ending in TEXT_TABLES if (path / f"manifest{ending}").is_file()]
        if len(found) != 1:
            names = " and ".join(file.name for file in found) or "no manifest.csv and no manifest.jsonl"
            raise SourceError(f"{path}: has {names}: name the manifest file")
        return found[0]
    if path.suffix.lower() not in TEXT_TABLES:
        raise SourceError(f"{path}: got a file ending in {path.suffix!r}, need one of {', '.join(TEXT_TABLES)}")
    return path


def _manifest_item(row: Row, where: str, folder: Path, separators: Separators, default_category: str) -> Item:
    if not row["image"]:
        raise SourceError(f"{where}: no image: name the picture's file")
    label = label_of(row["label"])
    if label is None:
        words = ", ".join((*GOOD_WORDS, "0", *BAD_WORDS, "1"))
        raise SourceError(f"{where}: got label {row['label']!r}, need one of {words}")
    split = (row["split"] or "test").casefold()
    if split not in SPLITS:
        raise SourceError(f"{where}: got split {row['split']!r}, need one of {', '.join(SPLITS)}")
    path, mask = (separators.place(folder, row[column]) if row[column] else None for column in ("image", "mask"))
    if mask is not None and label == "normal":
        raise SourceError(f"{where}: labelled normal, but has the mask {mask}: label it anomalous, or drop the mask")
    return item_of(str(path), row["category"] or default_category, split, label, row["defect_type"], mask)


def open_meta(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open a data set by its ``meta.json`` (split -> class -> pictures), or the folder that holds one; an entry that
    is wrong is named in the error. Paths count from the file's folder."""
    file = root if root.is_file() else check_root(root) / META_FILE
    if not file.is_file():
        raise SourceError(f"{root}: no {META_FILE} here{hint(root, 'meta')}")
    separators = Separators(str(file))
    items = []
    for split, where, classes in _splits(_read(file), str(file)):
        for category, rows in _mapping(classes, where).items():
            for place, row in _rows(rows, f"{where}, {category}"):
                label = label_of(str(row.get("anomaly", "")))
                if label is None:
                    raise SourceError(f"{place}: anomaly is {row.get('anomaly')!r}, need 0 or 1")
                path, mask = _paths(row, ("img_path", "mask_path"), place, file.parent, separators)
                items.append(item_of(path, category, split, label, str(row.get("specie_name") or ""), mask))
    separators.report()
    return check_some_there(dataset_of("meta", root, items, categories))


def open_realiad(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open Real-IAD by its JSON splits; an entry that is wrong is named in the error.

    Args:
        root: the folder with ``realiad_jsons`` and the pictures (``realiad_1024``, the largest that is there), or a
            folder of splits in it, as ``realiad_jsons/realiad_jsons_sv``.
    """
    check_root(root)
    places = (root / REALIAD_JSONS / REALIAD_JSONS, root / REALIAD_JSONS, root, root.parent / REALIAD_JSONS)
    listed = ([file for file in sorted(place.glob("*.json")) if file.name != META_FILE] for place in places)
    files = next((found for found in listed if found), [])
    if not files:
        raise SourceError(f"{root}: no {REALIAD_JSONS}/<category>.json here{hint(root, 'realiad')}")
    chosen = choose_categories([file.stem for file in files], categories, root)
    pictures = _realiad_pictures(root)
    items = [item for file in files if file.stem in chosen for item in _realiad_items(file, pictures)]
    return check_some_there(dataset_of("realiad", root, items, chosen))


def _realiad_items(file: Path, pictures: Path) -> Iterator[Item]:
    """The pictures of one category."""
    listing, separators = _read(file), Separators(str(file))
    meta = _mapping(listing.get("meta") or {}, f"{file}, meta")
    folder = pictures / str(meta.get("prefix") or file.stem)
    for split, where, rows in _splits(listing, str(file)):
        for place, row in _rows(rows, where):
            defect = str(row.get("anomaly_class") or "")
            if not defect:
                raise SourceError(f"{place}: no anomaly_class: get the data set's splits again")
            label = "normal" if defect == meta.get("normal_class", "OK") else "anomalous"
            path, mask = _paths(row, ("image_path", "mask_path"), place, folder, separators)
            yield item_of(path, file.stem, split, label, defect, mask)
    separators.report()


def _realiad_pictures(root: Path) -> Path:
    """The folder of pictures, of the largest size, near the splits."""
    for place in (root, root.parent, root.parent.parent):
        sizes = {name: inner for inner in subfolders(place) if (name := inner.name.removeprefix("realiad_")).isdigit()}
        if sizes:
            return sizes[max(sizes, key=int)]
    return root


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{file}: not JSON ({error}): get the file again") from error
    return _mapping(document, str(file))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SourceError(f"{where}: got {type(value).__name__}, need an object")
    return value


def _splits(listing: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, Any]]:
    """Split, place and value of the two splits, whatever their case."""
    found = [(key.casefold(), f"{where}, {key}", value) for key, value in listing.items() if key.casefold() in SPLITS]
    if not found:
        raise SourceError(f"{where}: got {', '.join(listing) or 'nothing'}, need {' and '.join(SPLITS)}")
    yield from found


def _rows(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, list):
        raise SourceError(f"{where}: got {type(value).__name__}, need a list of pictures")
    for number, row in enumerate(value):
        yield f"{where}, entry {number}", _mapping(row, f"{where}, entry {number}")


def _paths(
    row: Mapping[str, Any], keys: tuple[str, str], where: str, folder: Path, separators: Separators
) -> tuple[str, str | None]:
    """A picture and its mask."""
    for key in keys:
        if not isinstance(row.get(key), str | None):
            raise SourceError(f"{where}: {key} is {row[key]!r}, need text")
    picture, mask = (separators.place(folder, row[key]) if row.get(key) else None for key in keys)
    if picture is None or os.path.isdir(picture):
        raise SourceError(f"{where}: no path of the picture: mend the entry")
    return picture, None if mask is None or os.path.isdir(mask) else mask  # some lists name a folder for no mask
