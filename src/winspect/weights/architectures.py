"""open_clip's architectures: which ones can be used, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import open_clip

from winspect.errors import ArchitectureError
from winspect.weights import DEFAULT_MODEL, TINY


def list_architectures() -> list[str]:
    """Names of open_clip's architectures that can be used, in open_clip's order."""
    return [name for name in open_clip.list_models() if _obstacle(open_clip.get_model_config(name)) is None]


def architecture(name: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture, a fresh copy.

    Raises:
        ArchitectureError: open_clip does not know the name, or WinCLIP cannot use the architecture.
    """
    known = open_clip.list_models()
    spelled = name.replace("/", "-")
    if spelled not in known:
        by_lower = {other.lower(): other for other in [*known, TINY]}
        close = [by_lower[match] for match in get_close_matches(spelled.lower(), by_lower, n=4)]
        hint = f"did you mean {' or '.join(close)}?" if close else "`winspect weights list --all` names them all"
        raise ArchitectureError(
            f"unknown model {name!r}: need {TINY!r} or one of open_clip's {len(known)} architectures, "
            f"such as {DEFAULT_MODEL!r}; {hint}"
        )
    config: dict[str, Any] = open_clip.get_model_config(spelled)
    check_usable(name, config)
    return config


def check_usable(name: str, config: dict[str, Any]) -> None:
    """Refuse a configuration that WinCLIP cannot use.

    Raises:
        ArchitectureError: names the obstacle.
    """
    obstacle = _obstacle(config)
    if obstacle:
        raise ArchitectureError(
            f"model {name!r} cannot be used: {obstacle}, and every recipe reads patch tokens and the class token of a "
            f"plain ViT; choose one of open_clip's (such as {DEFAULT_MODEL!r}), or timm/NAME for recipe memory"
        )


def _obstacle(config: dict[str, Any]) -> str | None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    pooling = vision.get("pool_type", "tok")
    if vision.get("timm_model_name"):
        return f"its image tower is timm's {vision['timm_model_name']}"
    if isinstance(vision.get("layers"), list):
        return "its image tower is a ResNet"
    if "multimodal_cfg" in config or vision.get("attentional_pool") or vision.get("global_average_pool"):
        return "its image tower pools over all tokens"
    if pooling != "tok":
        return f"its image tower pools by {pooling!r}"
    if text.get("hf_model_name"):
        return f"its text tower is the transformers model {text['hf_model_name']}"
    return None


def image_size(config: Mapping[str, Any]) -> int:
    """Side in pixels of the architecture's square input."""
    size = config["vision_cfg"].get("image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if height != width:
        raise ArchitectureError(f"the architecture's input is {height} x {width}; need a square one")
    return int(height)


def context_length(config: Mapping[str, Any]) -> int:
    """Number of tokens of the architecture's text input."""
    return int(config["text_cfg"].get("context_length", 77))


def architectures_like(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Architectures with the sizes of a checkpoint, from the shapes of its tensors; [] where none is known.

    Args:
        shapes: tensor name (open_clip's) -> shape.
    """

    def layers(tower: str) -> int:
        return len({name.removeprefix(tower).split(".")[0] for name in shapes if name.startswith(tower)})

    try:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        sizes = (
            *(shapes["visual.proj"][1], width, patch, shapes["visual.positional_embedding"][0]),
            *(layers("visual.transformer.resblocks."), *shapes["positional_embedding"]),
            layers("transformer.resblocks."),
        )
    except (LookupError, ValueError):
        return []
    return [name for name in list_architectures() if _sizes(open_clip.get_model_config(name)) == sizes]


def _sizes(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Embedding; width, patch, positions and layers of the image tower; positions, width and layers of the text's."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    patch = vision.get("patch_size", 16)
    return (
        *(config["embed_dim"], vision.get("width", 768), patch, (image_size(config) // patch) ** 2 + 1),
        *(vision.get("layers", 12), context_length(config), text.get("width", 512), text.get("layers", 12)),
    )
