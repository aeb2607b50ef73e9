"""Names of categories for the prompts, from a file: ``pcb1`` is "printed circuit board"."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from winspect.datasets.tables import TEXT_TABLES, read_text, table_rows
from winspect.errors import SettingsError, UsageError
from winspect.methods.winclip.prompts import check_class_name
from winspect.system.yaml_texts import compose_yaml

PLAIN = "plain"
"""Names the table that is part of this package: plain nouns for VisA and MVTec AD. Published figures use the
categories' names."""
PLAIN_FILE = Path(__file__).with_name("class_names.csv")
_YAML = (".yaml", ".yml", ".json")
_COLUMNS = {"category": ("category", "object", "class"), "name": ("name", "class_name")}


def read_class_names(source: str | os.PathLike[str]) -> dict[str, str]:
    """Category -> name for the prompts.

    Args:
        source: ``plain``; or a table (.csv, .jsonl) with the columns ``category`` and ``name``; or YAML (.yaml, .json)
            that maps one to the other.

    Raises:
        SettingsError: it cannot be read, a category has two names, or a name cannot be put into a prompt; says where.
    """
    file = PLAIN_FILE if source == PLAIN else Path(source)
    try:
        entries = list(_yaml_entries(file) if file.suffix.lower() in _YAML else _table_entries(file))
        names: dict[str, str] = {}
        for where, category, name in entries:
            if category in names:
                raise SettingsError(f"{where}: {category!r} has a name already: keep one")
            try:
                check_class_name(name)
            except UsageError as error:
                raise SettingsError(f"{where}: {error}") from error
            names[category] = name.strip()
    except UsageError as error:
        raise SettingsError(f"class names: {error}") from error
    if not names:
        raise SettingsError(f"class names: {file}: no names: write category,name and a line for each")
    return names


def _table_entries(file: Path) -> Iterable[tuple[str, str, str]]:
    if file.suffix.lower() not in TEXT_TABLES:
        known = ", ".join((PLAIN, *TEXT_TABLES, *_YAML))
        raise SettingsError(f"{file}: got a file ending in {file.suffix!r}, need one of {known}")
    for where, row in table_rows(read_text(file), str(file), file.suffix, _COLUMNS, need=("category", "name")):
        yield where, row["category"], row["name"]


def _yaml_entries(file: Path) -> Iterable[tuple[str, str, str]]:
    """The lines of a mapping as they are written: ``01`` stays ``01``, and nothing is constructed."""
    root = compose_yaml(read_text(file), str(file))
    if root is not None and root.id != "mapping":
        raise SettingsError(f"{file}: got a {root.id}, need lines such as pcb1: printed circuit board")
    for category, name in root.value if root else ():
        where = f"{file}, line {category.start_mark.line + 1}"
        if category.id != "scalar" or name.id != "scalar":
            raise SettingsError(f"{where}: got a {category.id} and a {name.id}, need a category and its name")
        yield where, category.value, name.value


def names_for(categories: Iterable[str], names: Mapping[str, str] | None) -> dict[str, str]:
    """The categories whose name in the prompts is another than their own.

    Raises:
        SettingsError: none of the names is that of a category.
    """
    categories = list(categories)
    if names and not set(names) & set(categories):
        got, have = ", ".join(list(names)[:5]), ", ".join(categories)
        raise SettingsError(f"class names: got {got}, but the data set has: {have}")
    return {category: names[category] for category in categories if names and names.get(category, category) != category}
