"""``bundle.json``: contents of a bundle, and the hashes of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winspect.errors import BundleError, WinspectError
from winspect.methods.identity import Identity, written_by
from winspect.pictures.fingerprints import Fingerprint
from winspect.pictures.formats import is_hidden
from winspect.system.files import replacing
from winspect.system.opening import read_text
from winspect.weights.cache import hash_file

MANIFEST, PREPROCESSING = "bundle.json", "preprocessing.json"
KIND, SCHEMA = "winspect bundle", 1
GRAPHS: Mapping[str, tuple[str, str]] = {
    "openvino": ("graphs/tokens.xml", "graphs/tower.xml"),
    "onnx": ("graphs/tokens.onnx", "graphs/tower.onnx"),
}
"""Of each engine: pixels to tokens, tokens to embeddings. Of a traced tower only the second, from pixels on."""
_FUSION, _LOG_FUSION = "fusion", "log_fusion"  # in the file, and in a checkpoint
_FUSED = "fused"  # in both; not in files of other recipes
_TRACED = "traced_hw"  # not in files of releases before there was one
_SIDES = range(1, 1001)  # of a grid of patches; an image of 16,000 pixels has 1,000 of 16


@dataclass(frozen=True)
class BundledClass:
    """A class of a bundle; files are relative to the bundle's folder.

    Attributes:
        text: .npy, float32 (2, embedding): normal and anomalous, averaged as the recipe says.
        references: .npz of what is kept of the good samples; None for zero-shot.
        calibration: a file of ``winspect calibrate``; None without.
        samples: name and SHA-256 of each good sample.
        alignment: how pictures are registered to the first; None for pictures as they are.
        product: document of the product that the class was exported of; None without.
    """

    text: str
    references: str | None = None
    calibration: str | None = None
    samples: tuple[Fingerprint, ...] = ()
    alignment: Mapping[str, Any] | None = None
    product: Mapping[str, Any] | None = None

    @property
    def files(self) -> list[str]:
        """The files it consists of."""
        return [file for file in (self.text, self.references, self.calibration) if file is not None]


@dataclass(frozen=True)
class Manifest:
    """Everything in ``bundle.json`` but its kind and schema.

    Attributes:
        identity: of the model that was exported.
        scoring: what the model's checkpoint says of its scoring, for :meth:`Method.for_model`.
        grid_hw: rows and columns of the patch grid.
        classes: by the words they contribute to a prompt.
        sha256: of every file, by its place in the bundle.
        traced_hw: height and width of the tiles, where the tower's graph takes pixels; None where it takes tokens.
    """

    identity: Identity
    scoring: Mapping[str, Any]
    grid_hw: tuple[int, int]
    classes: Mapping[str, BundledClass]
    sha256: Mapping[str, str] = field(repr=False)
    traced_hw: tuple[int, int] | None = None

    @property
    def engine(self) -> str:
        """``openvino`` or ``onnx``."""
        return self.identity.engine

    def write(self, folder: Path) -> None:
        """Hash the files anew, and write ``bundle.json`` atomically."""
        files = [PREPROCESSING, *(_place(folder, path) for path in sorted((folder / "graphs").iterdir()))]
        files += [file for bundled in self.classes.values() for file in bundled.files]
        document = {
            "kind": KIND,
            "schema": SCHEMA,
            **self.identity.document(),
            _FUSION: self.scoring.get(_LOG_FUSION),
            **({_FUSED: self.scoring[_FUSED]} if _FUSED in self.scoring else {}),
            "grid_hw": list(self.grid_hw),
            **({} if self.traced_hw is None else {_TRACED: list(self.traced_hw)}),
            "classes": {
                name: {
                    "text": bundled.text,
                    "references": bundled.references,
                    "calibration": bundled.calibration,
                    "shown": [sample.document() for sample in bundled.samples],
                    **({} if bundled.alignment is None else {"alignment": dict(bundled.alignment)}),
                    **({} if bundled.product is None else {"product": bundled.product}),
                }
                for name, bundled in self.classes.items()
            },
            "sha256": {file: hash_file(folder / file) for file in files},
        }
        with replacing(folder / MANIFEST) as temporary:
            text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no UTF-8

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a bundle's ``bundle.json``, and check every file against its hash.

        Raises:
            BundleError: no bundle, one of a newer release, a damaged one, or one with files beside those it lists;
                names the file.
        """
        document = read_json(folder / MANIFEST)
        if document.get("kind") != KIND:
            raise BundleError(f"{folder / MANIFEST}: not of a winspect bundle; write one with winspect export")
        if document.get("schema") != SCHEMA:
            got = f"got schema {document.get('schema')!r}, this release reads {SCHEMA}"
            raise BundleError(f"{folder}: {got}{written_by(document)}")
        try:
            manifest = _from_document(document)
        except Exception as error:
            raise damage(folder / MANIFEST, error, written_by(document)) from error
        for file, sha256 in manifest.sha256.items():
            check_hash(folder, file, sha256)
        _check_nothing_else(folder, manifest.sha256)
        return manifest


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Whatever NumPy, zipfile and the engines raise on a bundle's damaged files, which has no common base."""
    try:
        yield
    except WinspectError:
        raise
    except Exception as error:
        raise damage(path, error) from error


def damage(path: Path, error: Exception, releases: str = "") -> BundleError:
    """What to raise of a damaged file; ``releases`` as of :func:`winspect.methods.identity.written_by`."""
    kind = "" if isinstance(error, WinspectError) else f"{type(error).__name__}: "
    reason = " ".join(f"{kind}{error}".split())[:300]
    return BundleError(f"{path}: damaged ({reason}); copy the bundle again, or export it again{releases}")


def _from_document(document: Mapping[str, Any]) -> Manifest:
    rows, columns = document["grid_hw"]
    if not (rows in _SIDES and columns in _SIDES):
        raise ValueError(f"grid_hw: got {document['grid_hw']}, need rows and columns of 1 to {_SIDES[-1]} patches")
    classes = {
        name: BundledClass(
            text=entries["text"],
            references=entries["references"],
            calibration=entries["calibration"],
            samples=tuple(map(Fingerprint.read, entries["shown"])),
            alignment=entries.get("alignment"),
            product=entries.get("product"),
        )
        for name, entries in document["classes"].items()
    }
    files = dict(document["sha256"])
    class_files = (file for bundled in classes.values() for file in bundled.files)
    traced = document.get(_TRACED)
    graphs = GRAPHS[document["engine"]]
    needed = [PREPROCESSING, *(graphs if traced is None else graphs[1:]), *class_files]
    unknown = sorted(file for file in needed if file not in files)
    if unknown:
        raise ValueError(f"no hash of {', '.join(unknown)}")
    return Manifest(
        identity=Identity.read(document),
        scoring={
            **({} if document[_FUSION] is None else {_LOG_FUSION: document[_FUSION]}),
            **({_FUSED: document[_FUSED]} if _FUSED in document else {}),
        },
        grid_hw=(int(rows), int(columns)),
        classes=classes,
        sha256=files,
        traced_hw=None if traced is None else _height_and_width(traced),
    )


def _height_and_width(sides: Any) -> tuple[int, int]:
    height, width = sides
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"{_TRACED}: got {sides!r}, need a height and a width in pixels")
    return height, width


def check_hash(folder: Path, file: str, sha256: str, *, listed_in: str = MANIFEST) -> None:
    """Check a file of a folder against the hash that a file beside it lists.

    Raises:
        BundleError: it lies outside the folder, cannot be read, or has another hash.
    """
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder / listed_in}: names {file!r}, which lies outside the bundle; do not trust it")
    try:
        found = hash_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); copy the bundle again, whole") from error
    if found != sha256:
        raise BundleError(
            f"{path}: its hash is not the one in {listed_in}: it is damaged or was changed; copy it again"
        )


def _check_nothing_else(folder: Path, listed: Collection[str]) -> None:
    """Refuse links that the manifest does not list, and files that it does not but for hidden ones of the system."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            name = _place(folder, path)
            is_known = name in listed or name == MANIFEST
            is_extra = not (is_known or is_hidden(path.name) or path.name in folders)
            if is_extra or (path.is_symlink() and not is_known):
                raise BundleError(
                    f"{path}: not among the files that {MANIFEST} lists: it was put there later; remove it, or copy "
                    "the bundle again"
                )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a bundle.

    Raises:
        BundleError: not there, not readable, no JSON object.
    """
    try:
        document = json.loads(read_text(path))
    except FileNotFoundError:
        raise BundleError(f"{path}: not found; a bundle is a folder written by winspect export") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); copy the bundle again, or export it again") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path}: not a JSON object; export the bundle again")
    return document


def _place(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
