"""Names of models, without importing what they need."""

from __future__ import annotations

TINY = "winspect-tiny"
"""The bundled model."""

DEFAULT_MODEL = "ViT-B-16-plus-240"
"""open_clip's architecture of the paper."""

DEFAULT_TAGS = {DEFAULT_MODEL: "laion400m_e31"}
"""The weights of the paper. No other architecture has weights that would be chosen without asking."""
