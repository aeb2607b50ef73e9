"""Data sets that come with JSON lists of their pictures: ``meta.json`` and Real-IAD. docs/data.md draws both.

``meta.json`` is the format of AnomalyCLIP (Zhou et al., ICLR 2024) and its successors, whatever data set they made it
from. Real-IAD: Wang et al., CVPR 2024; its splits are a file for each category.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from winspect.datasets.items import GOOD, SPLITS, Dataset, Item, choose_categories, label_of
from winspect.datasets.layout import check_root, subfolders
from winspect.datasets.layouts import DEFECT, meant
from winspect.datasets.tables import Separators, read_text
from winspect.errors import SourceError

META_FILE, REALIAD_JSONS = "meta.json", "realiad_jsons"


def open_meta(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open a data set by its ``meta.json``: split -> class -> pictures.

    Args:
        root: the folder with ``meta.json``, or the file itself; paths count from its folder.

    Raises:
        SourceError: no such file, or an entry that is wrong; names it.
    """
    file = root if root.is_file() else check_root(root) / META_FILE
    if not file.is_file():
        raise SourceError(f"{root}: no {META_FILE} here{_hint(root, 'meta')}")
    separators = Separators(str(file))
    items: list[Item] = []
    for split, where, classes in _splits(_read(file), str(file)):
        for category, rows in _mapping(classes, where).items():
            for place, row in _rows(rows, f"{where}, {category}"):
                label = label_of(str(row.get("anomaly", "")))
                if label is None:
                    raise SourceError(f"{place}: anomaly is {row.get('anomaly')!r}, need 0 or 1")
                path, mask = (_path(row, key, place, file.parent, separators) for key in ("img_path", "mask_path"))
                items.append(_item(path, mask, str(category), split, label, str(row.get("specie_name") or ""), place))
    separators.report()
    return _dataset("meta", root if root.is_dir() else file, items, categories)


def open_realiad(root: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open Real-IAD by its JSON splits.

    Args:
        root: the folder with ``realiad_jsons`` and the pictures (``realiad_1024``, the largest that is there), or a
            folder of splits in it, as ``realiad_jsons/realiad_jsons_sv``.

    Raises:
        SourceError: no splits or no pictures here, or an entry that is wrong; names it.
    """
    check_root(root)
    places = (root / REALIAD_JSONS / REALIAD_JSONS, root / REALIAD_JSONS, root, root.parent / REALIAD_JSONS)
    listed = ([file for file in sorted(place.glob("*.json")) if file.name != META_FILE] for place in places)
    files = next((found for found in listed if found), [])
    if not files:
        raise SourceError(f"{root}: no {REALIAD_JSONS}/<category>.json here{_hint(root, 'realiad')}")
    chosen = choose_categories([file.stem for file in files], categories, root)
    pictures = _realiad_pictures(root)
    items: list[Item] = []
    for file in files:
        if file.stem not in chosen:
            continue
        listing, separators = _read(file), Separators(str(file))
        meta = _mapping(listing.get("meta") or {}, f"{file}, meta")
        folder = pictures / str(meta.get("prefix") or file.stem)
        for split, where, rows in _splits(listing, str(file)):
            for place, row in _rows(rows, where):
                defect = str(row.get("anomaly_class") or "")
                if not defect:
                    raise SourceError(f"{place}: no anomaly_class: get the data set's splits again")
                label = "normal" if defect == meta.get("normal_class", "OK") else "anomalous"
                path, mask = (_path(row, key, place, folder, separators) for key in ("image_path", "mask_path"))
                items.append(_item(path, mask, file.stem, split, label, defect, place))
        separators.report()
    return _dataset("realiad", root, items, chosen)


def _realiad_pictures(root: Path) -> Path:
    """The folder of pictures, of the largest size, near the splits."""
    for place in (root, root.parent, root.parent.parent):
        sizes = {name: inner for inner in subfolders(place) if (name := inner.name.removeprefix("realiad_")).isdigit()}
        if sizes:
            return sizes[max(sizes, key=int)]
    return root


def _item(path: Path | None, mask: Path | None, category: str, split: str, label: str, defect: str, where: str) -> Item:
    if path is None:
        raise SourceError(f"{where}: no path of the picture: mend the entry")
    if label == "normal":
        return Item(path, category, split, label, GOOD)
    return Item(path, category, split, label, defect or DEFECT, mask)


def _dataset(kind: str, root: Path, items: Sequence[Item], categories: Sequence[str] | None) -> Dataset:
    chosen = choose_categories(list(dict.fromkeys(item.category for item in items)), categories, root)
    kept = tuple(item for category in chosen for item in items if item.category == category)
    if not any(os.path.lexists(item.path) for item in kept):
        example = f", as {kept[0].path}" if kept else ""
        raise SourceError(f"{root}: none of the {len(kept)} pictures that it lists is there{example}: check the root")
    return Dataset(kind, root, chosen, kept)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(read_text(file)), str(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{file}: not JSON ({error}): get the file again") from error


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


def _path(row: Mapping[str, Any], key: str, where: str, folder: Path, separators: Separators) -> Path | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise SourceError(f"{where}: {key} is {value!r}, need text")
    path = separators.place(folder, value) if value else None
    return None if path is None or os.path.isdir(path) else Path(path)  # some lists name a folder for no mask


def _hint(root: Path, kind: str) -> str:
    other = meant(root, kind) if root.is_dir() else None
    return "" if other is None else f"; this looks like --dataset {other}"
