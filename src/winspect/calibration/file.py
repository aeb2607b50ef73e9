"""The file that a calibration is kept in: JSON that people can read, with its kind and schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from winspect.errors import SettingsError
from winspect.methods.identity import written_by
from winspect.system.opening import read_text

SCHEMA = 1
KIND = "winspect calibration"


def read_file(path: Path) -> dict[str, Any]:
    """Read a calibration's document, whose entries are not checked yet.

    Raises:
        SettingsError: no such file, or it is no calibration, or one of another schema.
    """
    try:
        document = json.loads(read_text(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the calibration: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not a calibration: not JSON ({error}); write it again with calibrate") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise SettingsError(f'{path}: not a calibration: need JSON with "kind": "{KIND}", as calibrate writes it')
    if (schema := document.get("schema")) != SCHEMA:
        raise SettingsError(
            f"{path}: got schema {schema!r}, this release reads {SCHEMA}; upgrade it{written_by(document)}"
        )
    return document
