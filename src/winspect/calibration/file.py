"""The file of a calibration: readable JSON, and checks that find a damaged or foreign one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from winspect.calibration.calibration import BIT_DEPTH, MADE_BY, SINCE_LATER, Calibration, Defective, HeldOut, LeftOut
from winspect.errors import SettingsError
from winspect.methods.winclip.recipes import Recipe, all_settings
from winspect.system.opening import read_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 1
KIND = "winspect calibration"

_DERIVED = ("pictures", "threshold", "pixel_threshold")
Kind = TypeVar("Kind", bound="DataclassInstance")


def to_document(calibration: Calibration) -> dict[str, Any]:
    """A calibration as JSON's own types. The thresholds follow from the scores, and stand there for the reader."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "winspect": calibration.winspect,
        "date": calibration.date,
        **calibration.made_by,
        "max_false_alarms": calibration.max_false_alarms,
        **{name: getattr(calibration, name) for name in _DERIVED},
        "held_out": calibration.held_out and asdict(calibration.held_out),
        "defective": calibration.defective and asdict(calibration.defective),
        "left_out": [asdict(left_out) for left_out in calibration.left_out],
        "scores": list(calibration.scores),
        "map_maxima": None if calibration.map_maxima is None else list(calibration.map_maxima),
    }


def read(path: Path) -> Calibration:
    """The calibration in a file; errors as in :meth:`Calibration.load`."""
    try:
        document = json.loads(read_text(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the calibration: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not a calibration: not JSON ({error}); write it again with calibrate") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise SettingsError(f'{path}: not a calibration: need JSON with "kind": "{KIND}", as calibrate writes it')
    if document.get("schema") != SCHEMA:
        raise SettingsError(f"{path}: got schema {document.get('schema')!r}, this release reads {SCHEMA}; upgrade it")
    try:
        return from_document(document)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def from_document(document: Mapping[str, Any]) -> Calibration:
    """The inverse of :func:`to_document`.

    Raises:
        SettingsError: an entry is missing, or is not what it should be.
    """
    try:
        return _calibration(document)
    except KeyError as error:
        raise SettingsError(f"damaged calibration: no entry {error}; calibrate again") from error
    except (SettingsError, TypeError, ValueError, OverflowError) as error:
        raise SettingsError(f"damaged calibration: {error}; calibrate again") from error


def _calibration(document: Mapping[str, Any]) -> Calibration:
    maxima = document["map_maxima"]
    calibration = Calibration(
        made_by=_made_by(document),
        max_false_alarms=document["max_false_alarms"],
        scores=tuple(_typed(document, "scores", list)),
        map_maxima=None if maxima is None else tuple(_typed(document, "map_maxima", list)),
        date=_typed(document, "date", str),
        winspect=_typed(document, "winspect", str),
        left_out=tuple(_part(LeftOut, part) for part in _typed(document, "left_out", list)),
        held_out=_maybe(HeldOut, document["held_out"]),
        defective=_maybe(Defective, document["defective"]),
    )
    for name in _DERIVED:
        if document[name] != getattr(calibration, name):
            raise SettingsError(
                f"{name} is {document[name]!r}, but {getattr(calibration, name)!r} follows from scores and rate"
            )
    return calibration


def _made_by(document: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, type] = {"recipe": dict, "references": list}
    said = [name for name in MADE_BY if name in document or name not in SINCE_LATER]
    found = {name: _typed(document, name, kinds.get(name, str)) for name in said}
    Recipe(**all_settings(found["recipe"]))  # refuses one that no model could be made with
    for reference in found["references"]:
        if not (isinstance(reference, dict) and {*reference} >= {"name", "sha256"}):
            raise SettingsError(f"references: got {reference!r}, need entries with name and sha256")
    return found | ({BIT_DEPTH: document[BIT_DEPTH]} if BIT_DEPTH in document else {})


def _typed(document: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(document[name], kind):
        raise SettingsError(f"{name}: got {document[name]!r}, need a {kind.__name__}")
    return document[name]


def _maybe(kind: Callable[..., Kind], part: object) -> Kind | None:
    return None if part is None else _part(kind, part)


def _part(kind: Callable[..., Kind], part: object) -> Kind:
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    if not (isinstance(part, dict) and sorted(part) == sorted(names)):
        raise SettingsError(f"got {part!r}, need {', '.join(names)}")
    return kind(**part)
