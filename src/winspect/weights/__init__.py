"""Where CLIP weights come from: a pretrained tag, a file, or the bundled model; always verified.

``sources`` finds and fetches them, ``checkpoint`` reads them. Importing this file alone, as the command line does,
imports neither torch nor open_clip.
"""

from winspect.weights.cache import cache_folder

__all__ = ["DEFAULT_MODEL", "DEFAULT_TAGS", "HUB", "LOCAL", "TIMM", "TINY", "cache_folder"]

TINY = "winspect-tiny"
"""The bundled model."""

DEFAULT_MODEL = "ViT-B-16-plus-240"
"""open_clip's architecture of the paper."""

DEFAULT_TAGS = {DEFAULT_MODEL: "laion400m_e31"}
"""The weights of the paper. No other architecture has weights that would be chosen without asking."""

LOCAL, HUB = "local-dir:", "hf-hub:"
"""Beginnings of names, as open_clip 3 has them: a folder, or a repository of the Hugging Face hub, with weights and an
``open_clip_config.json`` that says how the model is built."""

TIMM = "timm/"
"""Beginning of the names of timm's models."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Endings of weights files."""
