"""Learn good samples: encode them once for a set of pictures, however often a model is started with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from winspect.engines.graph_cache import GraphCache
from winspect.errors import ReferencesError
from winspect.inspector.references import Learned, load_references, save_references
from winspect.pictures.fingerprints import Fingerprint
from winspect.system.arrays import to_numpy
from winspect.system.opening import read_text

logger = logging.getLogger(__name__)

WORTH_KEEPING = 32
"""Good samples from which on a set is kept on the disk: fewer are encoded in a second or two."""

LIMIT_BYTES = 4_000_000_000
"""All kept sets together; the ones not used for longest are removed first."""

_REFERENCES, _WARNINGS = "references.npz", "warnings.json"
_VERSION = 1


def learn_once(
    folder: Path,
    made_by: Mapping[str, Any],
    shown: Sequence[Fingerprint],
    learn: Callable[[], Learned],
    fingerprints: Callable[[], Sequence[Fingerprint]],
) -> Learned:
    """Encode good samples, or read what an earlier start kept of the same samples, encoded in the same way.

    Args:
        folder: where sets are kept; made on first use.
        made_by: everything beside the samples that decides the result, as JSON has it.
        shown: the samples' names and hashes. Few samples, and those without a hash, are never kept.
        learn: encodes them.
        fingerprints: hashes them again, so that nothing is kept of samples that were replaced meanwhile.

    Raises:
        ReferencesError: a sample changed while it was read; and what ``learn`` raises.
    """
    hashes = [sample.sha256 for sample in shown]
    if len(hashes) < WORTH_KEEPING or None in hashes:
        return learn()
    made: list[Learned] = []

    def make(place: Path) -> None:
        made.append(learn())
        if [sample.sha256 for sample in fingerprints()] != hashes:
            raise ReferencesError("a reference picture changed while it was read: start again when all are there")
        save_references(made[0].references.map(to_numpy), place / _REFERENCES)
        (place / _WARNINGS).write_text(json.dumps(made[0].warnings), encoding="utf-8")

    cache = GraphCache(folder, json.dumps(made_by, sort_keys=True), limit_bytes=LIMIT_BYTES)
    try:
        place = cache.get({"version": _VERSION, "samples": hashes}, make)
        return made[0] if made else _read(place)
    except OSError as error:
        if not made:
            raise
        logger.warning("%s: cannot keep the reference set (%s); it is encoded anew next time", folder, error)
        return made[0]


def _read(place: Path) -> Learned:
    logger.info("reference set read from %s", place)
    return Learned(load_references(place / _REFERENCES), tuple(json.loads(read_text(place / _WARNINGS))))
