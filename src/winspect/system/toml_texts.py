"""Reading TOML that a user gives."""

from __future__ import annotations

import os
import sys
from typing import Any

from winspect.errors import SettingsError
from winspect.system.opening import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONGEST = 1_000_000
"""Characters of a file at most."""


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document of a TOML file.

    Raises:
        SettingsError: it cannot be read, is too long or is not TOML; names the line.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{os.fspath(path)}: cannot read it ({error}); check the path") from error
    if len(text) > LONGEST:
        raise SettingsError(f"{os.fspath(path)}: got {len(text)} characters of TOML, need at most {LONGEST}")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{os.fspath(path)}: not TOML: {error}") from error
