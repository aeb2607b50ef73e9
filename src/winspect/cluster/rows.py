"""Rows of inputs: from what a manifest says to a table's columns; what cannot be used is collected and named."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from winspect.cluster.filesystems import SCHEMES, SECRET_URI, URI_START, Uri, is_uri, local_path, named
from winspect.datasets.tables import Separators
from winspect.errors import ClassNameError, SourceError
from winspect.methods.winclip.prompts import check_class_name

SHOWN = 5  # bad rows that an error names
_UNTIDY = re.compile(r"(^|/)\.{1,2}(/|$)|//|/$|\\")
_NO_TEXT = pa.scalar(None, pa.string())
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


def checked(raw: Raw, manifest: str, default_class: str, separators: Separators, problems: Problems) -> pa.Table:
    """Rows with paths, ids and classes as a run needs them (SCHEMA); none of them if one cannot be used."""
    path, given, category = (_stripped(values) for values in (raw.path, raw.id, raw.category))
    embedded = raw.row.is_valid()
    category = pc.fill_null(category, default_class).dictionary_encode()
    words = [_class_words(name) for name in category.dictionary.to_pylist()]
    unusable = pa.array([fault for _, fault in words], pa.string()).take(category.indices)
    is_address = pc.and_(pc.invert(embedded), pc.match_substring_regex(path, URI_START))
    known = pc.match_substring_regex(path, f"(?i)^({'|'.join(SCHEMES)})://")
    reasons = [
        (pc.and_(path.is_null(), pc.invert(embedded)), "no path" + " and no picture" * (raw.column is not None)),
        (pc.and_(given.is_null(), raw.has_id), "the id is empty"),
        (unusable.is_valid(), unusable),
        (pc.and_(is_address, pc.invert(known)), f"no such scheme here, use a path or {'://, '.join(SCHEMES)}://"),
        (pc.and_(is_address, pc.match_substring_regex(path, SECRET_URI)), "its URI holds a password: leave it out"),
    ]
    faults = pc.case_when(pc.make_struct(*(where for where, _ in reasons)), *(reason for _, reason in reasons))
    if bad := pc.indices_nonzero(faults.is_valid()).to_pylist():
        for row in bad[:SHOWN]:
            problems.add(manifest, raw.line[row].as_py(), faults[row].as_py())
        problems.count += len(bad[SHOWN:])
        return SCHEMA.empty_table()
    place = local_path(manifest)
    file = manifest if place is None else os.path.abspath(place)
    number = pc.binary_join_element_wise(pa.scalar(named(manifest)), raw.line.cast(pa.string()), ":")
    outside = pc.if_else(embedded, _NO_TEXT, path).to_pylist()
    columns = {
        "id": pc.coalesce(given, path, number),
        "path": pc.coalesce(pa.array(placed(outside, file, separators), pa.string()), path),
        "class": pa.array([word for word, _ in words], pa.string()).take(category.indices).dictionary_encode(),
        "file": repeated(file, embedded),
        "row": raw.row,
        "column": repeated(raw.column or "", embedded),
        "manifest": repeated(manifest, raw.line.is_valid()),
        "line": raw.line,
    }
    return pa.table(columns, schema=SCHEMA)


def _class_words(name: str) -> tuple[str, str | None]:
    """The words of a class name, and why it cannot be used."""
    try:
        return check_class_name(name), None
    except ClassNameError as error:
        return name, str(error)


def _stripped(values: pa.Array) -> pa.Array:
    """Without blanks around; what is empty then is null."""
    text = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(text, ""), _NO_TEXT, text)


def repeated(value: str, where: pa.Array) -> pa.DictionaryArray:
    """One text where a mask is true, at four bytes each; else null."""
    return pc.if_else(where, value, _NO_TEXT).dictionary_encode()


def placed(paths: Iterable[str | None], manifest: str, separators: Separators) -> list[str | None]:
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
                return os.path.abspath(separators.place(folder, name))
            return name if name.startswith("/") else folder + name

    return [name if name is None or is_uri(name) else place(name) for name in paths]
