"""Small image towers of every shape that open_clip's plain ViT has, with random weights in which all matters."""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from winspect.backbones.embeddings import LAST, Needs


def needs(scales: tuple[int, ...] = (), stride: int = 1, patches: bool = False) -> Needs:
    """Windows, and the last layer's patch tokens."""
    return Needs(tuple(scales), stride, (LAST,) if patches else ())


IMAGE_HW = (48, 64)  # 3 x 4 patches


def make_visual(
    *, layers: int = 3, activation: type[nn.Module] = nn.GELU, layer_scale: bool = False, biases: bool = True, seed=0
) -> VisionTransformer:
    """open_clip's image tower in float32, in eval mode, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    visual = VisionTransformer(
        image_size=IMAGE_HW,
        patch_size=16,
        width=32,
        layers=layers,
        heads=2,
        mlp_ratio=4.0,
        ls_init_value=0.5 if layer_scale else None,
        output_dim=24,
        act_layer=activation,
    )
    visual = visual.eval().requires_grad_(False)
    for name, parameter in visual.named_parameters():
        spread = 0.3 if parameter.ndim <= 1 else 1.5 * parameter.shape[-1] ** -0.5
        is_gain = ".ln_" in f".{name}" and name.endswith("weight")
        parameter.data.normal_(1.0 if is_gain else 0.0, spread, generator=generator)
    if not biases:
        for block in visual.transformer.resblocks:
            block.attn.in_proj_bias = None
            for linear in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                linear.bias = None
    return visual


def make_pixels(count: int, seed: int = 1) -> torch.Tensor:
    """Normalised tiles."""
    return torch.randn(count, 3, *IMAGE_HW, generator=torch.Generator().manual_seed(seed))


VARIANTS = {
    "gelu": {},
    "quick gelu": {"activation": QuickGELU},
    "layer scale": {"layer_scale": True},
    "no biases": {"biases": False},
    "one block": {"layers": 1},
    "two blocks": {"layers": 2},
}
