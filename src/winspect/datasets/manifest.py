"""A manifest: a CSV or JSON-lines file that names the pictures.

Columns, or keys: ``image`` and ``label`` are needed; ``category`` (default: ``object``), ``split`` (``test``),
``defect_type`` (``defect``) and ``mask`` are not; others are ignored. Paths count from the manifest's folder, or are
absolute. Labels: normal, good, ok, 0; anomalous, anomaly, defective, defect, bad, ko, ng, nok, 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from winspect.datasets.items import GOOD, SPLITS, Dataset, Item, choose_categories
from winspect.datasets.tables import Row, csv_rows, jsonl_rows, read_text
from winspect.errors import SourceError

LABEL_WORDS = {
    **dict.fromkeys(("normal", "good", "ok", "0", "false"), "normal"),
    **dict.fromkeys(
        ("anomalous", "anomaly", "defective", "defect", "bad", "ko", "ng", "nok", "1", "true"), "anomalous"
    ),
}
DEFAULT_CATEGORY = "object"
DEFAULT_DEFECT = "defect"
_READERS = {".csv": csv_rows, ".jsonl": jsonl_rows, ".ndjson": jsonl_rows}
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
    rows = list(_READERS[path.suffix.lower()](read_text(path), str(path), need=_NEEDED))
    if not rows:
        raise SourceError(f"{path}: no rows: write one line per picture, with {', '.join(_NEEDED)}")
    unnamed = not any(row.get("category") for _, row in rows)
    default = categories[0] if unnamed and categories and len(categories) == 1 else DEFAULT_CATEGORY
    items = [_item(row, where, path.parent, default) for where, row in rows]
    _refuse_repeats(items, [where for where, _ in rows])
    exist = list(dict.fromkeys(item.category for item in items))
    chosen = choose_categories(exist, categories, path)
    kept = tuple(item for category in chosen for item in items if item.category == category)
    return Dataset("manifest", path, chosen, kept)


def _manifest_file(path: Path) -> Path:
    if path.is_dir():
        found = [path / f"manifest{ending}" for ending in _READERS if (path / f"manifest{ending}").is_file()]
        if len(found) != 1:
            names = " and ".join(file.name for file in found) or "no manifest.csv and no manifest.jsonl"
            raise SourceError(f"{path}: has {names}: name the manifest file")
        return found[0]
    if path.suffix.lower() not in _READERS:
        raise SourceError(f"{path}: got a file ending in {path.suffix!r}, need one of {', '.join(_READERS)}")
    return path


def _item(row: Row, where: str, folder: Path, default_category: str) -> Item:
    if not row["image"]:
        raise SourceError(f"{where}: no image: name the picture's file")
    label = LABEL_WORDS.get(row["label"].casefold())
    if label is None:
        raise SourceError(f"{where}: got label {row['label']!r}, need one of {', '.join(LABEL_WORDS)}")
    split = (row.get("split") or "test").casefold()
    if split not in SPLITS:
        raise SourceError(f"{where}: got split {row['split']!r}, need one of {', '.join(SPLITS)}")
    mask = folder / row["mask"] if row.get("mask") else None
    if mask is not None and label == "normal":
        raise SourceError(f"{where}: labelled normal, but has the mask {mask}: label it anomalous, or drop the mask")
    defect_type = GOOD if label == "normal" else row.get("defect_type") or DEFAULT_DEFECT
    return Item(folder / row["image"], row.get("category") or default_category, split, label, defect_type, mask)


def _refuse_repeats(items: Sequence[Item], places: Sequence[str]) -> None:
    first: dict[Path, str] = {}
    for item, where in zip(items, places, strict=True):
        before = first.setdefault(item.path, where)
        if before != where:
            raise SourceError(f"{where}: {item.path} is already in {before.rpartition(', ')[2]}: keep one of them")
