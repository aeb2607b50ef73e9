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
_SMALL_CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@functools.cache
def register_small() -> None:
    """Make the small architecture known to open_clip."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{SMALL}.json"
        path.write_text(json.dumps(_SMALL_CONFIG))
        open_clip.add_model_config(path)


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """An open_clip model in which every parameter matters: biases and norms are random too."""
    if name == SMALL:
        register_small()
    config = open_clip.get_model_config(name)
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
