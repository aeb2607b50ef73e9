"""Alignment: a picture is registered to a reference picture before it is cut, and its maps are brought back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from winspect.errors import SettingsError

KINDS = ("translation", "euclidean", "affine")
Kind = Literal["translation", "euclidean", "affine"]


@dataclass(frozen=True)
class Alignment:
    """How pictures are registered to the first reference picture.

    Attributes:
        kind: the transform: ``translation``, ``euclidean`` (and a turn), or ``affine``.
        min_quality: correlation over what both show, 0 to 1; a picture below it is not aligned, and never normal.

    Raises:
        SettingsError: a value out of range.
    """

    kind: Kind = "euclidean"
    min_quality: float = 0.8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"alignment: kind: got {self.kind!r}, need one of {', '.join(KINDS)}")
        quality = self.min_quality
        if not (isinstance(quality, int | float) and not isinstance(quality, bool) and 0 <= quality <= 1):
            raise SettingsError(f"alignment: min_quality: got {quality!r}, need a number from 0 to 1, such as 0.8")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Alignment:
        """The alignment in a section of a product; what it does not name has its default.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(document, Mapping):
            raise SettingsError(f"alignment: got {document!r}, need a table with {', '.join(known)}")
        if unknown := sorted(map(str, document.keys() - {*known})):
            raise SettingsError(f"alignment: got the unknown key {unknown[0]!r}, known are {', '.join(known)}")
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """As JSON and TOML have it."""
        return asdict(self)
