"""Names of models, without importing what they need."""

from __future__ import annotations

CONFIG_FILE = "open_clip_config.json"
"""open_clip's description of a model, beside its weights."""

TINY = "winspect-tiny"
"""The bundled model."""

DEFAULT_MODEL = "ViT-B-16-plus-240"
"""open_clip's architecture of the paper."""

LOCAL, HUB = "local-dir:", "hf-hub:"
"""Beginnings of names, as open_clip 3 has them: a folder, or a repository of the Hugging Face hub, with weights and an
``open_clip_config.json`` that says how the model is built."""

DEFAULT_TAGS = {DEFAULT_MODEL: "laion400m_e31"}
"""The weights of the paper. No other architecture has weights that would be chosen without asking."""


def brings_config(model: str) -> bool:
    """Whether a model's name says where its configuration and weights are, instead of an architecture."""
    return model.startswith((LOCAL, HUB))
