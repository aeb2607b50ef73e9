"""SOURCE -> one checked table of all inputs of a batch, without any picture in it.

A row's number is its *ordinal*: which shard it goes to, and where in it, is fixed before anything runs.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from winspect.cluster.filesystems import Uri, is_uri, kind_of, list_folder, local_path, named
from winspect.cluster.manifests import MANIFESTS, read_manifest
from winspect.cluster.rows import SCHEMA, SHOWN, Problems, place_in, placed, repeated
from winspect.errors import SourceError
from winspect.inspector.base import DEFAULT_CLASS
from winspect.methods.winclip.prompts import check_class_name
from winspect.pictures.find import find_pictures, natural_key
from winspect.pictures.formats import FORMAT_NAMES, ending_of, is_hidden, is_picture

OVERLAYS = "_maps"  # the folder in a destination with pictures that are results
_HASHED = ("id", "path", "class", "file", "row")
COLUMNS = ("id", "path", "class", "file", "row", "column")
_HASHED_ROWS = 1 << 18
_LOOKED_AT = 1000  # repeated ids, of which an error names a few


@dataclass(frozen=True, eq=False)
class Inputs:
    """All inputs of a batch, in order.

    Attributes:
        table: a row per input: ``id`` (unique), ``path`` (absolute, or a URI; null only for a picture without one that
            is embedded in a Parquet file), ``class``, and for embedded pictures ``file``, ``row`` (from 0) and
            ``column`` (``image.bytes`` is a field of a struct); else null.
        classes: those of the table, each once, in order of appearance.
        sha256: of id, path, class, file and row of all rows, in order.
    """

    table: pa.Table
    classes: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self, span: range) -> list[dict[str, Any]]:
        """The inputs with these ordinals, by column; ``ordinal`` too."""
        rows = self.table.slice(span.start, len(span)).to_pylist()
        return [{"ordinal": ordinal, **row} for ordinal, row in zip(span, rows, strict=True)]


def find_inputs(sources: Sequence[str], class_name: str | None = None, *, leave_out: str | None = None) -> Inputs:
    """All inputs that files, folders, globs, manifests and URIs name.

    * Pictures: a file, a folder, a glob, as ``find_pictures`` takes them, or a URI of a file or a
      folder. Those named twice count once. Their id is the path as it was found.
    * Manifests (see ``winspect.cluster.manifests``): ``.csv``, ``.jsonl``, ``.ndjson`` or ``.parquet``, a glob of
      them, or a folder with Parquet files and no pictures. Their rows' ids are kept; a row without one is called as its
      path is written, or ``MANIFEST:ROW`` (from 0) if it has none.

    The order is that of the sources; all local pictures stand where the first of their sources does.

    Args:
        class_name: of inputs without one; the default is ``object``.
        leave_out: the destination, a path or URI: its overlays are no inputs, nor are Parquet files in it.

    Raises:
        SourceError: nothing found; a source or manifest that cannot be read; rows that cannot be used; an id twice.
        ClassNameError: ``class_name`` cannot be put into a prompt.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    sources = [os.fspath(source) for source in sources]
    if not sources or not all(sources):
        raise SourceError("got no files, folders, patterns, manifests or URIs: name at least one")
    default = check_class_name(DEFAULT_CLASS if class_name is None else class_name)
    if leave_out is not None:
        place = local_path(leave_out)
        leave_out = leave_out if place is None else os.path.abspath(place)
    kinds = [_expanded(local_path(source) or source, leave_out) for source in sources]
    patterns = [name for kind, names in kinds if kind == "local" for name in names]
    problems = Problems()
    tables: list[pa.Table] = []
    seen: set[str] = set()
    for kind, names in kinds:
        if kind == "local":
            found = find_pictures(patterns) if patterns else []  # all at once: a picture named twice counts once
            tables.append(_pictures([str(path) for path in found if not _is_overlay(str(path), leave_out)], default))
            patterns = []
            continue
        new = [name for name in dict.fromkeys(names) if name not in seen]
        seen.update(new)
        if kind == "uris":
            tables.append(_pictures(new, default))
        else:
            tables.extend(read_manifest(name, default_class=default, problems=problems) for name in new)
    problems.refuse()
    table = pa.concat_tables([part for part in tables if len(part)] or [SCHEMA.empty_table()]).unify_dictionaries()
    if not len(table):
        raise SourceError(f"no pictures in {', '.join(named(source) for source in sources)}: check what they hold")
    _refuse_repeats(table)
    classes = tuple(table.column("class").unique().to_pylist())
    table = table.select(COLUMNS)
    return Inputs(table, classes, _sha256(table))


def _expanded(source: str, leave_out: str | None) -> tuple[str, list[str]]:
    """What a source is, ``local`` (pictures), ``uris`` or ``manifests``, and the names it stands for."""
    if is_uri(source):
        return _expanded_uri(source, leave_out)
    ending = os.path.splitext(source)[1].lower()
    if os.path.isdir(source):
        if not _holds_parquet_only(source, leave_out):
            return "local", [source]
        return "manifests", _parquet_below(source, leave_out)
    if ending in MANIFESTS:
        if os.path.lexists(source):
            return "manifests", [source]
        return "manifests", [file for file in _search(source, MANIFESTS) if not _is_in(file, leave_out)]
    if glob.has_magic(source) and not os.path.lexists(source) and "**" not in source:
        hits = sorted(glob.glob(source), key=natural_key)
        if hits and all(_is_parquet(hit, leave_out) for hit in hits):
            return "manifests", [file for hit in hits for file in _parquet_below(hit, leave_out)]
    return "local", [source]


def _search(pattern: str, endings: Sequence[str]) -> list[str]:
    try:
        return [str(path) for path in find_pictures(pattern, extensions=endings)]
    except SourceError as error:
        raise SourceError(str(error).replace("matches no pictures", "matches no manifests")) from error


def _is_parquet(path: str, leave_out: str | None) -> bool:
    return _holds_parquet_only(path, leave_out) if os.path.isdir(path) else path.lower().endswith(".parquet")


def _holds_parquet_only(folder: str, leave_out: str | None) -> bool:
    """Whether there are Parquet files and no pictures; stops at the first picture."""
    seen = {os.path.realpath(place) for place in (leave_out, os.path.join(leave_out, OVERLAYS))} if leave_out else set()
    found, stack = False, [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        real = os.path.realpath(entry.path)
                        stack.extend([] if real in seen else [entry.path])
                        seen.add(real)
                    elif is_picture(entry.path):
                        return False
                    found = found or ending_of(entry.name) == ".parquet"
        except OSError:  # searching it for pictures says what is wrong
            return False
    return found


def _parquet_below(place: str, leave_out: str | None) -> list[str]:
    """Parquet files in a folder; names with ``_`` or ``.`` in front are nobody's data, as for every reader of them."""
    if not os.path.isdir(place):
        return [place]
    below = {file: Path(file).relative_to(place).parts for file in _search(place, (".parquet",))}
    plain = [file for file, parts in below.items() if not any(part.startswith("_") for part in parts)]
    return [file for file in plain if not _is_in(file, leave_out)]


def _is_overlay(path: str, leave_out: str | None) -> bool:
    """Whether a picture is an overlay that a batch with this destination wrote."""
    return OVERLAYS in path and leave_out is not None and _is_in(path, os.path.join(leave_out, OVERLAYS))


def _is_in(file: str, folder: str | None) -> bool:
    if folder is None or is_uri(folder):
        return False
    return _is_below(os.path.dirname(os.path.abspath(file)), folder)


@lru_cache(maxsize=4096)
def _is_below(folder: str, top: str) -> bool:
    return os.path.join(os.path.realpath(folder), "").startswith(os.path.join(os.path.realpath(top), ""))


def _expanded_uri(uri: str, leave_out: str | None) -> tuple[str, list[str]]:
    kind = kind_of(uri)
    if kind == fs.FileType.File:
        return ("manifests" if named(uri).lower().endswith(MANIFESTS) else "uris"), [uri]
    parts = Uri.split(uri)
    if kind == fs.FileType.NotFound:
        if re.search(r"[*\[]", parts.path):
            raise SourceError(f"{named(uri)!r}: a pattern in a URI is not searched: name the folder, or a manifest")
        raise SourceError(f"{named(uri)!r}: no such file or folder: check the path")
    destination = _destination_key(parts, leave_out)
    found = list_folder(uri, (".parquet",))
    pictures = [key for key in found if not key.lower().endswith(".parquet")]
    kept = [key for key in pictures if not (destination and key.startswith(f"{destination}{OVERLAYS}/"))]
    if kept:
        return "uris", [parts.at(key) for key in kept]
    below = len(parts.path)
    files = [key for key in found if key.lower().endswith(".parquet") and "/_" not in f"/{key[below:]}"]
    files = [key for key in files if not (destination and key.startswith(destination))]
    if not files:
        raise SourceError(f"no pictures in {named(uri)}: looked for {FORMAT_NAMES}")
    return "manifests", [parts.at(key) for key in files]


def _destination_key(source: Uri, leave_out: str | None) -> str | None:
    """What names in the source's bucket start with if they are the destination's."""
    if leave_out is None or not is_uri(leave_out):
        return None
    destination = Uri.split(leave_out)
    return f"{destination.path}/" if destination.head == source.head and destination.path else None


def _pictures(names: Sequence[str], default_class: str) -> pa.Table:
    """Pictures that a search found; all of the same class."""
    try:
        paths = pa.array(placed(names, os.path.join(os.getcwd(), "_")), pa.string())  # as if a manifest here named them
        ids = pa.array([name.partition("?")[0] if is_uri(name) else name for name in names], pa.string())
    except UnicodeEncodeError as error:
        raise SourceError(f"{error.object!r}: a name that is not UTF-8, which no table holds: rename it") from error
    others = [pa.nulls(len(names), SCHEMA.field(name).type) for name in SCHEMA.names[3:]]
    return pa.table([ids, paths, repeated(default_class, len(names)), *others], schema=SCHEMA)


def _refuse_repeats(table: pa.Table) -> None:
    """Raise ``SourceError`` if an id stands in two rows."""
    # Eight bytes for each id, whatever its length; equal hashes are looked at again.
    chunks = table.column("id").chunks
    hashes = np.concatenate([np.fromiter(map(hash, chunk.to_pylist()), np.int64, len(chunk)) for chunk in chunks])
    order = np.argsort(hashes, kind="stable")
    again = np.append(False, hashes[order][1:] == hashes[order][:-1])
    firsts = np.flatnonzero(again[1:] & ~again[:-1])
    repeats: list[str] = []
    for first, second in sorted(zip(order[firsts].tolist(), order[firsts + 1].tolist(), strict=True)):
        name = table.column("id")[first].as_py()
        if len(repeats) == SHOWN:
            break
        if name == table.column("id")[second].as_py():
            repeats.append(f"{name!r} ({_place(table, first)} and {_place(table, second)})")
    if repeats:
        count = int(again.sum())
        many = f"{count} rows have ids that came before" if count > 1 else "1 row has an id that came before"
        more = f"; and {len(firsts) - SHOWN} more ids" if len(firsts) > SHOWN else ""
        fix = "name each picture once, or give each an own id in a column id"
        raise SourceError(f"{many}, {fix}: {'; '.join(repeats)}{more}")


def _place(table: pa.Table, row: int) -> str:
    cells = table.slice(row, 1).to_pylist()[0]
    return named(cells["path"]) if cells["manifest"] is None else place_in(cells["manifest"], cells["line"])


def _sha256(table: pa.Table) -> str:
    """Of all rows, whatever the chunks they lie in: for each column a hash of its lengths, and one of its bytes."""
    total = hashlib.sha256()
    for name in _HASHED:
        lengths, content = hashlib.sha256(), hashlib.sha256()
        for start in range(0, len(table), _HASHED_ROWS):
            for chunk in table.column(name).slice(start, _HASHED_ROWS).cast(pa.string()).chunks:
                lengths.update(pc.fill_null(pc.binary_length(chunk), -1).to_numpy())
                content.update(b"".join(pc.fill_null(chunk, "").cast(pa.binary()).to_pylist()))
        total.update(lengths.digest() + content.digest())
    return total.hexdigest()
