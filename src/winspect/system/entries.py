"""Entries of JSON documents that somebody may have edited."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from winspect.errors import SettingsError


def entry(document: Mapping[str, Any], name: str, kind: type) -> Any:
    """An entry of a type. True and false are no numbers; a whole number is a ``float`` too, if it is finite as one.

    Raises:
        SettingsError: it is missing, or of another type.
    """
    if name not in document:
        raise SettingsError(f"no entry {name!r}")
    value = document[name]
    is_kind = isinstance(value, (int, float) if kind is float else kind)
    is_truth = isinstance(value, bool) and kind is not bool
    if not is_kind or is_truth or (kind is float and not abs(value) <= sys.float_info.max):
        raise SettingsError(f"{name}: got {value!r}, need a {kind.__name__}")
    return value
