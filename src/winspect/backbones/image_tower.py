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
from torch.nn.functional import interpolate, linear, scaled_dot_product_attention

from winspect.backbones.embeddings import FINE, LAST, LAST_NORM, STEM, STEMS, WHOLE, Embeddings, Needs, block
from winspect.backbones.resizing import bicubic_weights
from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError, SettingsError


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


def grid_of(image_hw: Sequence[int], patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of a picture.

    Raises:
        SettingsError: its sides are no multiples of the patch.
    """
    height, width = int(image_hw[0]), int(image_hw[1])
    if height % patch or width % patch or not (height and width):
        raise SettingsError(
            f"got tiles of {width}x{height} pixels for patches of {patch}x{patch}; both sides must be multiples of it"
        )
    return height // patch, width // patch


class ImageTower(nn.Module):
    """open_clip's plain ViT image tower, sharing its weights, that also embeds windows, at any size of whole patches.

    At another size than its own the positional embedding's grid is resized as open_clip's ``resize_pos_embed`` does it
    (bicubic, antialiased), once for each grid.

    Args:
        visual: the ``visual`` module of an open_clip model. Its ``conv1`` may be any module that turns pixels
            (batch, 3, height, width) into a map (batch, width, rows, columns).

    Attributes:
        image_hw: its own size, in pixels; ``grid_hw``: the same, in patches.
        patch: side of a patch in pixels.
        depth: number of blocks.
        has_text: whether there is a text tower to its image embeddings.

    Raises:
        ArchitectureError: not a plain ViT with class-token pooling.
    """

    conv1: Any
    ln_pre: nn.Module
    ln_post: nn.Module
    class_embedding: nn.Parameter
    positional_embedding: nn.Parameter
    proj: nn.Parameter
    has_text = True

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
        self.patch = int(visual.patch_size[0])
        self.depth = len(self.blocks)
        self._resized: dict[tuple[object, ...], Tensor] = {}

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
        stems = STEMS if hasattr(self.conv1, "stem_layers") else ()
        return (LAST, LAST_NORM, WHOLE, *(block(number + 1) for number in range(self.depth)), *stems)

    def check(self, needs: Needs) -> None:
        """Refuse what the tower cannot give.

        Raises:
            SettingsError: windows that do not fit its grid.
            ArchitectureError: a layer that it does not have.
        """
        needs.check_grid(self.grid_hw)
        needs.check_layers(self.layers)

    def tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """[class token, patches] + positions, then ln_pre: (batch, 3, height, width) to (batch, 1 + patches, width).

        Beside them the stem's features (batch, patches, channels), or None for a plain ViT.
        """
        stem = self.conv1.stem_features(pixels) if hasattr(self.conv1, "stem_features") else None
        return self._tokens(pixels, stem), None if stem is None else _to_sequence(stem)

    def _tokens(self, pixels: Tensor, stem: Tensor | None) -> Tensor:
        grid = self.conv1(pixels) if stem is None else self.conv1.project(stem)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([class_token, _to_sequence(grid)], dim=1)
        return self.ln_pre(x + self._positions(grid_of(pixels.shape[2:], self.patch)))

    def prepare(self, image_hw: tuple[int, int], needs: Needs) -> None:
        """Make what follows from sizes alone, before a graph of that size is traced: it is constant there.

        Raises:
            SettingsError: the sides are no multiples of the patch.
        """
        seen_hw = needs.seen_hw(image_hw)
        for size in {seen_hw, image_hw} if WHOLE in needs.layers else {seen_hw}:
            self._positions(grid_of(size, self.patch))
        for sides in zip(image_hw, seen_hw, strict=True):
            self._weights(*sides)

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """The positional embedding of a grid: (1 + patches, width)."""
        own = self.positional_embedding
        if grid_hw == self.grid_hw:
            return own
        key = (grid_hw, own.device, own.dtype)
        if key not in self._resized:
            with torch.inference_mode(False), torch.no_grad():
                self._resized[key] = _resized_positions(own, self.grid_hw, grid_hw)
        return self._resized[key]

    def pooled(self, x: Tensor) -> Tensor:
        """ln_post of the class token, projected: (sequences, length, width) to (sequences, embedding)."""
        return self.ln_post(x[:, 0]) @ self.proj

    def window_embeddings(
        self,
        tokens: Tensor,
        scale: int,
        stride: int = 1,
        *,
        grid_hw: tuple[int, int] | None = None,
        projected: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Every window of a scale, alone through the tower: (batch, 1 + patches, width) to (batch, windows, embedding).

        The first block's ln_1 and projection are per token, so they are computed once per token and gathered;
        of the last block only the class token is read.

        Args:
            grid_hw: rows and columns of the patches; None for the tower's own.
            projected: the first block's queries, keys and values of the tokens, when they are known already.
        """
        sequences = _window_sequences(grid_hw or self.grid_hw, scale, stride, tokens.device)

        def gather(x: Tensor) -> Tensor:
            return x[:, sequences].flatten(0, 1)

        x = gather(tokens)
        first: Any = self.blocks[0]
        gathered: tuple[Tensor, ...] | None = tuple(gather(part) for part in projected or first.project(tokens))
        for number, module in enumerate(self.blocks, 1):
            x = module(x, projected=gathered, class_token_only=number == self.depth)
            gathered = None
        return self.pooled(x).unflatten(0, (len(tokens), len(sequences)))

    def forward(
        self, pixels: Tensor, needs: Needs, *, before_blocks: Callable[[Tensor], None] | None = None
    ) -> Embeddings:
        """Embed a batch of normalised pictures.

        Args:
            pixels: float (batch, 3, height, width) of the tower's device and dtype, sides multiples of the patch.
            needs: see :meth:`check`.
            before_blocks: called with the tokens before the first block runs; where an accelerator is told to
                prefetch the blocks' weights. Not where no block runs.

        Raises:
            SettingsError: the sides are no multiples of the patch, or a window does not fit them.
        """
        grid_of(pixels.shape[2:], self.patch)  # refuses other sides
        seen_hw = needs.seen_hw((int(pixels.shape[2]), int(pixels.shape[3])))
        grid_hw = grid_of(seen_hw, self.patch)
        runs_blocks, tile = needs.blocks(self.depth) > 0, pixels
        stems = [layer for layer in STEMS if layer in needs.layers or (layer == STEM and runs_blocks)]
        if seen_hw == pixels.shape[2:]:
            stem = self._stem_maps(pixels, stems)
        else:
            stem = self._stem_maps(pixels, [layer for layer in stems if layer in FINE])
            pixels = self._resized_pixels(pixels, seen_hw)
            stem |= self._stem_maps(pixels, [layer for layer in stems if layer not in FINE])
        known = {layer: maps.permute(0, 2, 3, 1) for layer, maps in stem.items()}
        image, windows = pixels.new_zeros(len(pixels), 0), {}
        if runs_blocks:
            tokens = self._tokens(pixels, stem.get(STEM))
            if before_blocks is not None:
                before_blocks(tokens)
            first: Any = self.blocks[0]
            projected = first.project(tokens)
            image, layers = self._through_blocks(tokens, needs, projected)
            known |= {layer: x[:, 1:].unflatten(1, grid_hw) for layer, x in layers.items()}
            windows = {
                scale: self.window_embeddings(tokens, scale, needs.stride, grid_hw=grid_hw, projected=projected)
                for scale in needs.scales
            }
        if WHOLE in needs.layers:
            whole = image if seen_hw == tile.shape[2:] else self._whole(tile)
            known[WHOLE] = whole[:, None, None]
        return Embeddings(image, windows, {layer: known[layer] for layer in needs.layers}, grid_hw)

    def _whole(self, tile: Tensor) -> Tensor:
        """The image embedding (batch, embedding) of pictures as they are."""
        tokens, _ = self.tokens(tile)
        first: Any = self.blocks[0]
        return self._through_blocks(tokens, Needs(), first.project(tokens))[0]

    def _stem_maps(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Maps of the stem's layers (batch, channels, rows, columns)."""
        return self.conv1.stem_layers(pixels, layers) if layers and hasattr(self.conv1, "stem_layers") else {}

    def _resized_pixels(self, pixels: Tensor, new_hw: tuple[int, int]) -> Tensor:
        """Pictures (batch, 3, height, width) at another size, bicubic and antialiased."""
        rows, columns = (self._weights(*sides) for sides in zip(pixels.shape[2:], new_hw, strict=True))
        return rows @ pixels @ columns.T

    def _weights(self, length: int, count: int) -> Tensor:
        """See :func:`bicubic_weights`; made once."""
        key = (int(length), count, self.device, self.dtype)
        if key not in self._resized:
            with torch.inference_mode(False):
                weights = torch.from_numpy(bicubic_weights(int(length), count))
                self._resized[key] = weights.to(self.device, self.dtype)
        return self._resized[key]

    def _through_blocks(
        self, tokens: Tensor, needs: Needs, projected: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The image embedding, (batch, 0) where not all blocks run; and tokens (batch, 1 + patches, width) by layer."""
        run, x = needs.blocks(self.depth), tokens
        whole = not {LAST, LAST_NORM, block(self.depth)}.isdisjoint(needs.layers)
        layers: dict[str, Tensor] = {}
        for number, module in enumerate(self.blocks, 1):
            if number > run:
                return tokens.new_zeros(len(tokens), 0), layers
            alone = number == self.depth and not whole
            x = module(x, projected=projected if number == 1 else None, class_token_only=alone)
            if block(number) in needs.layers:
                layers[block(number)] = x
        if LAST in needs.layers:
            layers[LAST] = x
        if LAST_NORM in needs.layers:
            layers[LAST_NORM] = self.ln_post(x)
        return self.pooled(x), layers


def _resized_positions(positions: Tensor, grid_hw: tuple[int, int], new_hw: tuple[int, int]) -> Tensor:
    """The positional embedding (1 + patches, width) of a grid for another one, the class token's kept."""
    exact = positions.detach().to(torch.promote_types(positions.dtype, torch.float32))
    grid = exact[1:].T.unflatten(1, grid_hw)[None]
    resized = interpolate(grid, size=new_hw, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([exact[:1], _to_sequence(resized)[0]]).to(positions.dtype)
