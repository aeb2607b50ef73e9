"""Vision transformers of timm with random weights in which all matters, and an oracle that spells them out."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

KINDS = {
    "plain": ("vit_tiny_patch16_224", {"depth": 3}),
    "layer scale": ("vit_small_patch14_dinov2", {"depth": 3, "embed_dim": 96, "num_heads": 3, "img_size": 98}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"depth": 3, "embed_dim": 96, "num_heads": 3, "img_size": 98}),
}
"""Real architectures, some narrower or with fewer blocks than published."""
ROTARY = {
    "dinov3": ("vit_small_patch16_dinov3", {"depth": 3, "embed_dim": 96, "num_heads": 3}),
    "eva02": ("eva02_tiny_patch14_224", {"depth": 3}),
}


def build(name: str, arguments: dict, seed: int = 0) -> torch.nn.Module:
    """As timm builds it, every parameter random, float32."""
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **arguments)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        spread = 0.3 if parameter.ndim <= 1 else 1.5 * parameter.shape[-1] ** -0.5
        is_gain = "norm" in key and key.endswith("weight")
        parameter.data.normal_(1.0 if is_gain else 0.0, spread, generator=generator)
    return model.eval().requires_grad_(False)


def save(model: torch.nn.Module, path: Path) -> Path:
    """The model's weights as safetensors."""
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    return path


def save_folder(name: str, arguments: dict, folder: Path, seed: int = 0) -> torch.nn.Module:
    """A folder as timm writes it for the hub: configuration and weights."""
    model = build(name, arguments, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / "model.safetensors")
    settings = {key: value for key, value in model.pretrained_cfg.items() if key not in ("url", "hf_hub_id")}
    document = {"architecture": name, "num_classes": 0, "model_args": arguments, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(document))
    return model


def oracle(state: dict, pixels: torch.Tensor, *, heads: int, positions: torch.Tensor | None = None) -> dict:
    """One picture (3, height, width) through a plain ViT in float64, from its state dict: tokens by layer.

    ``positions`` are those of the picture's grid, where it is not the table's.
    """
    w = {key: tensor.double() for key, tensor in state.items()}
    kernel = w["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    pieces = [
        torch.einsum("chw,dchw->d", pixels[:, y : y + side, x : x + side].double(), kernel) + w["patch_embed.proj.bias"]
        for y in range(0, pixels.shape[1], side)
        for x in range(0, pixels.shape[2], side)
    ]
    registers = list(w["reg_token"][0]) if "reg_token" in w else []
    patches, prefix = torch.stack(pieces), torch.stack([w["cls_token"][0, 0], *registers])
    table = w["pos_embed"][0] if positions is None else positions.double()
    # With registers timm's DINOv2 has no positions for the tokens in front.
    x = torch.cat([prefix, patches + table]) if registers else torch.cat([prefix, patches]) + table
    found = {}

    def norm(x, name):
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-6) ** 0.5 * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    number = 0
    while f"blocks.{number}.norm1.weight" in w:
        name = f"blocks.{number}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        queries, keys, values = (part.unflatten(1, (heads, -1)) for part in qkv.chunk(3, dim=1))
        weights = torch.softmax(torch.einsum("ihd,jhd->hij", queries, keys) / queries.shape[2] ** 0.5, dim=2)
        attended = linear(torch.einsum("hij,jhd->ihd", weights, values).flatten(1), f"{name}.attn.proj")
        x = x + attended * w.get(f"{name}.ls1.gamma", torch.ones(()))
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = linear(0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)), f"{name}.mlp.fc2")
        x = x + hidden * w.get(f"{name}.ls2.gamma", torch.ones(()))
        number += 1
        found[f"block_{number}"] = x[len(prefix) :]
    found["last"], normed = x[len(prefix) :], norm(x, "norm")
    return {**found, "last_norm": normed[len(prefix) :], "image": normed[0]}
