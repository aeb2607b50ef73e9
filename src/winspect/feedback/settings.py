"""Settings of feedback: how many pictures are drawn for the audit sample, and how much is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from winspect.errors import SettingsError


@dataclass(frozen=True)
class FeedbackSettings:
    """How feedback is taken.

    Attributes:
        audit_rate: share of all pictures, 0 to 1, that is drawn by chance for the review queue, whatever their scores.
            They alone join the calibration pool: see :mod:`winspect.feedback.pool`. 0 for none.
        keep_mb: of judged pictures that a service keeps for the queue, in units of 2**20 bytes; the oldest make room.
        file_mb: at this size a file of the audit log is full, and the next begins; in units of 2**20 bytes.
        remember: so many of the newest pictures can still be judged; older ones where they were drawn or judged.

    Raises:
        SettingsError: a value out of its range.
    """

    audit_rate: float = 0.02
    keep_mb: float = 256.0
    file_mb: float = 64.0
    remember: int = 100_000

    def __post_init__(self) -> None:
        if not (_is_number(self.audit_rate) and 0 <= self.audit_rate <= 1):
            raise SettingsError(
                f"feedback: audit_rate: got {self.audit_rate!r}, need a share from 0 to 1, such as 0.02"
            )
        for name in ("keep_mb", "file_mb"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0):
                raise SettingsError(f"feedback: {name}: got {value!r}, need a number of megabytes above 0, such as 256")
        if type(self.remember) is not int or self.remember < 1:
            raise SettingsError(f"feedback: remember: got {self.remember!r}, need a whole number from 1, as in 100000")

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> FeedbackSettings:
        """The settings in a document; what it does not name has its default.

        Raises:
            SettingsError: an unknown key, or a value out of its range.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(document, Mapping):
            raise SettingsError(f"feedback: got {document!r}, need a table with keys of {', '.join(known)}")
        if unknown := [key for key in document if key not in known]:
            raise SettingsError(f"feedback: got the unknown key {unknown[0]!r}; known are {', '.join(known)}")
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """The settings as JSON and TOML have them."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
