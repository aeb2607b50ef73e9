"""Verdicts of the gate, kept on disk: it takes a minute for a large model, and its outcome does not change."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from winspect.engines.gate.comparison import GateResult
from winspect.system.opening import read_text
from winspect.weights.cache import name_of, write_json

logger = logging.getLogger(__name__)


class GateRecords:
    """One small file per key: weights, engine and its version, precision, recipe, pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{name_of(key)}.json"

    def read(self, key: Mapping[str, Any]) -> GateResult | None:
        """The verdict, or None where there is none or it cannot be read."""
        path = self._path(key)
        try:
            note = json.loads(read_text(path))
            return GateResult(**{**note["result"], "reasons": tuple(note["result"]["reasons"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: unreadable verdict of the precision gate (%s); checking again", path, error)
            return None

    def all(self) -> Iterator[tuple[dict[str, Any], GateResult]]:
        """Every verdict that can be read, with its key."""
        for path in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                note = json.loads(read_text(path))
                yield note["key"], GateResult(**{**note["result"], "reasons": tuple(note["result"]["reasons"])})

    def write(self, key: Mapping[str, Any], result: GateResult) -> None:
        """Keep a verdict. Where that fails, it is only found again next time."""
        note = {"key": dict(key), "result": asdict(result)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self._path(key), note)
        except OSError as error:
            logger.warning("%s: cannot keep the verdict of the precision gate (%s)", self.folder, error)
