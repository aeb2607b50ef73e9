"""Folders of a data set: the pictures and masks in them, and which mask is that of a picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from winspect.errors import SourceError
from winspect.pictures.formats import is_hidden, is_picture

MASK_FOLDERS = ("ground_truth", "gt", "mask", "masks", "label", "labels")
"""Folders of these names, in either case, hold masks."""
_SUFFIX = re.compile(r"(.+)[_-](?:mask|gt|label|ground_truth)", re.IGNORECASE)
LOOKED_FOR = (
    "the picture's name, alone or with _mask, _gt or _label, in ground_truth/, gt/, mask(s)/ or label(s)/, or with one "
    "of these endings beside the picture"
)


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
    """The pictures that lie directly in a folder, by name. A broken link counts: reading it names it."""
    return [path for path in files_in(folder) if is_picture(path)]


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be searched ({error.strerror}): check your rights") from error


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks."""
    return name.casefold() in MASK_FOLDERS


def mask_folders(folder: Path) -> list[Path]:
    """The folders of masks that lie in a folder."""
    return [inner for inner in subfolders(folder) if is_mask_folder(inner.name)]


def masked_stem(stem: str) -> str | None:
    """``"000"`` for ``"000_mask"``, ``"000_GT"`` and the like; None for other names."""
    match = _SUFFIX.fullmatch(stem)
    return match[1] if match else None


def without_masks(pictures: Sequence[Path]) -> list[Path]:
    """Those of a folder's pictures that are not masks of others in it."""
    stems = {path.stem for path in pictures}
    return [path for path in pictures if masked_stem(path.stem) not in stems]


class MaskFinder:
    """Masks of a category's pictures; each folder is listed once, and each mask belongs to one picture."""

    def __init__(self) -> None:
        self._listed: dict[Path, tuple[dict[str, Path], dict[str, Path]]] = {}
        self._taken: dict[Path, Path] = {}

    def find(self, picture: Path, folders: Iterable[Path]) -> Path | None:
        """The mask in the first of these folders that has one, else beside the picture.

        Raises:
            SourceError: a folder has two masks for a picture, or a mask is that of two pictures.
        """
        found = (
            with_suffix.get(picture.stem) or plain.get(picture.stem) for with_suffix, plain in map(self._list, folders)
        )
        mask = next(filter(None, found), None) or self._list(picture.parent)[0].get(picture.stem)
        if mask is None:
            return None
        before = self._taken.setdefault(mask, picture)
        if before != picture:
            raise SourceError(
                f"{mask}: the mask of {before} and of {picture}: put masks into folders named as those of the pictures"
            )
        return mask

    def _list(self, folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Stem of the picture -> mask: of files with a mask's ending, and of others."""
        if folder not in self._listed:
            with_suffix: dict[str, Path] = {}
            plain: dict[str, Path] = {}
            of_masks = is_mask_folder(folder.name) or is_mask_folder(folder.parent.name)
            for path in pictures_in(folder):
                stem = masked_stem(path.stem)
                known, key = (plain, path.stem) if stem is None else (with_suffix, stem)
                if (first := known.setdefault(key, path)) != path and of_masks:
                    raise SourceError(f"{first} and {path}: two masks for one picture: keep one")
            self._listed[folder] = with_suffix, plain
        return self._listed[folder]


def what_lies_near(picture: Path, root: Path) -> str:
    """Folders and files near a picture, up to the data set's root, that look like masks; empty where there are none."""
    found, top = [], root if root.is_dir() else root.parent
    for folder in picture.parents:
        for place in mask_folders(folder):
            files = sorted(path for path in place.rglob("*") if not is_hidden(path.name) and is_picture(path))
            example = f", as {files[0].relative_to(folder).as_posix()}" if files else ""
            found.append(f"{place.name}/ in {folder.name} ({len(files)} pictures{example})")
        if folder == top or top not in folder.parents:
            break
    beside = [path.name for path in pictures_in(picture.parent) if masked_stem(path.stem)]
    if beside:
        found.append(f"{len(beside)} files beside the pictures, as {beside[0]}")
    return " and ".join(found)
