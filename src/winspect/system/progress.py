"""Progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], name: str, total: int, *, shown: bool) -> Iterable[Item]:
    """Hand the items through; with ``shown``, and ``total`` above 0, count them on stderr as they pass."""
    if not shown or not total:
        return items
    from tqdm import tqdm

    return tqdm(items, name, total=total, unit="picture", file=sys.stderr, disable=None, leave=False)
