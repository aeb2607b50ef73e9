"""The files that a product names, and their SHA-256."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from winspect.errors import SettingsError, SourceError
from winspect.methods.winclip.prompts import PROMPT_SETS
from winspect.pictures.find import find_pictures
from winspect.product.document import Product
from winspect.product.sections import RoiSection
from winspect.weights import LOCAL, SUFFIXES
from winspect.weights.cache import hash_file, sha256_of

MOST_NAMED = 5


@dataclass(frozen=True)
class NamedFile:
    """A file that a product names.

    Attributes:
        key: its path relative to the product's folder, with slashes: its name in ``[record.files]``.
        path: where it lies.
        entry: what names it, as in ``[calibration] file``.
        is_large: its hash is remembered by its size and time.
    """

    key: str
    path: Path
    entry: str
    is_large: bool = False


def named_files(product: Product) -> list[NamedFile]:
    """The files that a product names, each once, in the order of its entries.

    Raises:
        SettingsError: one is not there; names the entry, the file and the fix.
    """
    found: dict[str, NamedFile] = {}
    for file in _each(product):
        found.setdefault(file.key, file)
    return list(found.values())


def reference_files(product: Product) -> list[Path]:
    """The good samples, in order; ``shots`` is the caller's to apply.

    Raises:
        SettingsError: as of :func:`named_files`.
    """
    if product.references is None:
        return []
    try:
        return find_pictures([product.place(pattern) for pattern in product.references.files])
    except SourceError as error:
        raise SettingsError(
            f"{product.path}: [references] files: {error}; put them back, or correct the product and record it with "
            f"{update_command(product.path)}"
        ) from error


def weights_file(product: Product) -> Path | None:
    """The weights, where they are a file; None for a tag."""
    weights = product.model.weights
    if weights is None or not (Path(weights).suffix.lower() in SUFFIXES or product.place(weights).is_file()):
        return None
    return product.place(weights)


def prompts_file(product: Product) -> Path | None:
    """The prompts, where they are a file; None for a published set."""
    prompts = product.model.prompts
    return None if prompts is None or prompts in PROMPT_SETS else product.place(prompts)


def model_name(product: Product) -> str:
    """The model, as the library takes it: a folder of weights below the product's folder."""
    name = product.model.name
    return f"{LOCAL}{product.place(name.removeprefix(LOCAL))}" if name.startswith(LOCAL) else name


def hashes(product: Product) -> dict[str, str]:
    """SHA-256 of the files that a product names.

    Raises:
        SettingsError: one is not there, or cannot be read.
    """
    return {file.key: _hash(product, file) for file in named_files(product)}


def changed_files(product: Product, recorded: Mapping[str, str]) -> list[str]:
    """What is different with the files of a product since it was recorded, a sentence each; empty for nothing.

    Raises:
        SettingsError: as of :func:`hashes`.
    """
    now = hashes(product)
    return [
        f"{name} has changed: its SHA-256 was {sha256} and is {now[name]}"
        if name in now
        else f"{name} was among its files and is no more"
        for name, sha256 in recorded.items()
        if now.get(name) != sha256
    ] + [f"{name} is new among its files" for name in now if name not in recorded]


def update_command(path: Path) -> str:
    """The command that records a product as it is."""
    return f"winspect product check --update {path}"


def relative(path: str | os.PathLike[str], folder: Path) -> str:
    """A path as a product in this folder names it."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _each(product: Product) -> Iterator[NamedFile]:
    folder = product.path.parent
    if product.model.name.startswith(LOCAL):
        place = Path(model_name(product).removeprefix(LOCAL))
        for path in sorted(place.glob("*")) or [place]:
            yield NamedFile(relative(path, folder), path, "[model] name", is_large=True)
    if (weights := weights_file(product)) is not None:
        yield NamedFile(relative(weights, folder), weights, "[model] weights", is_large=True)
    if (prompts := prompts_file(product)) is not None:
        yield NamedFile(relative(prompts, folder), prompts, "[model] prompts")
    roi = product.sections.get("roi")
    if isinstance(roi, RoiSection) and roi.file is not None:
        yield NamedFile(relative(product.place(roi.file), folder), product.place(roi.file), "[roi] file")
    for path in reference_files(product):
        yield NamedFile(relative(path, folder), path, "[references] files")
    if product.calibration is not None:
        path = product.place(product.calibration)
        yield NamedFile(relative(path, folder), path, "[calibration] file")


def _hash(product: Product, file: NamedFile) -> str:
    try:
        return sha256_of(file.path) if file.is_large else hash_file(file.path)
    except OSError as error:
        raise SettingsError(
            f"{product.path}: {file.entry}: {file.path} cannot be read ({error.strerror or error}); put it back, or "
            f"correct the product and record it with {update_command(product.path)}"
        ) from error
