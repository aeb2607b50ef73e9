"""State of a class: its text, and what a method keeps of its good samples. No torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.embeddings import Embeddings
from winspect.engines.graph_cache import GraphCache
from winspect.errors import ReferencesError, SettingsError
from winspect.methods.method import CutPicture, References
from winspect.pictures.alignment import Alignment
from winspect.pictures.fingerprints import Copies, Fingerprint
from winspect.system.arrays import to_numpy
from winspect.system.opening import open_file, read_text

logger = logging.getLogger(__name__)

WORTH_KEEPING = 32
"""Good samples from which on a set is kept on the disk: fewer are encoded in a second or two."""

LIMIT_BYTES = 4_000_000_000
"""All kept sets together; the ones not used for longest are removed first."""

_REFERENCES, _WARNINGS, _ALIGNMENT = "references.npz", "warnings.json", "alignment.json"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class ClassState:
    """All that a predictor knows of a class, in NumPy arrays: see :meth:`winspect.inspector.base.Predictor.take`.

    Attributes:
        text: float32 (2, embedding); normal, anomalous; averaged as the method says.
        references: what is kept of the good samples; None for zero-shot.
        samples: names and hashes of the good samples, in order; none for zero-shot.
        alignment: to the first good sample; None for pictures as they are.
    """

    text: np.ndarray
    references: References | None = None
    samples: tuple[Fingerprint, ...] = ()
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        text = self.text
        if not isinstance(text, np.ndarray) or text.dtype != np.float32 or text.ndim != 2 or len(text) != 2:
            got = f"dtype {text.dtype}, shape {tuple(text.shape)}" if hasattr(text, "dtype") else repr(text)
            raise SettingsError(f"text of a class: got {got}, need a NumPy array, float32 (2, embedding)")
        if (self.references is None) != (not self.samples):
            there = "no references" if self.references is None else "references"
            raise SettingsError(
                f"got {there}, {len(self.samples)} fingerprints; need both (few-shot) or none (zero-shot)"
            )

    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write the arrays as files whose names begin with ``stem``; returns what a document says of them."""
        text, references = f"{stem}text.npy", None if self.references is None else f"{stem}references.npz"
        np.save(folder / text, self.text)
        if self.references is not None and references is not None:
            self.references.save(folder / references)
        alignment = {} if self.alignment is None else {"alignment": self.alignment.document()}
        shown = [sample.document() for sample in self.samples]
        return {"text": text, "references": references, "shown": shown, **alignment}

    @classmethod
    def read(
        cls,
        text: Path,
        references: Path | None,
        samples: tuple[Fingerprint, ...],
        alignment: Mapping[str, Any] | None = None,
    ) -> ClassState:
        """Read files of :meth:`save`; no pickled code is run.

        Raises:
            ValueError, OSError, BadZipFile: damaged.
        """
        with open_file(text) as file:
            array = np.load(file, allow_pickle=False)
        if array.dtype != np.float32 or array.ndim != 2 or len(array) != 2 or not np.isfinite(array).all():
            raise ValueError(f"{text.name} holds {array.dtype} {array.shape}, not two embeddings")
        kept = None if references is None else References.load(references)
        return cls(array, kept, samples, None if alignment is None else Alignment.read(alignment))


@dataclass(frozen=True, eq=False)
class Sample:
    """One good sample, encoded.

    Attributes:
        name: of the picture.
        embeddings: of the tiles of all its views, the upright one first.
        views: how many.
        size_wh: of the picture, in pixels.
    """

    name: str
    embeddings: Embeddings
    views: int
    size_wh: tuple[int, int]

    @property
    def is_finite(self) -> bool:
        """Whether its vectors are numbers."""
        vectors = [self.embeddings.image, *self.embeddings.patches.values(), *self.embeddings.windows.values()]
        return all(bool(array_namespace(each).all(array_namespace(each).isfinite(each))) for each in vectors)

    def upright(self) -> tuple[Embeddings, CutPicture]:
        """The upright view, as a picture to be scored."""
        tiles = len(self.embeddings.image) // self.views
        return self.embeddings.rows(0, tiles), CutPicture(tiles, self.size_wh)


@dataclass(frozen=True, eq=False)
class Learned:
    """Good samples, encoded.

    Attributes:
        references: what is kept of them.
        warnings: a line for each sample that decoding warned of, or that stands apart from the others.
        samples: the first of them, one by one; none where the set was read from the disk.
        alignment: to the first of them; None for pictures as they are.
    """

    references: References
    warnings: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    alignment: Alignment | None = None


@dataclass(frozen=True, eq=False)
class GoodSamples:
    """The good samples that a class is scored with.

    Attributes:
        references: what is kept of them.
        samples: their names and hashes, in order.
        find_levels: the largest map value of each of the first ones, scored with the others.
        alignment: to the first of them; None for pictures as they are.
    """

    references: References
    samples: tuple[Fingerprint, ...]
    find_levels: Callable[[], tuple[float, ...]] = tuple
    alignment: Alignment | None = None

    @cached_property
    def copies(self) -> Copies:
        """Finds them among pictures."""
        return Copies(self.samples)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """See ``find_levels``; found once."""
        return self.find_levels() if len(self.samples) > 1 else ()


def learn_once(
    folder: Path,
    made_by: Mapping[str, Any],
    fingerprints: Sequence[Fingerprint],
    learn: Callable[[], Learned],
    hash_again: Callable[[], Sequence[Fingerprint]],
) -> Learned:
    """Encode good samples, or read what an earlier start kept of the same samples, encoded in the same way.

    Args:
        folder: where sets are kept; made on first use.
        made_by: everything beside the samples that decides the result, as JSON has it.
        fingerprints: the samples' names and hashes. Few samples, and those without a hash, are never kept.
        learn: encodes them.
        hash_again: hashes them again, so that nothing is kept of samples that were replaced meanwhile.

    Raises:
        ReferencesError: a sample changed while it was read; and what ``learn`` raises.
    """
    hashes = [sample.sha256 for sample in fingerprints]
    if len(hashes) < WORTH_KEEPING or None in hashes:
        return learn()
    made: list[Learned] = []

    def make(place: Path) -> None:
        made.append(learn())
        if [sample.sha256 for sample in hash_again()] != hashes:
            raise ReferencesError("a reference picture changed while it was read: start again when all are there")
        made[0].references.map(to_numpy).save(place / _REFERENCES)
        (place / _WARNINGS).write_text(json.dumps(made[0].warnings), encoding="utf-8")
        if made[0].alignment is not None:
            (place / _ALIGNMENT).write_text(json.dumps(made[0].alignment.document()), encoding="utf-8")

    cache = GraphCache(folder, json.dumps(made_by, sort_keys=True), limit_bytes=LIMIT_BYTES)
    try:
        place = cache.get({"version": _VERSION, "samples": hashes}, make)
        if made:
            return made[0]
        logger.info("reference set read from %s", place)
        has_alignment = (place / _ALIGNMENT).is_file()
        alignment = Alignment.read(json.loads(read_text(place / _ALIGNMENT))) if has_alignment else None
        warnings = tuple(json.loads(read_text(place / _WARNINGS)))
        return Learned(References.load(place / _REFERENCES), warnings, alignment=alignment)
    except OSError as error:
        if not made:
            raise
        logger.warning("%s: cannot keep the reference set (%s); it is encoded anew next time", folder, error)
        return made[0]
