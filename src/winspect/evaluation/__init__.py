"""Evaluation on a data set: draw references, judge category by category, keep figures that can be trusted.

Reading and comparing results needs no torch; judging does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from winspect.evaluation.published import matching_tables, published_tables
    from winspect.evaluation.results import METRICS, Run, open_run
    from winspect.evaluation.runner import evaluate
    from winspect.evaluation.shots import draw

__all__ = ["METRICS", "Run", "draw", "evaluate", "matching_tables", "open_run", "published_tables"]

_LAZY = {
    "METRICS": "results",
    "Run": "results",
    "draw": "shots",
    "evaluate": "runner",
    "matching_tables": "published",
    "open_run": "results",
    "published_tables": "published",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'winspect.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"winspect.evaluation.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
