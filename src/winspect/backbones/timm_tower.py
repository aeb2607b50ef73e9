"""Pictures to patch embeddings: timm's plain vision transformers, block by block.

timm's own ``forward_intermediates`` resizes positions and computes rotary tables in every pass, on the host; here each
is made once for a grid and kept, so that a pass copies nothing to a GPU and a traced graph has constants in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from winspect.backbones.embeddings import LAST, LAST_NORM, Embeddings, Needs, block
from winspect.backbones.image_tower import grid_of
from winspect.errors import ArchitectureError


class TimmTower(nn.Module):
    """timm's ``VisionTransformer`` (DINOv2, DeiT, plain ViT ...) or ``Eva`` (DINOv3, EVA-02 ...), sharing its weights.

    Its image embedding is what timm calls the features before the classifier: pooled as the model pools, which is the
    class token behind the last norm for DINOv2; as wide as the tokens. ``last_norm`` is behind the norm in front of
    pooling; models that pool first have none there, and it is ``last``.

    Args:
        model: made with ``dynamic_img_size=True``.

    Attributes:
        image_hw: its own size, in pixels; ``grid_hw``: the same, in patches.
        patch: side of a patch in pixels.
        depth: number of blocks.
        has_text: whether there is a text tower to its image embeddings.

    Raises:
        ArchitectureError: another kind of model, or patches that are no squares of one convolution.
    """

    has_text = False

    def __init__(self, model: Any) -> None:
        super().__init__()
        if type(model) not in (VisionTransformer, Eva) or type(model.patch_embed) is not PatchEmbed:
            raise ArchitectureError(
                f"got timm's {type(model).__name__} with {type(getattr(model, 'patch_embed', None)).__name__}; need a "
                "plain ViT (VisionTransformer or Eva with PatchEmbed), whose blocks give a vector for each patch"
            )
        height, width = (int(side) for side in model.patch_embed.patch_size)
        if height != width:
            raise ArchitectureError(f"got patches of {width}x{height} pixels, need square ones; choose another model")
        self.model = model
        self.patch, self.depth = height, len(model.blocks)
        rows, columns = model.patch_embed.grid_size
        self.grid_hw = (int(rows), int(columns))
        self.image_hw = (self.patch * self.grid_hw[0], self.patch * self.grid_hw[1])
        self._by_block = bool(getattr(model, "rope_mixed", False))
        self._tables: dict[tuple[object, ...], tuple[Tensor | None, Tensor | None]] = {}

    @property
    def last_norm(self) -> nn.Module:
        """The norm behind the last block; the identity in models that pool first."""
        return self.model.norm

    @property
    def blocks(self) -> Any:
        """The transformer's blocks, in order."""
        return self.model.blocks

    @property
    def dtype(self) -> torch.dtype:
        """The precision the tower runs in."""
        return self.model.patch_embed.proj.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the tower's weights lie."""
        return self.model.patch_embed.proj.weight.device

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose patch vectors it gives, by the names of :class:`~winspect.backbones.embeddings.Needs`."""
        return (LAST, LAST_NORM, *(block(number + 1) for number in range(self.depth)))

    def check(self, needs: Needs) -> None:
        """Refuse what the tower cannot give.

        Raises:
            ArchitectureError: windows, or a layer that it does not have.
        """
        if needs.scales:
            raise ArchitectureError(
                "the recipe needs embeddings of windows, which compare with text: a CLIP of open_clip has them, timm's "
                "models do not; choose recipe memory, subspace or mutual, or a CLIP such as ViT-B-16-plus-240"
            )
        if needs.tower_size is not None:
            raise ArchitectureError(
                "the recipe shows the transformer a smaller picture than the stem, and timm's models have no stem; "
                "choose another recipe or model"
            )
        needs.check_layers(self.layers)

    def forward(
        self, pixels: Tensor, needs: Needs, *, before_blocks: Callable[[Tensor], None] | None = None
    ) -> Embeddings:
        """Embed a batch of normalised pictures.

        Args:
            pixels: float (batch, 3, height, width) of the tower's device and dtype, sides multiples of the patch.
            needs: see :meth:`check`.
            before_blocks: called with the tokens before the first block runs.

        Raises:
            SettingsError: the sides are no multiples of the patch.
        """
        grid_hw = grid_of(pixels.shape[2:], self.patch)
        positions, rotary = self._tables_of(grid_hw)
        x = self._tokens(pixels, positions)
        if before_blocks is not None:
            before_blocks(x)
        found: dict[str, Tensor] = {}
        run = needs.blocks(self.depth)
        for number, module in enumerate(self.blocks, 1):
            if number > run:
                return self._embeddings(x[:, 0, :0], found, needs, grid_hw)
            x = module(x) if rotary is None else module(x, rope=rotary[number - 1] if self._by_block else rotary)
            if block(number) in needs.layers:
                found[block(number)] = x
        normed = self.last_norm(x)
        found |= {LAST: x, LAST_NORM: normed}
        return self._embeddings(self.model.forward_head(normed, pre_logits=True), found, needs, grid_hw)

    def _embeddings(
        self, image: Tensor, found: Mapping[str, Tensor], needs: Needs, grid_hw: tuple[int, int]
    ) -> Embeddings:
        prefix = self.model.num_prefix_tokens
        patches = {layer: found[layer][:, prefix:].unflatten(1, grid_hw) for layer in needs.layers}
        return Embeddings(image=image, patches=patches, grid_hw=grid_hw)

    def _tokens(self, pixels: Tensor, positions: Tensor | None) -> Tensor:
        """[class token, registers, patches] with their positions: (batch, tokens, width)."""
        model = self.model
        x = model.patch_embed(pixels).flatten(1, 2)
        prefix = [token.expand(len(x), -1, -1) for token in (model.cls_token, model.reg_token) if token is not None]
        if positions is not None and model.no_embed_class:
            x = x + positions
        x = torch.cat([*prefix, x], dim=1)
        if positions is not None and not model.no_embed_class:
            x = x + positions
        return model.norm_pre(x)

    def prepare(self, image_hw: tuple[int, int], needs: Needs) -> None:
        """Make what follows from sizes alone, before a graph of that size is traced: it is constant there.

        Raises:
            SettingsError: the sides are no multiples of the patch.
        """
        self._tables_of(grid_of(image_hw, self.patch))

    def _tables_of(self, grid_hw: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Positions of a grid that are added to tokens, and those that turn queries and keys; None for those it lacks.

        Resampled by timm's own function, bicubic and antialiased.
        """
        key = (grid_hw, self.device, self.dtype)
        if key not in self._tables:
            model, positions = self.model, self.model.pos_embed
            rope = getattr(model, "rope", None)
            with torch.inference_mode(False), torch.no_grad():
                if positions is not None and grid_hw != self.grid_hw:
                    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
                    positions = resample_abs_pos_embed(
                        positions.detach(), list(grid_hw), list(self.grid_hw), num_prefix_tokens=prefix
                    )
                self._tables[key] = positions, None if rope is None else rope.get_embed(shape=list(grid_hw)).detach()
        return self._tables[key]
