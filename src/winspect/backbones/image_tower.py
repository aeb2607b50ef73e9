"""Pictures to image, window and patch embeddings: CLIP's image tower, with WinCLIP's windows.

The tower is run from its weights, block by block, always batch-first. It never calls open_clip's own transformer:
that ran sequence-first, (L, N, D), up to open_clip 2.24 and batch-first from 2.26 on, and code that permutes by
hand lets every window attend to the *other windows* on one of the two.

Source: WinCLIP (arXiv 2303.14814), section 4.2: a window embedding is the class token's output when the class token
and the window's patches alone pass through the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from winspect.backbones.embeddings import LAST, LAST_NORM, STEM, Embeddings, Needs
from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError


class Block(nn.Module):
    """One residual attention block of open_clip, with the two exact savings that windows allow.

    Raises:
        ArchitectureError: the block is not open_clip's plain one (attention other than ``nn.MultiheadAttention``).
    """

    ln_1: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    ls_1: nn.Module
    ls_2: nn.Module

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = getattr(block, "attn", None)
        if not isinstance(attention, nn.MultiheadAttention) or attention.in_proj_weight is None:
            raise ArchitectureError(
                f"got a transformer block with attention {type(attention).__name__}; winspect runs open_clip's plain "
                "blocks (nn.MultiheadAttention with one input projection) only; choose a plain ViT such as ViT-B-16"
            )
        self.heads = attention.num_heads
        self.attention = attention
        self.ln_1, self.ln_2, self.mlp = block.ln_1, block.ln_2, block.mlp
        self.ls_1 = getattr(block, "ls_1", nn.Identity())
        self.ls_2 = getattr(block, "ls_2", nn.Identity())

    def project(self, x: Tensor, *, class_token_only: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (..., length, width); queries of the first token alone on request."""
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        normed = self.ln_1(x)
        if not class_token_only:
            queries, keys, values = linear(normed, weight, bias).chunk(3, dim=-1)
            return queries, keys, values
        width = x.shape[-1]
        keys, values = linear(normed, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
        queries = linear(normed[..., :1, :], weight[:width], None if bias is None else bias[:width])
        return queries, keys, values

    def forward(
        self,
        x: Tensor,
        *,
        projected: tuple[Tensor, Tensor, Tensor] | None = None,
        class_token_only: bool = False,
        causal: bool = False,
    ) -> Tensor:
        """Tokens (sequences, length, width) to tokens of the same shape, or (sequences, 1, width).

        Args:
            projected: queries, keys and values of x, when they are known already.
            class_token_only: compute the first token's output alone; exact, for a last block of which nothing
                else is read.
            causal: a token sees itself and earlier tokens only (the text tower).
        """
        queries, keys, values = projected or self.project(x, class_token_only=class_token_only)
        if class_token_only:
            x, queries = x[:, :1], queries[:, :1]

        def split_heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        attended = scaled_dot_product_attention(
            split_heads(queries), split_heads(keys), split_heads(values), is_causal=causal
        )
        return self.follow(x, attended.transpose(1, 2).flatten(2))

    def follow(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention, token by token: both (..., width), the attended values before their projection."""
        x = x + self.ls_1(self.attention.out_proj(attended))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


def _check_plain_vit(visual: Any) -> None:
    """Refuse every image tower whose class token is not the pooled output, or whose parts we would skip."""
    parts = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")
    missing = [part for part in parts if getattr(visual, part, None) is None]
    if missing or not hasattr(visual.transformer, "resblocks"):
        raise ArchitectureError(
            f"got an image tower {type(visual).__name__} without {', '.join(missing) or 'resblocks'}; WinCLIP needs "
            "open_clip's plain ViT image tower with a class token; choose one such as ViT-B-16-plus-240"
        )
    reasons = {
        "attention pooling": getattr(visual, "attn_pool", None) is not None,
        "average pooling": bool(getattr(visual, "global_average_pool", False))
        or getattr(visual, "pool_type", "tok") != "tok",
        "input patch norm": bool(getattr(visual, "input_patchnorm", False)),
    }
    found = [reason for reason, present in reasons.items() if present]
    if found:
        raise ArchitectureError(
            f"got an image tower with {', '.join(found)}; WinCLIP needs class-token pooling on a plain ViT; "
            "choose one such as ViT-B-16-plus-240"
        )


def _to_sequence(grid: Tensor) -> Tensor:
    """(batch, channels, rows, columns) to (batch, rows * columns, channels)."""
    return grid.flatten(2).transpose(1, 2)


@lru_cache(maxsize=64)
def _window_sequences(grid_hw: tuple[int, int], scale: int, stride: int, device: torch.device) -> Tensor:
    """Token numbers of every window, the class token (token 0) first: int64 (windows, 1 + scale * scale).

    Kept on the device: a graph that is being captured must not copy from the host.
    """
    with torch.inference_mode(False):
        return torch.nn.functional.pad(torch.tensor(window_indices(grid_hw, scale, stride), device=device) + 1, (1, 0))


class ImageTower(nn.Module):
    """open_clip's plain ViT image tower, sharing its weights, that also embeds windows.

    Args:
        visual: the ``visual`` module of an open_clip model. Its ``conv1`` may be any module that turns pixels
            (batch, 3, size, size) into a map (batch, width, rows, columns).

    Raises:
        ArchitectureError: not a plain ViT with class-token pooling.
    """

    conv1: Any
    ln_pre: nn.Module
    ln_post: nn.Module
    class_embedding: nn.Parameter
    positional_embedding: nn.Parameter
    proj: nn.Parameter

    def __init__(self, visual: Any) -> None:
        super().__init__()
        _check_plain_vit(visual)
        self.conv1, self.ln_pre, self.ln_post = visual.conv1, visual.ln_pre, visual.ln_post
        self.class_embedding, self.positional_embedding = visual.class_embedding, visual.positional_embedding
        self.proj = visual.proj
        self.blocks = nn.ModuleList(Block(block) for block in visual.transformer.resblocks)
        rows, columns = visual.grid_size
        self.grid_hw = (int(rows), int(columns))
        height, width = visual.image_size if isinstance(visual.image_size, Sequence) else (visual.image_size,) * 2
        self.image_hw = (int(height), int(width))

    @property
    def dtype(self) -> torch.dtype:
        """The precision the tower runs in."""
        return self.class_embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the tower's weights lie."""
        return self.class_embedding.device

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose patch vectors it gives, by the names of :class:`~winspect.backbones.embeddings.Needs`."""
        return (LAST, LAST_NORM, STEM) if hasattr(self.conv1, "stem_features") else (LAST, LAST_NORM)

    def check(self, needs: Needs) -> None:
        """Refuse what the tower cannot give.

        Raises:
            SettingsError: windows that do not fit its grid.
            ArchitectureError: a layer that it does not have.
        """
        needs.check_grid(self.grid_hw)
        missing = [layer for layer in needs.layers if layer not in self.layers]
        if missing:
            raise ArchitectureError(
                f"the method needs patches of {', '.join(missing)}, this model has {', '.join(self.layers)}; choose "
                "another recipe or model"
            )

    def tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """[class token, patches] + positions, then ln_pre: (batch, 3, height, width) to (batch, 1 + patches, width).

        Beside them the stem's features (batch, patches, channels), or None for a plain ViT.
        """
        stem = self.conv1.stem_features(pixels) if hasattr(self.conv1, "stem_features") else None
        grid = self.conv1(pixels) if stem is None else self.conv1.project(stem)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([class_token, _to_sequence(grid)], dim=1) + self.positional_embedding
        return self.ln_pre(x), None if stem is None else _to_sequence(stem)

    def pooled(self, x: Tensor) -> Tensor:
        """ln_post of the class token, projected: (sequences, length, width) to (sequences, embedding)."""
        return self.ln_post(x[:, 0]) @ self.proj

    def window_embeddings(
        self, tokens: Tensor, scale: int, stride: int = 1, *, projected: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Tensor:
        """Every window of a scale, alone through the tower: (batch, 1 + patches, width) to (batch, windows, embedding).

        The first block's ln_1 and projection are per token, so they are computed once per token and gathered;
        of the last block only the class token is read.

        Args:
            projected: the first block's queries, keys and values of the tokens, when they are known already.
        """
        sequences = _window_sequences(self.grid_hw, scale, stride, tokens.device)

        def gather(x: Tensor) -> Tensor:
            return x[:, sequences].flatten(0, 1)

        x = gather(tokens)
        first: Any = self.blocks[0]
        gathered: tuple[Tensor, ...] | None = tuple(gather(part) for part in projected or first.project(tokens))
        for block in self.blocks:
            x = block(x, projected=gathered, class_token_only=block is self.blocks[-1])
            gathered = None
        return self.pooled(x).unflatten(0, (len(tokens), len(sequences)))

    def forward(
        self, pixels: Tensor, needs: Needs, *, before_blocks: Callable[[Tensor], None] | None = None
    ) -> Embeddings:
        """Embed a batch of normalised pictures.

        Args:
            pixels: float (batch, 3, height, width) of the tower's size, device and dtype.
            needs: see :meth:`check`.
            before_blocks: called with the tokens before the first block runs; where an accelerator is told to
                prefetch the blocks' weights.
        """
        tokens, stem = self.tokens(pixels)
        if before_blocks is not None:
            before_blocks(tokens)
        first: Any = self.blocks[0]
        projected = first.project(tokens)
        whole = LAST in needs.layers or LAST_NORM in needs.layers
        x = tokens
        for block in self.blocks:
            last = block is self.blocks[-1] and not whole
            x = block(x, projected=projected if block is first else None, class_token_only=last)
        layers: dict[str, Callable[[], Any]] = {
            LAST: lambda: x[:, 1:],
            LAST_NORM: lambda: self.ln_post(x[:, 1:]),
            STEM: lambda: stem,
        }
        return Embeddings(
            image=self.pooled(x),
            windows={
                scale: self.window_embeddings(tokens, scale, needs.stride, projected=projected)
                for scale in needs.scales
            },
            patches={layer: layers[layer]().unflatten(1, self.grid_hw) for layer in needs.layers},
            grid_hw=self.grid_hw,
        )
