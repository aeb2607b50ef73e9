"""Which pictures were used: their names and the hashes of their content."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from winspect.system.opening import read_bytes


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
        """What identifies it: two pictures that share a key are one."""
        place = set() if self.path.startswith("<") else {os.path.abspath(self.path)}
        return place | ({self.sha256} if self.sha256 else set())


def fingerprint(picture: Any) -> Fingerprint:
    """The identity of a picture: a path, an array, a Pillow image, or a file's bytes."""
    from winspect.decoding import source_name

    known = getattr(picture, "fingerprint", None)
    if isinstance(known, Fingerprint):  # a picture that brings its own, as those in the service's store
        return known
    if isinstance(picture, str | os.PathLike):
        digest = None
        with suppress(OSError, ValueError):  # judging it will say what is wrong with it
            digest = hashlib.sha256(read_bytes(picture)).hexdigest()
        return Fingerprint(source_name(picture), digest)
    if isinstance(picture, bytes | io.BytesIO):
        content = picture if isinstance(picture, bytes) else picture.getbuffer()
        return Fingerprint(source_name(picture), hashlib.sha256(content).hexdigest())
    pixels = np.ascontiguousarray(picture)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str} ".encode() + pixels.tobytes()).hexdigest()
    return Fingerprint(f"<{source_name(picture).strip('<>')}>", digest)
