"""Where CLIP weights come from: a pretrained tag, a file, or the bundled model; always verified.

Importing this package imports neither torch nor open_clip; they come with the first use of what needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from winspect.weights.cache import cache_folder

if TYPE_CHECKING:
    from winspect.weights.architectures import list_architectures
    from winspect.weights.sources import find, list_weights, pull, resolve
    from winspect.weights.tags import Source

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_TAGS",
    "TINY",
    "Source",
    "cache_folder",
    "find",
    "list_architectures",
    "list_weights",
    "pull",
    "resolve",
]

TINY = "winspect-tiny"
"""The bundled model."""

DEFAULT_MODEL = "ViT-B-16-plus-240"
"""open_clip's architecture of the paper."""

DEFAULT_TAGS = {DEFAULT_MODEL: "laion400m_e31"}
"""The weights of the paper. No other architecture has weights that would be chosen without asking."""

LOCAL, HUB = "local-dir:", "hf-hub:"
"""Beginnings of names, as open_clip 3 has them: a folder, or a repository of the Hugging Face hub, with weights and an
``open_clip_config.json`` that says how the model is built."""

_LAZY = {
    "list_architectures": "architectures",
    "Source": "tags",
    **dict.fromkeys(("find", "list_weights", "pull", "resolve"), "sources"),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'winspect.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"winspect.weights.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
