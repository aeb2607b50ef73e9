"""Which pictures were used: their names and the hashes of their content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winspect.errors import SettingsError
from winspect.pictures.given import Given, source_name
from winspect.system.entries import entry
from winspect.system.opening import read_bytes

SEEN = "judged by itself"
"""Start of the warning of a good sample, or a copy of it, among the pictures that are scored."""


@dataclass(frozen=True)
class Fingerprint:
    """A picture's identity.

    Attributes:
        path: as it was given, or a word in angle brackets for a picture that is no file.
        sha256: of the file's bytes, as ``sha256sum`` gives it; of shape, type and pixels for what is no file. None for
            a file that cannot be read.
    """

    path: str
    sha256: str | None

    @property
    def keys(self) -> set[str]:
        """Path and hash: two pictures that share a key are one."""
        place = set() if self.path.startswith("<") else {os.path.abspath(self.path)}
        return place | ({self.sha256} if self.sha256 else set())

    def document(self) -> dict[str, str | None]:
        """Name and hash, as JSON has them; no folder."""
        return {"name": Path(self.path).name, "sha256": self.sha256}

    @classmethod
    def read(cls, document: object) -> Fingerprint:
        """The inverse of :meth:`document`.

        Raises:
            SettingsError: no name or no hash.
        """
        if not (isinstance(document, dict) and {*document} >= {"name", "sha256"}):
            raise SettingsError(f"references: got {document!r}, need entries with name and sha256")
        sha256 = None if document["sha256"] is None else entry(document, "sha256", str)
        return cls(entry(document, "name", str), sha256)


def fingerprint(picture: Any) -> Fingerprint:
    """The identity of a picture: a path, an array, a Pillow image, a file's bytes, or one of these with a name."""
    known = getattr(picture, "fingerprint", None)
    if isinstance(known, Fingerprint):  # known already, as in the service's store
        return known
    name, digest = source_name(picture), None
    with suppress(OSError, ValueError):  # scoring it says what is wrong with it
        digest = _digest(picture.source() if isinstance(picture, Given) else picture)
    is_file = isinstance(picture, str | os.PathLike)
    return Fingerprint(name if is_file else f"<{name.strip('<>')}>", digest)


def _digest(picture: Any) -> str:
    if isinstance(picture, str | os.PathLike):
        content = read_bytes(picture)
    elif isinstance(picture, bytes | io.BytesIO):
        content = picture if isinstance(picture, bytes) else picture.getvalue()
    else:
        pixels = np.ascontiguousarray(picture)
        content = f"{pixels.shape} {pixels.dtype.str} ".encode() + pixels.tobytes()
    return hashlib.sha256(content).hexdigest()


class Copies:
    """Finds pictures that are among some known ones, or copies of them byte by byte.

    Only files of a known picture's size are read for it, as far as the sizes can be had.
    """

    def __init__(self, known: Iterable[Fingerprint]) -> None:
        self._known = {key: picture.path for picture in known for key in picture.keys}
        names = dict.fromkeys(self._known.values())
        self._sizes = {_size_of(name) for name in names}
        self._files_alone = not any(name.startswith("<") for name in names)

    def original(self, picture: Any) -> str | None:
        """The known picture that this is, or is a copy of; None for any other."""
        if not self._known:
            return None
        if isinstance(picture, str | os.PathLike):
            if (place := os.path.abspath(picture)) in self._known:
                return self._known[place]
            if None not in self._sizes and _size_of(picture) not in self._sizes:
                return None
        elif self._files_alone and not isinstance(picture, bytes | io.BytesIO):
            return None  # files are compared byte by byte, never by pixels
        return next((self._known[key] for key in fingerprint(picture).keys if key in self._known), None)

    def warning(self, picture: Any) -> str | None:
        """The warning of a picture that is compared with itself; None for any other."""
        original = self.original(picture)
        if original is None:
            return None
        is_file = isinstance(picture, str | os.PathLike) and os.path.abspath(picture) == os.path.abspath(original)
        reason = "it is one of the good samples" if is_file else f"the same as the good sample {original}"
        return f"{SEEN} ({reason}): its score says nothing"


def _size_of(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None
