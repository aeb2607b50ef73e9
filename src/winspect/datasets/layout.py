"""What is in a folder, and which folders are categories."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from winspect.datasets.items import choose_categories
from winspect.errors import SourceError
from winspect.sources import EXTENSIONS

logger = logging.getLogger(__name__)


def is_picture_name(name: str) -> bool:
    """Whether a file of this name counts as a picture: by its ending, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def check_root(root: Path) -> Path:
    """The root, if it is a folder.

    Raises:
        SourceError: it is not there, or a file.
    """
    if not root.is_dir():
        problem = "a file, need the data set's folder" if root.is_file() else "no such folder: check the path"
        raise SourceError(f"{root}: {problem}")
    return root


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, by name; none where it is not there."""
    return [path for path in _entries(folder) if path.is_dir()]


def files_in(folder: Path) -> list[Path]:
    """The visible files in a folder, by name; none where it is not there. A broken link counts."""
    return [path for path in _entries(folder) if not path.is_dir()]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, by name; none where it is not there.

    A broken link counts: it fails under its own name when it is read. Folders in it are reported in the log.
    """
    for path in subfolders(folder):
        logger.warning("%s is not searched: pictures are expected directly in %s", path, folder)
    return [path for path in files_in(folder) if is_picture_name(path.name)]


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be searched ({error.strerror}): check your rights") from error


def category_folders(
    root: Path, is_category: Callable[[Path], bool], categories: Sequence[str] | None, *, wanted: str
) -> dict[str, Path]:
    """Name and folder of each chosen category below ``root``.

    ``root`` may be one category itself. It is then called by the one name in ``categories``, else by its folder.

    Args:
        is_category: tells a category's folder from others.
        wanted: the layout in words, for the error.

    Raises:
        SourceError: no category here, or none of a name asked for.
    """
    check_root(root)
    if is_category(root):
        name = categories[0] if categories and len(categories) == 1 else root.resolve().name
        return dict.fromkeys(choose_categories([name], categories, root), root)
    folders = {folder.name: folder for folder in subfolders(root) if is_category(folder)}
    if not folders:
        raise SourceError(f"{root}: no category found here: {wanted}")
    return {name: folders[name] for name in choose_categories(list(folders), categories, root)}
