"""Rows: a judgement as an entry of ``predictions.jsonl``, of ``--json`` and of the service's replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from winspect.calibration.judgement import Judgement

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


def error_entry(error: Exception) -> dict[str, str]:
    """An error as rows have it."""
    return {"type": type(error).__name__, "message": str(error)}


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON. File names may hold bytes that are not UTF-8: they are written as escapes."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
