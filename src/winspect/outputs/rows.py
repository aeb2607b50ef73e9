"""Rows: a judgement as an entry of ``predictions.jsonl``, of ``--json`` and of the service's replies."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winspect.calibration.judgement import Judgement
from winspect.system.opening import open_file

COLUMNS = ("path", "class", "anomaly_score", "verdict", "threshold", "map", "error", "warning")
"""Columns of ``predictions.csv``."""


def row_of(judgement: Judgement, *, map_file: str | None = None) -> dict[str, Any]:
    """A judgement as a row; ``p_value`` is there where a calibration was asked.

    Args:
        map_file: of the heat map or the raw map, as rows name it.
    """
    result = judgement.result
    return {
        "path": result.path,
        "class": result.category_name,
        "anomaly_score": result.anomaly_score,
        "verdict": judgement.verdict,
        "threshold": judgement.threshold,
        "boxes": judgement.boxes,
        "map": map_file,
        "error": None if result.error is None else error_entry(result.error),
        "warning": result.warning,
        **({"p_value": judgement.p_value} if judgement.is_calibrated else {}),
    }


def error_entry(error: BaseException) -> dict[str, str]:
    """An error as rows have it."""
    return {"type": type(error).__name__, "message": str(error)}


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON. File names may hold bytes that are not UTF-8: they are written as escapes."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_rows(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Rows of a file, each with the byte at which it ends. A last line without its end is none.

    Args:
        start: byte to read from; where the file is shorter, from its beginning.

    Raises:
        ValueError: a line is not JSON; names the byte at which it ends.
    """
    with open_file(path) as file:
        end = file.seek(start if start < path.stat().st_size else 0)
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"not a row of predictions at byte {end}") from error
            yield row, end


def remove_cut_line(path: Path) -> int:
    """Remove a last line without its end, as a killed run leaves it; returns its number of bytes."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n") + 1
            file.truncate(end)
    return size - end


@dataclass
class Counts:
    """Numbers of rows: all, those with the verdict ``anomalous``, with an error, with a warning."""

    rows: int = 0
    anomalous: int = 0
    failed: int = 0
    warned: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        self.anomalous += row.get("verdict") == "anomalous"
        self.failed += row["error"] is not None
        self.warned += row.get("warning") is not None


def count_of_warnings(number: int) -> str:
    """The end of a summary line, empty where there are none.

    >>> count_of_warnings(1), count_of_warnings(3), count_of_warnings(0)
    (', 1 picture with a warning', ', 3 pictures with a warning', '')
    """
    return f", {number:,} picture{'s' * (number != 1)} with a warning" if number else ""
