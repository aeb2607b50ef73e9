"""References of a category, drawn; and the pictures that are scored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from winspect.datasets import Dataset, Item
from winspect.errors import ReferencesError
from winspect.pictures.fingerprints import Copies, fingerprint


@dataclass(frozen=True)
class Draw:
    """The pictures of one category, for one seed.

    Attributes:
        references: shown as good samples, in the order drawn; none for zero-shot.
        tested: scored, in the data set's order.
        copies: not scored, because each is a copy of a reference, byte by byte: the picture, and that reference's path.
    """

    references: tuple[Item, ...]
    tested: tuple[Item, ...]
    copies: tuple[tuple[Item, str], ...] = ()


def draw(dataset: Dataset, category: str, *, shots: int = 0, seed: int = 0) -> Draw:
    """Draw reference pictures, and say which pictures remain to be scored.

    References come from the normal train pictures. Where a data set has no train split they come from the normal test
    pictures, and those drawn are not scored; nor are copies of a reference.

    The lot of a picture is a hash of seed, category and file name. So a draw is the same on every machine and for every
    release of every library, in the raw and in the converted layout of a data set, and whatever else lies in the
    folders; and the references of ``shots=1`` are among those of ``shots=4``.

    Raises:
        ReferencesError: the category has fewer normal pictures than ``shots``.
        SourceError: the data set has no such category.
    """
    tested = dataset.select(category=category, split="test")
    if not shots:
        return Draw((), tested)
    pool = dataset.reference_pool(category)
    if len(pool) < shots:
        raise ReferencesError(
            f"asked for {shots} reference pictures of {category!r}, found {len(pool)} normal ones in {dataset.root}; "
            "ask for fewer shots, or leave that category out"
        )
    references = sorted(pool, key=lambda item: _lot(item, dataset.root, seed))[:shots]
    drawn = {item.path for item in references}
    seen = Copies(fingerprint(item.path) for item in references)
    others = [(item, seen.original(item.path)) for item in tested if item.path not in drawn]
    return Draw(
        tuple(references),
        tuple(item for item, original in others if original is None),
        tuple((item, original) for item, original in others if original is not None),
    )


def _lot(item: Item, root: Path, seed: int) -> tuple[str, str]:
    key = f"{seed}/{item.category}/{item.path.name}"
    # The file name alone, for equal draws in all layouts; where two folders share a name the path decides.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest(), relative_name(item.path, root)


def relative_name(path: Path, root: Path) -> str:
    """A file's name below the data set's root (or its manifest's folder), with ``/``: the same on every machine."""
    folder = root if root.is_dir() else root.parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
