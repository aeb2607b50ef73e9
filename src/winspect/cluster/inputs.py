"""SOURCE -> one checked table of all inputs of a batch, without any picture in it.

A row's number is its *ordinal*: which shard it goes to, and where in it, is fixed before anything runs.
"""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from winspect.cluster.filesystems import Uri, is_uri, kind_of, list_folder, local_path, named
from winspect.cluster.manifests import MANIFESTS, read_manifest
from winspect.cluster.rows import SCHEMA, SHOWN, Problems, place_in, placed, repeated
from winspect.datasets.tables import Separators
from winspect.errors import SourceError
from winspect.inspector.base import DEFAULT_CLASS
from winspect.methods.winclip.prompts import check_class_name
from winspect.pictures.find import find_pictures, natural_key
from winspect.pictures.formats import FORMAT_NAMES, ending_of, is_hidden, is_picture

OVERLAYS = "_maps"  # the folder in a destination with pictures that are results
_HASHED = ("id", "path", "class", "file", "row")
COLUMNS = ("id", "path", "class", "file", "row", "column")
_HASHED_ROWS = 1 << 18

Place = str | os.PathLike[str]


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


def find_inputs(
    sources: Place | Sequence[Place], class_name: str | None = None, *, leave_out: str | None = None
) -> Inputs:
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
    given = [os.fspath(source) for source in ([sources] if isinstance(sources, str | os.PathLike) else sources)]
    if not given or not all(given):
        raise SourceError("got no files, folders, patterns, manifests or URIs: name at least one")
    default = check_class_name(DEFAULT_CLASS if class_name is None else class_name)
    if leave_out is not None:
        place = local_path(leave_out)
        leave_out = leave_out if place is None else os.path.abspath(place)
    kinds = [_expanded(local_path(source) or source, leave_out) for source in given]
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
        raise SourceError(f"no pictures in {', '.join(named(source) for source in given)}: check what they hold")
    _refuse_repeats(table)
    classes = tuple(table.column("class").unique().to_pylist())
    table = table.select(COLUMNS)
    return Inputs(table, classes, _sha256(table))


def _expanded(source: str, leave_out: str | None) -> tuple[str, list[str]]:
    """What a source is, ``local`` (pictures), ``uris`` or ``manifests``, and the names it stands for."""
    if is_uri(source):
        return _expanded_uri(source, leave_out)
    if os.path.isdir(source):
        is_local = not _holds_parquet_only(source, leave_out)
        return ("local", [source]) if is_local else ("manifests", _parquet_below(source, leave_out))
    if ending_of(source) in MANIFESTS:
        is_name = os.path.lexists(source)
        files = [source] if is_name else [file for file in _search(source, MANIFESTS) if not _is_in(file, leave_out)]
        return "manifests", files
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
    return _holds_parquet_only(path, leave_out) if os.path.isdir(path) else ending_of(path) == ".parquet"


def _holds_parquet_only(folder: str, leave_out: str | None) -> bool:
    """Whether there are Parquet files and no pictures; stops at the first picture."""
    seen = {os.path.realpath(place) for place in (leave_out, os.path.join(leave_out, OVERLAYS))} if leave_out else set()
    found = False
    for top, folders, names in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(top, name)) for name in folders if not is_hidden(name)}
        folders[:] = [name for name, place in real.items() if place not in seen]
        seen.update(real.values())
        visible = [os.path.join(top, name) for name in names if not is_hidden(name)]
        if any(map(is_picture, visible)):
            return False
        found = found or any(ending_of(name) == ".parquet" for name in visible)
    return found


def _parquet_below(place: str, leave_out: str | None) -> list[str]:
    """Parquet files in a folder; names with ``_`` or ``.`` in front are nobody's data, as for every reader of them."""
    if not os.path.isdir(place):
        return [place]
    return [
        file
        for file in _search(place, (".parquet",))
        if "/_" not in f"/{Path(file).relative_to(place).as_posix()}" and not _is_in(file, leave_out)
    ]


def _is_overlay(path: str, leave_out: str | None) -> bool:
    """Whether a picture is an overlay that a batch with this destination wrote."""
    return OVERLAYS in path and _is_in(path, leave_out, OVERLAYS)


def _is_in(file: str, folder: str | None, below: str = "") -> bool:
    """Whether a file, by its path or URI, lies in a folder, or in one below it; links are followed."""
    if folder is None or is_uri(file) != is_uri(folder):
        return False
    if is_uri(file):
        uri, top = Uri.split(file), Uri.split(folder)
        return bool(top.path) and uri.head == top.head and uri.path.startswith(posixpath.join(top.path, below, ""))
    return _is_below(os.path.dirname(os.path.abspath(file)), os.path.join(folder, below))


@lru_cache(maxsize=4096)
def _is_below(folder: str, top: str) -> bool:
    return os.path.join(os.path.realpath(folder), "").startswith(os.path.join(os.path.realpath(top), ""))


def _expanded_uri(uri: str, leave_out: str | None) -> tuple[str, list[str]]:
    kind = kind_of(uri)
    if kind == fs.FileType.File:
        return ("manifests" if ending_of(named(uri)) in MANIFESTS else "uris"), [uri]
    parts = Uri.split(uri)
    if kind == fs.FileType.NotFound:
        if re.search(r"[*\[]", parts.path):
            raise SourceError(f"{named(uri)!r}: a pattern in a URI is not searched: name the folder, or a manifest")
        raise SourceError(f"{named(uri)!r}: no such file or folder: check the path")
    found = list_folder(uri, (".parquet",))
    pictures = [parts.at(key) for key in found if ending_of(key) != ".parquet"]
    if pictures := [place for place in pictures if not _is_overlay(place, leave_out)]:
        return "uris", pictures
    plain = [key for key in found if ending_of(key) == ".parquet" and "/_" not in f"/{key[len(parts.path) :]}"]
    if files := [place for place in map(parts.at, plain) if not _is_in(place, leave_out)]:
        return "manifests", files
    raise SourceError(f"no pictures in {named(uri)}: looked for {FORMAT_NAMES}")


def _pictures(names: Sequence[str], default_class: str) -> pa.Table:
    """Pictures that a search found; all of the same class."""
    here = os.path.join(os.getcwd(), "_")  # as if a manifest here named them
    try:
        paths = pa.array(placed(names, here, Separators(here)), pa.string())
        ids = pa.array([name.partition("?")[0] if is_uri(name) else name for name in names], pa.string())
    except UnicodeEncodeError as error:
        raise SourceError(f"{error.object!r}: a name that is not UTF-8, which no table holds: rename it") from error
    others = [pa.nulls(len(names), SCHEMA.field(name).type) for name in SCHEMA.names[3:]]
    return pa.table([ids, paths, repeated(default_class, ids.is_valid()), *others], schema=SCHEMA)


def _refuse_repeats(table: pa.Table) -> None:
    """Raise ``SourceError`` if an id stands in two rows."""
    # Eight bytes for each id, whatever its length; equal hashes are looked at again.
    ids = table.column("id")
    hashes = np.concatenate([np.fromiter(map(hash, chunk.to_pylist()), np.int64, len(chunk)) for chunk in ids.chunks])
    ordered = np.sort(hashes)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(np.isin(hashes, again)).tolist() if len(again) else ():
        rows.setdefault(ids[row].as_py(), []).append(row)
    repeats = {name: places for name, places in rows.items() if len(places) > 1}
    if repeats:
        shown = [
            f"{name!r} ({_place(table, first)} and {_place(table, second)})"
            for name, (first, second, *_) in islice(repeats.items(), SHOWN)
        ]
        count = sum(len(places) - 1 for places in repeats.values())
        many = f"{count} rows have ids that came before" if count > 1 else "1 row has an id that came before"
        more = f"; and {len(repeats) - SHOWN} more ids" if len(repeats) > SHOWN else ""
        fix = "name each picture once, or give each an own id in a column id"
        raise SourceError(f"{many}, {fix}: {'; '.join(shown)}{more}")


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
