"""A folder of good samples that were chosen from others: copies that ``--reference`` takes, and what was chosen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winspect.errors import OutputError
from winspect.system.files import make_folder, replacing, write_json

LIST_FILE, PICTURES_FOLDER = "references.json", "good"


def begin_references(folder: Path) -> None:
    """Make the folder, so that nothing is scored in vain.

    Raises:
        OutputError: it cannot be written, or holds good samples, which would be mixed with others.
    """
    pictures = make_folder(make_folder(folder) / PICTURES_FOLDER)
    if any(pictures.iterdir()):
        raise OutputError(f"{pictures}: holds files already; choose another --out, or delete them")


def write_references(folder: Path, document: Mapping[str, Any]) -> Path:
    """Copy the pictures, and write ``references.json`` when all are there.

    Args:
        folder: of :func:`begin_references`.
        document: of :class:`winspect.inspector.choosing.ChosenReferences`, and more. Its entries ``kept`` get a
            ``file``: the name of the copy below the folder. Names sort in the order of the choice, so that the first
            K of them are the choice of K.

    Returns:
        The folder of the copies.
    """
    kept = []
    for number, entry in enumerate(document["kept"]):
        name = f"{PICTURES_FOLDER}/{number + 1:03d}-{Path(entry['path']).name}"
        with replacing(folder / name) as temporary:
            shutil.copyfile(entry["path"], temporary)
        kept.append({**entry, "file": name})
    write_json(folder / LIST_FILE, {**document, "kept": kept})
    return folder / PICTURES_FOLDER
