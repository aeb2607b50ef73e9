"""Defaults that a user sets for all runs on this machine; today the precision alone. Imports no torch.

Nothing but ``winspect precision`` writes them: an option of a run is that run's alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from winspect.errors import SettingsError
from winspect.system.files import make_folder, output_error, write_json
from winspect.system.opening import read_text

PRECISION_VARIABLE = "WINSPECT_PRECISION"
"""Environment variable with the precision of runs that name none; overrides the setting."""


class DefaultPrecision(NamedTuple):
    """The precision of runs that name none.

    Attributes:
        precision: as ``--precision`` takes it; None where none is set: fp32.
        source: its origin, in words.
    """

    precision: str | None
    source: str


def default_precision() -> DefaultPrecision:
    """Read the default: the environment variable, else the setting of ``winspect precision set``.

    Raises:
        SettingsError: the file of the setting cannot be read.
    """
    if precision := os.environ.get(PRECISION_VARIABLE):
        return DefaultPrecision(precision, f"the environment variable {PRECISION_VARIABLE}")
    path = _precision_file()
    try:
        if path is not None:
            precision = str(json.loads(read_text(path))["precision"])
            return DefaultPrecision(precision, f"winspect precision set, kept in {path}")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON with an entry precision"
        raise SettingsError(
            f"{path}: cannot read the default precision ({reason}); `winspect precision clear` removes it, "
            "`winspect precision set` writes it anew"
        ) from error
    return DefaultPrecision(None, "winspect's own default")


def set_precision(precision: str) -> Path:
    """Set the default precision of all runs; returns the file it is kept in.

    Raises:
        OutputError: the file cannot be written.
    """
    path = _precision_file()
    if path is None:
        raise SettingsError(f"no home folder to keep settings in: set {PRECISION_VARIABLE} or XDG_CONFIG_HOME instead")
    make_folder(path.parent)
    write_json(path, {"precision": precision})
    return path


def clear_precision() -> bool:
    """Remove the setting; returns whether there was one.

    Raises:
        OutputError: the file cannot be removed.
    """
    path = _precision_file()
    try:
        if path is not None:
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise output_error(path or Path(), error) from error
    return path is not None


def _precision_file() -> Path | None:
    """File of the setting; None where the user has no home folder."""
    try:
        windows = os.environ.get("APPDATA") if sys.platform == "win32" else None
        folder = os.environ.get("XDG_CONFIG_HOME") or windows or Path.home() / ".config"
    except RuntimeError:
        return None
    return Path(folder) / "winspect" / "precision.json"
