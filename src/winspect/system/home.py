"""Folders of the user who runs the program; a container's user may have none."""

from __future__ import annotations

import os
from pathlib import Path

from winspect.errors import SettingsError


def home_folder(instead: str) -> Path:
    """The home folder.

    Args:
        instead: environment variable that names the folder looked for in it, for the message.

    Raises:
        SettingsError: the user has none.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise SettingsError(
            f"this user has no home folder to keep files in: set {instead}, or HOME, to a folder"
        ) from error


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` in front replaced by the home folder; as it is where there is none."""
    return Path(os.path.expanduser(path))
