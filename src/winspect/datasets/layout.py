"""What is in a folder, and which folders are categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from winspect.datasets.items import choose_categories
from winspect.errors import SourceError
from winspect.pictures.formats import is_hidden, is_picture


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

    A broken link counts: it fails under its own name when it is read.
    """
    return [path for path in files_in(folder) if is_picture(path)]


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be searched ({error.strerror}): check your rights") from error


def category_folders(
    root: Path,
    is_category: Callable[[Path], bool],
    categories: Sequence[str] | None,
    *,
    wanted: str,
    single_name: str | None = None,
) -> dict[str, Path]:
    """Name and folder of each chosen category below ``root``.

    ``root`` may be one category itself. It is then called by the one name in ``categories``, else by its folder. A
    category's folder may be inside one of its name, as archives are extracted.

    Args:
        is_category: tells a category's folder from others.
        wanted: the layout in words, for the error.
        single_name: what to call ``root`` as a category, in place of its folder's name.

    Raises:
        SourceError: no category here, or none of a name asked for.
    """
    check_root(root)
    if is_category(root):
        name = categories[0] if categories and len(categories) == 1 else single_name or root.resolve().name
        return dict.fromkeys(choose_categories([name], categories, root), root)
    nested = ((folder.name, place) for folder in subfolders(root) for place in (folder, folder / folder.name))
    folders: dict[str, Path] = {}
    for name, place in nested:
        if is_category(place):
            folders.setdefault(name, place)
    if not folders:
        raise SourceError(f"{root}: no category found here: {wanted}")
    return {name: folders[name] for name in choose_categories(list(folders), categories, root)}
