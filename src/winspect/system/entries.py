"""Entries of JSON documents that somebody may have edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winspect.errors import SettingsError


def entry(document: Mapping[str, Any], name: str, kind: type) -> Any:
    """An entry of a type. True and false are no numbers; a whole number is a ``float`` too.

    Raises:
        SettingsError: it is missing, or of another type.
    """
    if name not in document:
        raise SettingsError(f"no entry {name!r}")
    value = document[name]
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise SettingsError(f"{name}: got {value!r}, need a {kind.__name__}")
    return value
