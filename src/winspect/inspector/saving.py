"""A model's few-shot state in a folder: how it was made, and what it knows of its classes; no weights. No torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from winspect.bundle.manifest import check_hash, damage, read_json
from winspect.errors import BundleError, OutputError
from winspect.inspector.class_state import ClassState
from winspect.methods.identity import Identity, written_by
from winspect.pictures.alignment import Alignment
from winspect.pictures.fingerprints import Fingerprint
from winspect.pictures.roi import Roi
from winspect.system.files import output_error, write_json
from winspect.weights.cache import hash_file

STATE_FILE = "state.json"
KIND, SCHEMA = "winspect state", 1


@dataclass(frozen=True)
class SavedState:
    """What :func:`read_state` reads.

    Attributes:
        identity: of the model.
        model, weights: as :class:`winspect.WinCLIP` takes them.
        classes: by the words they contribute to a prompt.
        roi: the region of interest; None for whole pictures.
        alignment: how pictures are registered; None for pictures as they are.
    """

    identity: Identity
    model: str
    weights: str | None
    classes: Mapping[str, ClassState]
    roi: Roi | None = None
    alignment: Alignment | None = None

    def check(self, identity: Identity) -> None:
        """Refuse a model that scores otherwise than the one that was saved.

        Raises:
            BundleError: names each difference with both values.
        """
        different = self.identity.differences(identity, ignore=("winspect", "weights"))
        if words := "; ".join(
            each.in_words("{name}: {first} there, {second} here") for each in different if not each.is_rounding
        ):
            raise BundleError(
                f"the state was saved of something else ({words}): load what it was saved of, or learn anew"
            )


def write_state(state: SavedState, folder: str | PathLike[str]) -> Path:
    """Write a state; the folder is complete, or not there.

    Raises:
        OutputError: the folder holds something else than a saved state, or cannot be written.
    """
    target = Path(folder)
    if target.exists() and not (target / STATE_FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target}: not an empty folder, and no saved state to replace; choose another one")
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        classes = {
            name: saved.save(staging, f"{place:02d}") for place, (name, saved) in enumerate(state.classes.items())
        }
        roi = {} if state.roi is None else {"roi": state.roi.document()}
        alignment = {} if state.alignment is None else {"alignment": state.alignment.document()}
        files = sorted(path.name for path in staging.iterdir())
        document = {
            "kind": KIND,
            "schema": SCHEMA,
            **state.identity.document(),
            "load": {"model": state.model, "weights": state.weights, **roi, **alignment},
            "classes": classes,
            "sha256": {name: hash_file(staging / name) for name in files},
        }
        write_json(staging / STATE_FILE, document)
        put_in_place(staging, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def put_in_place(staging: Path, target: Path) -> None:
    """Rename a finished folder to its place; an earlier one is there until then."""
    staging.chmod(0o755)
    old = staging.with_name(staging.name + ".old")
    if target.exists():
        target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_state(folder: str | PathLike[str]) -> SavedState:
    """Read a state; its files are checked against their hashes, and no pickled code is run.

    Raises:
        BundleError: none there, a damaged one, or one of a newer release.
    """
    place = Path(folder)
    document = read_json(place / STATE_FILE)
    if document.get("kind") != KIND or document.get("schema") != SCHEMA:
        got = f"got {document.get('kind')!r}, schema {document.get('schema')!r}; this release reads {KIND!r}, {SCHEMA}"
        raise BundleError(f"{place / STATE_FILE}: {got}{written_by(document)}")
    try:
        load, hashes = document["load"], document["sha256"]
        for name, sha256 in hashes.items():
            check_hash(place, name, sha256, listed_in=STATE_FILE)
        return SavedState(
            identity=Identity.read(document),
            model=load["model"],
            weights=load["weights"],
            classes={name: _read_class(place, entry, hashes) for name, entry in document["classes"].items()},
            roi=Roi.read(load["roi"]) if "roi" in load else None,
            alignment=Alignment.read(load["alignment"]) if "alignment" in load else None,
        )
    except BundleError:
        raise
    except Exception as error:  # whatever NumPy and zipfile raise on damaged files
        raise damage(place / STATE_FILE, error, written_by(document)) from error


def _read_class(folder: Path, entry: Mapping[str, Any], hashes: Mapping[str, str]) -> ClassState:
    text, references = entry["text"], entry["references"]
    if unknown := sorted({text, *filter(None, [references])} - {*hashes}):
        raise ValueError(f"no hash of {', '.join(unknown)}")
    samples = tuple(map(Fingerprint.read, entry["shown"]))
    place = None if references is None else folder / references
    return ClassState.read(folder / text, place, samples, entry.get("alignment"))
