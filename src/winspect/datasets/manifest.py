"""A manifest: a CSV or JSON-lines file that names the pictures; see :mod:`winspect.datasets.tables`.

Columns, or keys: ``image`` (or ``path``, ``file``) and ``label`` are needed; ``category`` (default: ``object``),
``split`` (``test``), ``defect_type`` (``defect``) and ``mask`` are not; others are ignored. Paths count
from the manifest's folder, or are absolute. Labels: see :func:`winspect.datasets.items.label_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from winspect.datasets.items import BAD_WORDS, GOOD, GOOD_WORDS, SPLITS, Dataset, Item, choose_categories, label_of
from winspect.datasets.tables import TEXT_TABLES, Row, Separators, read_text, table_rows
from winspect.errors import SourceError

DEFAULT_CATEGORY = "object"
DEFAULT_DEFECT = "defect"
_COLUMNS = {
    "image": ("image", "path", "file"),
    "label": ("label",),
    "category": ("category",),
    "split": ("split",),
    "defect_type": ("defect_type",),
    "mask": ("mask",),
}
_NEEDED = ("image", "label")


def open_manifest(path: Path, categories: Sequence[str] | None = None) -> Dataset:
    """Open a manifest.

    Pictures that it names but that are not there are kept: each fails under its own name when it is read.

    Args:
        path: a ``.csv``, ``.jsonl`` or ``.ndjson`` file, or a folder that holds ``manifest.csv`` or ``.jsonl``.
        categories: a manifest without categories may be given one name, which then is its category.

    Raises:
        SourceError: unreadable; a line that is wrong (names it); a category that does not exist; or no row.
    """
    path = _manifest_file(path)
    rows = list(table_rows(read_text(path), str(path), path.suffix, _COLUMNS, need=_NEEDED))
    if not rows:
        raise SourceError(f"{path}: no rows: write one line per picture, with {', '.join(_NEEDED)}")
    unnamed = not any(row["category"] for _, row in rows)
    default = categories[0] if unnamed and categories and len(categories) == 1 else DEFAULT_CATEGORY
    separators = Separators(str(path))
    items = [_item(row, where, partial(separators.place, path.parent), default) for where, row in rows]
    separators.report()
    _refuse_repeats(items, [where for where, _ in rows])
    exist = list(dict.fromkeys(item.category for item in items))
    chosen = choose_categories(exist, categories, path)
    kept = tuple(item for category in chosen for item in items if item.category == category)
    return Dataset("manifest", path, chosen, kept)


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


def _item(row: Row, where: str, place: Callable[[str], str], default_category: str) -> Item:
    if not row["image"]:
        raise SourceError(f"{where}: no image: name the picture's file")
    label = label_of(row["label"])
    if label is None:
        words = ", ".join((*GOOD_WORDS, "0", *BAD_WORDS, "1"))
        raise SourceError(f"{where}: got label {row['label']!r}, need one of {words}")
    split = (row["split"] or "test").casefold()
    if split not in SPLITS:
        raise SourceError(f"{where}: got split {row['split']!r}, need one of {', '.join(SPLITS)}")
    mask = Path(place(row["mask"])) if row["mask"] else None
    if mask is not None and label == "normal":
        raise SourceError(f"{where}: labelled normal, but has the mask {mask}: label it anomalous, or drop the mask")
    defect_type = GOOD if label == "normal" else row["defect_type"] or DEFAULT_DEFECT
    return Item(Path(place(row["image"])), row["category"] or default_category, split, label, defect_type, mask)


def _refuse_repeats(items: Sequence[Item], places: Sequence[str]) -> None:
    first: dict[Path, str] = {}
    for item, where in zip(items, places, strict=True):
        before = first.setdefault(item.path, where)
        if before != where:
            raise SourceError(f"{where}: {item.path} is already in {before.rpartition(', ')[2]}: keep one of them")
