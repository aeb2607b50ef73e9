"""Arithmetic and memory traffic of one tile in the image tower, by operator class. Numbers only.

A multiply-add counts 2, any other arithmetic operation 1, erf and a reciprocal root 1. Of attention its two products
count, as is usual, not the softmax between them. Every operator reads its operands and writes its result once, and
attention keeps its scores to itself, as all fused attention does. What an engine saves by fusing further operators,
or pays for copies between its own layouts, is not in here.

torch's own counter (``torch.utils.flop_counter``) cannot serve: it counts no bytes, nothing but products, no attention
that a CPU has fused, and only what torch itself executes. The tests check these formulas against it where it can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from winspect.backbones.embeddings import LAST, LAST_NORM, Needs, block
from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError

LINEAR, ATTENTION, LAYER_NORM, OTHER = CLASSES = ("linear", "attention", "layer_norm", "other")
"""Operator classes: matrix products with weights (convolutions among them); attention; LayerNorm; GELU, sums, copies
and all else."""

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Bytes of a number in each precision."""

_NORM_FLOPS = 7  # mean, difference, square and its sum, division by the deviation, weight, bias
_GELU_FLOPS = 5  # x / sqrt 2, erf, + 1, * x, / 2


@dataclass(frozen=True)
class Work:
    """Operations and numbers moved for one tile.

    Attributes:
        flops: arithmetic operations.
        values: numbers read or written, weights aside.
        weights: weights read, however many tiles a pass has.
    """

    flops: int = 0
    values: int = 0
    weights: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.values + other.values, self.weights + other.weights)

    def moved_bytes(self, *, batch: float = 1, element_bytes: int = 4) -> float:
        """Bytes read or written per tile when ``batch`` tiles share a pass, and with it the reading of weights.

        >>> Work(values=100, weights=80).moved_bytes(batch=4, element_bytes=2)
        240.0
        """
        return (self.values + self.weights / batch) * element_bytes


def total(work: Iterable[Work]) -> Work:
    """Everything together.

    >>> total([Work(6, 3, 2), Work(4, 4)])
    Work(flops=10, values=7, weights=2)
    """
    return sum(work, Work())


@dataclass(frozen=True)
class TowerShape:
    """Sizes of a plain ViT image tower.

    Attributes:
        width: numbers per token. ``mlp_width``: of the hidden layer of each MLP. ``embedding``: of the output.
        layers: transformer blocks.
        grid_hw: rows and columns of the patch grid.
        patch_embedding: matrix products (or convolutions) that make the patch grid from one tile's pixels.
        layer_scale: whether each residual branch is scaled.
        prefix: tokens in front of the patches: the class token, and registers.
    """

    width: int
    layers: int
    mlp_width: int
    grid_hw: tuple[int, int]
    embedding: int
    patch_embedding: Work
    layer_scale: bool = False
    prefix: int = 1

    @classmethod
    def of(cls, tower: Any, image_hw: tuple[int, int] | None = None) -> TowerShape:
        """The shape of an image tower of open_clip or timm.

        Args:
            image_hw: height and width of a tile in pixels; None for the tower's own.

        Raises:
            ArchitectureError: its MLP is not a plain one of two linear layers.
        """
        image_hw = tower.image_hw if image_hw is None else image_hw
        first, model = tower.blocks[0], getattr(tower, "model", None)  # timm's
        widen = getattr(first.mlp, "c_fc", getattr(first.mlp, "fc1", None))
        narrow = getattr(first.mlp, "c_proj", getattr(first.mlp, "fc2", None))
        hidden = getattr(widen, "out_features", None)
        if widen is None or hidden is None or hidden != getattr(narrow, "in_features", None):
            raise ArchitectureError(
                f"got an MLP {type(first.mlp).__name__} without c_fc or fc1, or a gated one; only plain ones can be "
                "counted"
            )
        rows, columns = (side // tower.patch for side in image_hw)
        return cls(
            width=int(widen.in_features),
            layers=len(tower.blocks),
            mlp_width=int(hidden),
            grid_hw=(rows, columns),
            embedding=int(tower.proj.shape[1]) if model is None else 0,
            patch_embedding=_patch_embedding(tower, image_hw),
            layer_scale=hasattr(getattr(first, "ls_1", getattr(first, "ls1", None)), "gamma"),
            prefix=1 if model is None else int(model.num_prefix_tokens),
        )

    @property
    def tokens(self) -> int:
        """Tokens of the whole tile: the class token, registers and its patches."""
        return self.prefix + math.prod(self.grid_hw)

    def sequences(self, needs: Needs) -> list[tuple[int, int]]:
        """How many sequences of how many tokens: the whole tile, then the windows of each scale with a class token."""
        windows = ((len(window_indices(self.grid_hw, scale, needs.stride)), 1 + scale**2) for scale in needs.scales)
        return [(1, self.tokens), *windows]


def _patch_embedding(tower: Any, image_hw: tuple[int, int]) -> Work:
    """The convolutions and linear layers that make the patch grid; found by showing them one black tile."""
    import torch

    work = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        weights = sum(weight.numel() for weight in module.parameters(recurse=False))
        products = output.numel() * module.weight[0].numel()
        work.append(Work(2 * products, inputs[0].numel() + output.numel(), weights))

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    embed = tower.conv1 if hasattr(tower, "conv1") else tower.model.patch_embed.proj
    hooks = [part.register_forward_hook(count) for part in embed.modules() if isinstance(part, kinds)]
    try:
        with torch.inference_mode():
            embed(torch.zeros(1, 3, *image_hw, dtype=tower.dtype, device=tower.device))
    finally:
        for hook in hooks:
            hook.remove()
    return total(work)


def image_tower_flops(shape: TowerShape, needs: Needs) -> dict[str, Work]:
    """Work of one tile in the image tower, by operator class (:data:`CLASSES`).

    The windows share the first block's projection with the whole tile; behind the last block's attention only the rows
    that are read are computed: class tokens, and the tile's patches where they are needed.

    Args:
        needs: windows and patches; ``Needs()`` for the image embedding alone. Blocks behind the last needed are not
            run.
    """
    sequences = shape.sequences(needs)
    whole = bool({LAST, LAST_NORM, block(shape.layers)} & {*needs.layers})
    read = [shape.tokens if whole else 1, *[1] * len(needs.scales)]
    lengths = [length for _, length in sequences]
    work = [_ends(shape, _rows(sequences, lengths), sum(count for count, _ in sequences))]
    for layer in range(needs.blocks(shape.layers)):
        last = layer == shape.layers - 1
        work.append(_block(shape, sequences, read if last else lengths, first=layer == 0 and not last, last=last))
    return {name: total(part[name] for part in work) for name in CLASSES}


def _rows(sequences: Sequence[tuple[int, int]], rows: Sequence[int]) -> int:
    return sum(count * of_each for (count, _), of_each in zip(sequences, rows, strict=True))


def _ends(shape: TowerShape, rows: int, pooled: int) -> dict[str, Work]:
    """Around the blocks: patch embedding, positions, ln_pre, copies for windows; ln_post and projection of the class
    tokens."""
    whole, width = shape.tokens, shape.width
    return {
        LINEAR: shape.patch_embedding + _linear(pooled, width, shape.embedding, bias=False),
        ATTENTION: Work(),
        LAYER_NORM: _layer_norm(whole, width) + _layer_norm(pooled, width),
        OTHER: Work(whole * width, 2 * whole * width, whole * width) + _copy(rows - whole, width),
    }


def _block(
    shape: TowerShape, sequences: Sequence[tuple[int, int]], queried: Sequence[int], *, first: bool, last: bool
) -> dict[str, Work]:
    """One block: the first, whose projection the windows share, or the last, of which ``queried`` rows are read."""
    width, hidden = shape.width, shape.mlp_width
    rows, behind = _rows(sequences, [length for _, length in sequences]), _rows(sequences, queried)
    projected = shape.tokens if first else rows
    if last:  # queries alone, of the rows that are read; then keys and values
        projection = _linear(behind, width, width) + _linear(projected, width, 2 * width)
    else:
        projection = _linear(projected, width, 3 * width)
    scales = Work(2 * behind * width, 4 * behind * width, 2 * width) if shape.layer_scale else Work()
    mlp = _linear(behind, width, hidden) + _linear(behind, hidden, width)
    gelu, sums = Work(_GELU_FLOPS * behind * hidden, 2 * behind * hidden), Work(2 * behind * width, 6 * behind * width)
    copies = _copy(3 * (rows - projected) + (2 * behind if last else 0), width)
    # Queries times keys, and their weights times values.
    attention = (
        Work(4 * count * queries * length * width, 2 * count * (queries + length) * width)
        for (count, length), queries in zip(sequences, queried, strict=True)
    )
    return {
        LINEAR: projection + _linear(behind, width, width) + mlp,
        ATTENTION: total(attention),
        LAYER_NORM: _layer_norm(projected, width) + _layer_norm(behind, width),
        OTHER: gelu + sums + scales + copies,
    }


def _linear(rows: int, width_in: int, width_out: int, *, bias: bool = True) -> Work:
    weights = width_in * width_out + (width_out if bias else 0)
    return Work(2 * rows * width_in * width_out, rows * (width_in + width_out), weights)


def _layer_norm(rows: int, width: int) -> Work:
    return Work(_NORM_FLOPS * rows * width, 2 * rows * width, 2 * width)


def _copy(rows: int, width: int) -> Work:
    return Work(0, 2 * rows * width)
