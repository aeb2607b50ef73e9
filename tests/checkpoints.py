"""Checkpoints with random weights in real architectures, in the real file formats."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

SMALL = "winspect-test-vit"
SHALLOW = {f"{name}-winspect-test-shallow": name for name in ("ViT-B-32", "ViT-B-16-plus-240")}
_SMALL_CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@functools.cache
def register_small() -> None:
    """Make the small architecture known to open_clip, and two real ones with two layers in each tower."""
    configs = {SMALL: _SMALL_CONFIG, **{name: _with_layers(deep, 2) for name, deep in SHALLOW.items()}}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs.items():
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)


def _with_layers(name: str, layers: int) -> dict:
    config = open_clip.get_model_config(name)
    return config | {tower: config[tower] | {"layers": layers} for tower in ("vision_cfg", "text_cfg")}


def build(name: str, seed: int = 0, layers: int | None = None) -> torch.nn.Module:
    """An open_clip model in which every parameter matters: biases and norms are random too.

    ``layers`` is how many each tower has, where those of the architecture would only take longer.
    """
    if name in (SMALL, *SHALLOW):
        register_small()
    config = _with_layers(name, layers) if layers else open_clip.get_model_config(name)
    config.pop("custom_text", None)
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for key, parameter in model.named_parameters():
        # Small enough that activations keep their size through the layers, large enough to tell inputs apart.
        spread = 0.3 if parameter.ndim <= 1 else 1.5 * parameter.shape[-1] ** -0.5
        centre = 1.0 if ".ln_" in f".{key}" and key.endswith("weight") else 0.0
        parameter.data.normal_(centre, spread, generator=generator)
    for tower in (model, getattr(model, "text", None)):
        if tower is not None and getattr(tower, "attn_mask", None) is not None:
            length = tower.attn_mask.shape[-1]
            tower.attn_mask = torch.full((length, length), float("-inf")).triu(1)
    return model


def save_checkpoint(name: str, folder: Path, suffix: str = ".safetensors", seed: int = 0) -> Path:
    """Random weights of an architecture as a file."""
    path = folder / f"{name}-random{suffix}"
    state = {key: tensor.contiguous() for key, tensor in build(name, seed).state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    return path
