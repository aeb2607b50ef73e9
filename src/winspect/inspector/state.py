"""What a class is judged with, apart from the model, to be judged elsewhere. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winspect.errors import SettingsError
from winspect.methods.winclip.judge import References
from winspect.pictures.fingerprints import Fingerprint


@dataclass(frozen=True, eq=False)
class ClassState:
    """All that a predictor knows of a class, in NumPy arrays: see :meth:`winspect.inspector.base.Predictor.take`.

    Attributes:
        text: float32 (2, embedding); normal, anomalous; averaged as the recipe says.
        references: what is kept of the good samples; None for zero-shot.
        shown: names and hashes of the good samples, in the order shown; none for zero-shot.
    """

    text: np.ndarray
    references: References | None = None
    shown: tuple[Fingerprint, ...] = ()

    def __post_init__(self) -> None:
        text = self.text
        if not isinstance(text, np.ndarray) or text.dtype != np.float32 or text.ndim != 2 or len(text) != 2:
            got = f"dtype {text.dtype}, shape {tuple(text.shape)}" if hasattr(text, "dtype") else repr(text)
            raise SettingsError(f"text of a class: got {got}, need a NumPy array, float32 (2, embedding)")
        if (self.references is None) != (not self.shown):
            there = "no references" if self.references is None else "references"
            raise SettingsError(
                f"got {there}, {len(self.shown)} fingerprints; need both (few-shot) or none (zero-shot)"
            )
