"""Rows of inputs: from what a manifest says to a table's columns; what cannot be used is collected and named."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winspect.cluster.filesystems import SCHEMES, SECRET_URI, URI_START, Uri, is_uri, local_path, named
from winspect.datasets.tables import Separators
from winspect.errors import ClassNameError, SourceError
from winspect.methods.winclip.prompts import check_class_name

BATCH_ROWS = 1 << 16
SHOWN = 5  # bad rows that an error names
_UNTIDY = re.compile(r"(^|/)\.{1,2}(/|$)|//|/$")
_NAMED = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("class", _NAMED),
        ("file", _NAMED),
        ("row", pa.int64()),
        ("column", _NAMED),
        ("manifest", _NAMED),  # where an error would be: this and the line, or the row in a Parquet file
        ("line", pa.int64()),
    ]
)


@dataclass
class Problems:
    """Rows that cannot be used: how many, and the first few."""

    count: int = 0
    examples: list[tuple[str, int, str]] = field(default_factory=list)

    def add(self, manifest: str, line: int, what: str) -> None:
        self.count += 1
        if len(self.examples) < SHOWN:
            self.examples.append((manifest, line, what))

    def refuse(self) -> None:
        """Raise ``SourceError`` if there are any."""
        if self.count:
            rows = "1 row" if self.count == 1 else f"{self.count} rows"
            more = "" if self.count == len(self.examples) else f"; and {self.count - len(self.examples)} more"
            ordered = sorted(self.examples, key=lambda example: example[:2])
            examples = "; ".join(f"{place_in(manifest, line)}: {what}" for manifest, line, what in ordered)
            raise SourceError(f"{rows} cannot be used, mend or remove them: {examples}{more}")


def place_in(manifest: str, line: int) -> str:
    """Where a row is, for people: lines count from 1, rows of Parquet files from 0."""
    return f"{named(manifest)}, {'row' if manifest.lower().endswith('.parquet') else 'line'} {line}"


@dataclass(frozen=True)
class Raw:
    """Some rows as they are written; ``row`` only where the row itself holds the picture's bytes."""

    id: pa.Array
    path: pa.Array
    category: pa.Array
    row: pa.Array
    line: pa.Array
    has_id: bool
    column: str | None = None  # that holds the bytes


def checked(raw: Raw, manifest: str, default_class: str, problems: Problems) -> pa.Table:
    """Rows with paths, ids and classes as a run needs them (SCHEMA); none of them if one cannot be used."""
    path, given, category = (_stripped(values) for values in (raw.path, raw.id, raw.category))
    embedded = raw.row.is_valid()
    category = pc.fill_null(category, default_class).dictionary_encode()
    words, faults = _class_words(category.dictionary.to_pylist())
    faulty = pc.fill_null(pa.array(faults, pa.string()).take(category.indices), "")
    is_address = pc.and_(pc.invert(embedded), pc.fill_null(pc.match_substring_regex(path, URI_START), False))
    known = pc.match_substring_regex(path, f"(?i)^({'|'.join(SCHEMES)})://")
    reasons = [
        (pc.and_(path.is_null(), pc.invert(embedded)), "no path" + " and no picture" * (raw.column is not None)),
        (pc.and_(given.is_null(), pa.scalar(raw.has_id)), "the id is empty"),
        (pc.not_equal(faulty, ""), None),
        (pc.and_(is_address, pc.invert(known)), f"no such scheme here, use a path or {'://, '.join(SCHEMES)}://"),
        (pc.and_(is_address, pc.match_substring_regex(path, SECRET_URI)), "its URI holds a password: leave it out"),
    ]
    if _any_bad(reasons, faulty, manifest, raw.line, problems):
        return SCHEMA.empty_table()
    count, place = len(raw.line), local_path(manifest)
    file = manifest if place is None else os.path.abspath(place)
    number = pc.binary_join_element_wise(pa.scalar(named(manifest)), raw.line.cast(pa.string()), ":")
    constants = {"file": (file, embedded), "column": (raw.column or "", embedded), "manifest": (manifest, None)}
    columns = {
        "id": pc.coalesce(given, path, number),
        "path": pc.if_else(embedded, path, pa.array(placed(path.to_pylist(), file), pa.string())),
        "class": pa.array(words, pa.string()).take(category.indices).dictionary_encode(),
        "row": raw.row,
        "line": raw.line,
        **{name: repeated(value, count, where) for name, (value, where) in constants.items()},
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _any_bad(
    reasons: Sequence[tuple[pa.Array, str | None]],
    faulty: pa.Array,
    manifest: str,
    lines: pa.Array,
    problems: Problems,
) -> bool:
    masks = [np.asarray(pc.fill_null(mask, False)) for mask, _ in reasons]
    bad = np.flatnonzero(np.any(masks, axis=0))
    for row in bad[:SHOWN]:
        what = next(text for mask, (_, text) in zip(masks, reasons, strict=True) if mask[row])
        problems.add(manifest, lines[row].as_py(), what or faulty[row].as_py())
    problems.count += len(bad[SHOWN:])
    return bool(len(bad))


def _class_words(names: Sequence[str]) -> tuple[list[str], list[str | None]]:
    """For each class name: its words, and why it cannot be used."""
    words: list[str] = []
    faults: list[str | None] = []
    for name in names:
        try:
            words.append(check_class_name(name))
            faults.append(None)
        except ClassNameError as error:
            words.append(name)
            faults.append(str(error))
    return words, faults


def _stripped(values: pa.Array) -> pa.Array:
    """Without blanks around; what is empty then is null."""
    text = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def repeated(value: str, count: int, where: pa.Array | None = None) -> pa.DictionaryArray:
    """One text ``count`` times (null where ``where`` is false), at four bytes each."""
    indices = pa.array(np.zeros(count, np.int32), mask=None if where is None else ~np.asarray(where))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], pa.string()))


def placed(paths: Iterable[str | None], manifest: str) -> list[str | None]:
    """Names as a manifest has them -> absolute paths (not resolved) or URIs. URIs among them stay as they are."""
    if is_uri(manifest):
        uri = Uri.split(manifest)
        folder = posixpath.dirname(uri.path)

        def place(name: str) -> str:
            return name if name.startswith("/") else uri.at(posixpath.normpath(posixpath.join(folder, name)))
    else:
        folder = os.path.join(os.path.dirname(os.path.abspath(manifest)), "")

        def place(name: str) -> str:
            if _UNTIDY.search(name) or os.sep != "/":
                return os.path.abspath(os.path.join(folder, name))
            return name if name.startswith("/") else folder + name

    return [name if name is None or is_uri(name) else place(name) for name in paths]


def with_slashes(table: pa.Table, manifest: str) -> pa.Table:
    r"""Rows (SCHEMA) with ``sub/a.png`` for ``sub\a.png`` where only that is there; for manifests on this machine."""
    place = local_path(manifest)
    if place is None or os.sep != "/":
        return table
    separators = Separators(manifest)
    folder = os.path.join(os.path.dirname(os.path.abspath(place)), "")
    column = SCHEMA.get_field_index("path")
    paths = table.column(column).combine_chunks()
    odd = pc.fill_null(pc.and_(pc.match_substring(paths, "\\"), table.column("row").combine_chunks().is_null()), False)
    names = [separators.place(folder, path.removeprefix(folder)) for path in paths.filter(odd).to_pylist()]
    separators.report()
    changed = pa.array(map(os.path.normpath, names), pa.string())
    paths = pc.replace_with_mask(paths, odd, changed) if names else paths
    return table.set_column(column, SCHEMA.field(column), paths)
