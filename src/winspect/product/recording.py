"""Writing a product: a new one, and a change as a new revision, with the comments and the order of its file kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from winspect.errors import OutputError, SettingsError
from winspect.feedback.chain import Writer
from winspect.product.document import RECORD, SCHEMA, Product
from winspect.product.file import read_product, same_name
from winspect.product.history import Change, HistoryEntry, changes, history_folder, history_log, read_history
from winspect.product.named_files import hashes, update_command
from winspect.system.files import write_file
from winspect.system.installation import need
from winspect.system.opening import read_text


def new_product(path: Path, entries: Mapping[str, Any], *, verb: str) -> Product:
    """Write a new product, at revision 1.

    Args:
        entries: the document but for ``schema`` and ``revision``.
        verb: for the history.

    Raises:
        OutputError: there is such a file, or it cannot be written.
        SettingsError: as of :meth:`Product.read`; a file that it names is not there; or its folder has a product of
            its name.
    """
    if path.exists():
        raise OutputError(f"{path}: is there already; edit it, and record it with {update_command(path)}")
    document = {"schema": SCHEMA, "name": entries["name"], "revision": 1, **entries}
    try:
        product = Product.read(document, path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    if found := same_name(product):
        raise SettingsError("; ".join(found))
    files = hashes(product)
    tomlkit = _tomlkit()
    if history_log(path).is_there:
        raise OutputError(f"{history_folder(path)}: is there, of an earlier product; move it away, or choose a name")
    with history_log(path).writing() as history:
        if path.exists():
            raise OutputError(f"{path}: was written by another command meanwhile")
        text = tomlkit.document()
        text.add(tomlkit.comment(f"A product of winspect. After an edit: {update_command(Path(path.name))}"))
        for name, value in {**document, "class": product.class_name}.items():
            text.add(name, value)
        _write(product, text, HistoryEntry.now(verb, product.document(), files, None), history)
    return read_product(path)


def record(path: Path, *, verb: str, edit: Callable[[Any], None] = lambda text: None) -> tuple[Product, list[Change]]:
    """Record a product with its files as they are now, as a new revision; comments and order are kept.

    Args:
        verb: for the history.
        edit: changes the TOML document before.

    Returns:
        The product, and what has changed since the last revision; nothing is written where nothing has.

    Raises:
        SettingsError, OutputError: as of :func:`new_product`; also for a history that cannot be read.
    """
    tomlkit = _tomlkit()
    read_product(path)  # before a folder is made
    with history_log(path).writing() as history:
        before = read_product(path)
        entries = read_history(path)
        try:
            text = tomlkit.parse(read_text(path))
        except ValueError as error:
            raise SettingsError(f"{path}: not TOML: {error}") from error
        edit(text)
        product = Product.read(text.unwrap(), path)
        if found := same_name(product):
            raise SettingsError("; ".join(found))
        files, last = hashes(product), entries[-1] if entries else None
        known = (before.document(), {}) if last is None else (last.document, last.files)
        found_changes = changes(*known, product.document(), files)
        is_latest = last is not None and last.revision == product.revision
        if is_latest and not found_changes and product.record and product.record.document == product.fingerprint:
            return product, []
        if last is not None or before.record is not None:  # else written by hand, and recorded for the first time
            text["revision"] = 1 + max(product.revision, 0 if last is None else last.revision)
        product = Product.read(text.unwrap(), path)
        _write(product, text, HistoryEntry.now(verb, product.document(), files, last), history)
    return read_product(path), found_changes


def _write(product: Product, text: Any, entry: HistoryEntry, history: Writer) -> None:
    """Append to the history, then write the file: no revision is without its entry, whenever this is cut off."""
    tomlkit = _tomlkit()
    table = tomlkit.table()
    table.add(tomlkit.comment("Written by winspect: what this revision was recorded with."))
    table.add("document", product.fingerprint)
    files = tomlkit.table()
    for name, sha256 in entry.files.items():
        files.add(name, sha256)
    table.add("files", files)
    text.pop(RECORD, None)
    text.add(RECORD, table)
    history.append([entry.line()])
    write_file(product.path, tomlkit.dumps(text))


def _tomlkit() -> Any:
    return need("tomlkit", "full", job="writing a product, with the comments in its file kept,")
