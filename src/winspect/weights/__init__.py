"""Where CLIP weights come from: a pretrained tag, a file, or the bundled model; always verified, never random.

Importing this package imports neither torch nor open_clip; they come with the first use of what needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from winspect.weights.cache import cache_folder
from winspect.weights.names import DEFAULT_MODEL, DEFAULT_TAGS, TINY

if TYPE_CHECKING:
    from winspect.weights.architectures import list_architectures
    from winspect.weights.listing import Entry, list_weights, pull
    from winspect.weights.sources import Source, find, resolve

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_TAGS",
    "TINY",
    "Entry",
    "Source",
    "cache_folder",
    "find",
    "list_architectures",
    "list_weights",
    "pull",
    "resolve",
]

_LAZY = {
    "Entry": "listing",
    "Source": "sources",
    "find": "sources",
    "list_architectures": "architectures",
    "list_weights": "listing",
    "pull": "listing",
    "resolve": "sources",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'winspect.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"winspect.weights.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
