"""A packed product: an edge bundle with the product inside, as one file to carry to the line.

The file is a zip archive of the bundle's folder, not compressed. It is used from a folder of the cache, which the file
is unpacked into once; the bundle's hashes are checked whenever it is loaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from winspect.bundle.manifest import MANIFEST, read_json
from winspect.errors import BundleError, OutputError, SettingsError
from winspect.methods.winclip.prompts import class_key
from winspect.product.document import Product
from winspect.system.files import output_error, replacing
from winspect.system.opening import open_file
from winspect.weights.cache import CACHE_VARIABLE, cache_folder, hash_file

ENDING = ".winspect"
_DATE = (2000, 1, 1, 0, 0, 0)  # the same bundle gives the same file
_COPY_AGAIN = "copy it again, whole, or pack it again with winspect product pack"
_CHUNK_BYTES = 4 << 20


def is_packed(path: Path) -> bool:
    """Whether a path is a packed product, or a bundle's folder, and not a product's TOML file."""
    return path.suffix.lower() == ENDING or path.is_dir()


def may_hold_product(bundle: Path) -> bool:
    """Whether what ``--bundle`` names can be looked into for a product."""
    return bundle.suffix.lower() == ENDING or (bundle / MANIFEST).is_file()


def pack_folder(folder: Path, out: Path) -> int:
    """Write the folder of a bundle as one file; returns its size in bytes.

    Raises:
        OutputError: it cannot be written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _DATE)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as target, path.open("rb") as source:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
    return out.stat().st_size


def bundle_folder(path: Path) -> Path:
    """The folder of a bundle: the path itself, or for a packed product where it is unpacked, now if it was not before.

    Raises:
        BundleError: no such file, or it is cut, damaged or no packed product.
        OutputError: it cannot be unpacked into the cache.
    """
    if path.is_dir():
        return path
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            entries = _entries(path, archive)
            target = cache_folder() / "products" / hash_file(path)[:32]
            if not _is_whole(target, entries):
                _unpack(path, archive, entries, target)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error}); {_COPY_AGAIN}") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, BundleError | OutputError):
            raise
        raise BundleError(f"{path}: cut or damaged, or no packed product ({error}); {_COPY_AGAIN}") from error
    return target


def packed_product(path: Path, class_name: str | None = None) -> tuple[Product, Path | None] | None:
    """The product in a bundle, and the file of its calibration; None where the bundle was not made of a product.

    Args:
        path: the bundle's folder, or a packed product.
        class_name: which class of the bundle; None where it holds a single product.

    Raises:
        BundleError: as of :func:`bundle_folder`, or no such bundle.
        SettingsError: it holds several products, or one that cannot be read.
    """
    folder = bundle_folder(path)
    classes = read_json(folder / MANIFEST).get("classes")
    products = {
        name: entries
        for name, entries in (classes.items() if isinstance(classes, dict) else ())
        if isinstance(entries, dict) and isinstance(entries.get("product"), dict)
    }
    if not products:
        return None
    if class_name is not None:
        chosen = [entries for name, entries in products.items() if class_key(name) == class_key(class_name)]
    else:
        chosen = list(products.values())
    if len(chosen) != 1:
        names = ", ".join(f"{entries['product'].get('name')!r} (class {name!r})" for name, entries in products.items())
        if class_name is not None:
            raise SettingsError(f"--class {class_name}: {path} holds the products {names}; name one of their classes")
        raise SettingsError(f"{path}: holds the products {names}: choose one with --class")
    calibration = chosen[0].get("calibration")
    return _read(chosen[0]["product"], path), None if calibration is None else folder / calibration


def _read(document: Mapping[str, Any], path: Path) -> Product:
    try:
        return Product.read(document, path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive, once it is sure that unpacking them writes below a folder, and no more than is there."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name, place = info.filename, PurePosixPath(info.filename)
        is_inside = not place.is_absolute() and ".." not in place.parts and "\\" not in name and ":" not in name
        is_plain = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not is_inside or not is_plain or info.is_dir() or name in found:
            raise BundleError(f"{path}: holds {name!r}, which winspect product pack does not write; do not trust it")
        found[name] = info
    if MANIFEST not in found:
        raise BundleError(f"{path}: no {MANIFEST} in it, so it is no packed product; {_COPY_AGAIN}")
    return found


def _is_whole(target: Path, entries: Mapping[str, zipfile.ZipInfo]) -> bool:
    """Whether all of an archive has been unpacked; that it is unchanged is checked when it is loaded."""
    try:
        return all((target / name).stat().st_size == info.file_size for name, info in entries.items())
    except OSError:
        return False


def _unpack(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], target: Path) -> None:
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        for name, info in entries.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            with _opened(path, archive, info) as source, (staging / name).open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK_BYTES)
        shutil.rmtree(target, ignore_errors=True)  # what is left of one that was cut off
        os.replace(staging, target)
    except OSError as error:
        if _is_whole(target, entries):  # another process was faster
            return
        reason = output_error(target, error)
        raise OutputError(f"{reason} (to unpack {path}; {CACHE_VARIABLE} names another folder)") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _opened(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except OSError as error:  # a place before the file's beginning
        raise BundleError(f"{path}: cut or damaged ({error}); {_COPY_AGAIN}") from error
