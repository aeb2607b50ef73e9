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
    """

    width: int
    layers: int
    mlp_width: int
    grid_hw: tuple[int, int]
    embedding: int
    patch_embedding: Work
    layer_scale: bool = False

    @classmethod
    def of(cls, tower: Any) -> TowerShape:
        """The shape of a :class:`winspect.backbones.image_tower.ImageTower`.

        Raises:
            ArchitectureError: its MLP is not open_clip's plain one.
        """
        block = tower.blocks[0]
        widen = getattr(block.mlp, "c_fc", None)
        if widen is None or not hasattr(widen, "out_features"):
            raise ArchitectureError(
                f"got an MLP {type(block.mlp).__name__} without c_fc; only open_clip's can be counted"
            )
        width, embedding = tower.proj.shape
        return cls(
            width=int(width),
            layers=len(tower.blocks),
            mlp_width=int(widen.out_features),
            grid_hw=tuple(tower.grid_hw),
            embedding=int(embedding),
            patch_embedding=_patch_embedding(tower),
            layer_scale=hasattr(block.ls_1, "gamma"),
        )

    @property
    def tokens(self) -> int:
        """Tokens of the whole tile: the class token and its patches."""
        return 1 + math.prod(self.grid_hw)

    def windows(self, scale: int, stride: int) -> int:
        """Windows of one tile at a scale; the last of each row and column is flush with the far edge."""
        return math.prod(-(-(length - scale) // stride) + 1 for length in self.grid_hw)

    def window_tokens(self, scales: Sequence[int], stride: int) -> int:
        """Tokens of all windows of one tile, each with a class token of its own."""
        return sum(self.windows(scale, stride) * (1 + scale * scale) for scale in scales)


def _patch_embedding(tower: Any) -> Work:
    """The convolutions and linear layers that make the patch grid; found by showing them one black tile."""
    import torch

    work = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        weights = sum(weight.numel() for weight in module.parameters(recurse=False))
        products = output.numel() * module.weight[0].numel()
        work.append(Work(2 * products, inputs[0].numel() + output.numel(), weights))

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [part.register_forward_hook(count) for part in tower.conv1.modules() if isinstance(part, kinds)]
    try:
        with torch.inference_mode():
            tower.conv1(torch.zeros(1, 3, *tower.image_hw, dtype=tower.dtype, device=tower.device))
    finally:
        for hook in hooks:
            hook.remove()
    return total(work)


def image_tower_flops(
    shape: TowerShape,
    *,
    scales: Sequence[int],
    stride: int,
    patches: bool,
    share_first: bool = True,
    read_last: bool = True,
) -> dict[str, Work]:
    """Work of one tile in the image tower, by operator class (:data:`CLASSES`).

    Args:
        scales: sides of the windows in patches; empty for the image embedding alone.
        stride: step between windows in patches.
        patches: whether the last layer's patch tokens are an output.
        share_first: the first block's ln_1 and projection are computed once per token and gathered by the windows.
        read_last: of the last block only rows that are read are computed behind the attention's keys and values.
            With both off, every sequence passes through the whole tower by itself.
    """
    tower = _Tower(shape, [(1, shape.tokens), *((shape.windows(s, stride), 1 + s * s) for s in scales)], patches)
    work = [tower.tokens(), tower.pooled()]
    for layer in range(shape.layers):
        last = read_last and layer == shape.layers - 1
        work.append(tower.block(shared=share_first and layer == 0 and not last, last=last))
    return {name: total(part.get(name, Work()) for part in work) for name in CLASSES}


class _Tower:
    """The sequences of one tile, as (sequences, length) of each group, and the work of each part of a tower on them."""

    def __init__(self, shape: TowerShape, groups: Sequence[tuple[int, int]], patches: bool) -> None:
        self.shape, self.groups = shape, groups
        self.rows = sum(count * length for count, length in groups)
        self.tile_rows = groups[0][1]  # the whole tile's sequence, of which the windows' rows are copies
        self.read = [self.tile_rows if patches else 1, *[1] * (len(groups) - 1)]
        """Rows of each sequence that are read behind the last block."""

    def tokens(self) -> dict[str, Work]:
        """Patch embedding, positions, ln_pre, and the windows' copies."""
        rows, width = self.tile_rows, self.shape.width
        sums = Work(rows * width, 2 * rows * width, rows * width)
        return {
            LINEAR: self.shape.patch_embedding,
            LAYER_NORM: _layer_norm(rows, width),
            OTHER: sums + _copy(self.rows - rows, width),
        }

    def block(self, *, shared: bool, last: bool) -> dict[str, Work]:
        """One block: with its projection shared by the windows, or as the last one, of which few rows are read."""
        width, hidden = self.shape.width, self.shape.mlp_width
        queried = self.read if last else [length for _, length in self.groups]
        behind = sum(count * rows for (count, _), rows in zip(self.groups, queried, strict=True))
        projected = self.tile_rows if shared else self.rows
        copies = _copy(3 * (self.rows - projected), width) + (_copy(2 * behind, width) if last else Work())
        if last:  # queries alone, of the rows that are read; then keys and values
            projection = _linear(behind, width, width) + _linear(projected, width, 2 * width)
        else:
            projection = _linear(projected, width, 3 * width)
        output, mlp = _linear(behind, width, width), _linear(behind, width, hidden) + _linear(behind, hidden, width)
        attention = (
            _attention(count, length, rows, width) for (count, length), rows in zip(self.groups, queried, strict=True)
        )
        return {
            LINEAR: projection + output + mlp,
            ATTENTION: total(attention),
            LAYER_NORM: _layer_norm(projected, width) + _layer_norm(behind, width),
            OTHER: self._around(behind) + copies,
        }

    def _around(self, rows: int) -> Work:
        """GELU and the two residual sums, each with its scale where the tower has them."""
        width, hidden = self.shape.width, self.shape.mlp_width
        gelu = Work(_GELU_FLOPS * rows * hidden, 2 * rows * hidden)
        sums = Work(2 * rows * width, 2 * 3 * rows * width)
        scales = Work(2 * rows * width, 2 * 2 * rows * width, 2 * width) if self.shape.layer_scale else Work()
        return gelu + sums + scales

    def pooled(self) -> dict[str, Work]:
        """ln_post of the class tokens, projected."""
        rows = sum(count for count, _ in self.groups)
        return {
            LINEAR: _linear(rows, self.shape.width, self.shape.embedding, bias=False),
            LAYER_NORM: _layer_norm(rows, self.shape.width),
        }


def _linear(rows: int, width_in: int, width_out: int, *, bias: bool = True) -> Work:
    weights = width_in * width_out + (width_out if bias else 0)
    return Work(2 * rows * width_in * width_out, rows * (width_in + width_out), weights)


def _attention(sequences: int, length: int, queries: int, width: int) -> Work:
    """Queries times keys, and their weights times values."""
    return Work(4 * sequences * queries * length * width, 2 * sequences * (queries + length) * width)


def _layer_norm(rows: int, width: int) -> Work:
    return Work(_NORM_FLOPS * rows * width, 2 * rows * width, 2 * width)


def _copy(rows: int, width: int) -> Work:
    return Work(0, 2 * rows * width)
