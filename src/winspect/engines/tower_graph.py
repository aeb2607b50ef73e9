"""The image tower as one static graph, written once and spoken in each engine's own operators.

All sequences of a batch, the pictures' and their windows', stand one behind the other as the rows of one matrix.
Everything but attention treats each token by itself, so every layer is one large matrix product over all rows,
whatever the sequences' lengths, and its weights are kept once; attention alone is run group by group, a group being
the sequences of one length. The graph begins at the tokens behind ln_pre and ends at the embeddings: patch embedding,
aggregation of windows and scoring stay outside.

The three exact savings (each can be switched off, to be measured):

* the first block's ln_1 and projection are computed once per token and gathered by the windows;
* of the last block, only rows that are read are computed behind the attention's keys and values;
* patch tokens of the last layer are computed only for few-shot inspection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from winspect.backbones.embeddings import LAST, LAST_NORM, Needs
from winspect.backbones.image_tower import Block, ImageTower
from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError

GRAPH_VERSION = 1
"""Part of every cached graph's key: raised when the same weights would give another graph."""

IMAGE, PATCHES = "image", "patches"

# OpenVINO 2026.4 crashes while compiling the last block of a narrow tower (width 64) for fewer than about nine rows.
# A few rows more cost a two-hundredth of a picture without windows, and nothing elsewhere.
_FEWEST_ROWS = 16

Node = Any
"""A value inside a graph under construction; what it is, is the engine's business."""


class Operators(Protocol):
    """The dozen operators a tower is made of, in one engine's language. All values are matrices (rows, columns).

    Attributes:
        scope: what is being written, such as ``block3/mlp/c_fc``: operators are named after it, for profiles.
    """

    scope: str

    def input(self, name: str, shape: tuple[int, int]) -> Node: ...
    def output(self, name: str, x: Node) -> None: ...
    def linear(self, x: Node, weight: np.ndarray, bias: np.ndarray | None) -> Node: ...
    def layer_norm(self, x: Node, weight: np.ndarray, bias: np.ndarray, eps: float) -> Node: ...
    def activation(self, x: Node, kind: str) -> Node: ...
    def add(self, x: Node, y: Node) -> Node: ...
    def scale(self, x: Node, factors: np.ndarray) -> Node: ...
    def take_rows(self, x: Node, rows: np.ndarray) -> Node: ...
    def split_rows(self, x: Node, lengths: Sequence[int]) -> list[Node]: ...
    def split_columns(self, x: Node, parts: int) -> list[Node]: ...
    def join_rows(self, parts: Sequence[Node]) -> Node: ...
    def attention(self, queries: Node, keys: Node, values: Node, *, sequences: int, heads: int) -> Node: ...


@dataclass(frozen=True)
class Layout:
    """Which sequences a graph holds.

    Attributes:
        grid_hw: rows and columns of the patch grid.
        scales: sides of the windows in patches; empty for the image embedding alone.
        stride: step between windows in patches.
        patches: whether the last layer's patch tokens are an output.
        batch: tiles.
        norm: whether those patch tokens go through ln_post.
        share_first: compute the first block's projection once per token.
        read_last: compute only what is read of the last block.
    """

    grid_hw: tuple[int, int]
    scales: tuple[int, ...]
    stride: int
    patches: bool
    batch: int
    share_first: bool = True
    read_last: bool = True
    norm: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, grid_hw: tuple[int, int], needs: Needs, *, batch: int) -> Layout:
        """The layout that gives what is needed, but for stem features, which are made before the tokens."""
        norm = LAST_NORM in needs.layers
        return cls(grid_hw, needs.scales, needs.stride, norm or LAST in needs.layers, batch, norm=norm)

    @property
    def key(self) -> str:
        """The layout in the keys of caches."""
        return f"{self!r}{'/norm' * self.norm}"

    @property
    def layer(self) -> str:
        """The name of the patch tokens among the layers of a backbone."""
        return LAST_NORM if self.norm else LAST

    @property
    def tokens(self) -> int:
        """Tokens of one tile, its class token among them."""
        return 1 + self.grid_hw[0] * self.grid_hw[1]

    def with_patches(self) -> Layout:
        """The same sequences, with patch tokens as an output."""
        return replace(self, patches=True)

    def without_patches(self) -> Layout:
        """The same sequences, without patch tokens as an output."""
        return replace(self, patches=False, norm=False)

    def windows(self, scale: int) -> int:
        """Windows of one tile."""
        return len(window_indices(self.grid_hw, scale, self.stride))

    def rows_of(self, scale: int) -> np.ndarray:
        """Rows of the tokens' matrix that the windows of a scale are made of, int64, window by window."""
        patches = window_indices(self.grid_hw, scale, self.stride) + 1
        sequences = np.concatenate([np.zeros((len(patches), 1), np.int64), patches], axis=1)
        return (np.arange(self.batch)[:, None, None] * self.tokens + sequences).reshape(-1)

    @property
    def groups(self) -> list[tuple[int, int]]:
        """(sequences, length) of every group: the pictures, then the windows of each scale."""
        return [(self.batch, self.tokens), *((self.batch * self.windows(s), 1 + s * s) for s in self.scales)]

    @property
    def rows(self) -> int:
        """Tokens of all sequences."""
        return sum(count * length for count, length in self.groups)


def build_tower(tower: ImageTower, layout: Layout, operators: Operators) -> None:
    """Write a tower's graph.

    Its input ``tokens`` is (batch * tokens, width); its outputs are ``image`` (batch, embedding), ``windows_S``
    (batch * windows, embedding) for each scale S, and ``patches`` (batch * patches, width) where the layout has them.

    Raises:
        ArchitectureError: the tower has a part that has no place in a graph.
    """
    _Builder(tower, layout, operators).build()


class _Builder:
    def __init__(self, tower: ImageTower, layout: Layout, operators: Operators) -> None:
        self.tower, self.layout, self.ops = tower, layout, operators
        self.groups = layout.groups
        self.blocks: list[Any] = list(tower.blocks)
        self.width = int(tower.class_embedding.shape[-1])
        self.block_name = ""

    def _scope(self, part: str) -> Operators:
        self.ops.scope = f"{self.block_name}/{part}".lstrip("/")
        return self.ops

    def build(self) -> None:
        layout = self.layout
        tokens = self.ops.input("tokens", (layout.batch * layout.tokens, self.width))
        x = tokens
        if layout.scales:
            x = self._scope("gather").join_rows([tokens, self._gathered(tokens)])
        for number, block in enumerate(self.blocks):
            self.block_name = f"block{number}"
            first, last = block is self.blocks[0], block is self.blocks[-1]
            if last and layout.read_last:
                x = self._last_block(block, x)
            else:
                x = self._block(block, x, tokens if first and layout.share_first else None)
        self.block_name = ""
        self._outputs(x)

    def _gathered(self, x: Node) -> Node:
        """The windows' rows of a matrix of token rows."""
        return self.ops.take_rows(x, np.concatenate([self.layout.rows_of(scale) for scale in self.layout.scales]))

    def _norm(self, name: str, norm: Any, x: Node) -> Node:
        if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
            raise ArchitectureError(f"got a normalisation {type(norm).__name__}; graphs know LayerNorm with weights")
        return self._scope(name).layer_norm(x, array(norm.weight), array(norm.bias), norm.eps)

    def _projected(self, block: Block, x: Node, tokens: Node | None) -> list[Node]:
        """Queries, keys and values of all rows."""
        weight, bias = array(block.attention.in_proj_weight), optional(block.attention.in_proj_bias)
        shared = tokens is not None and bool(self.layout.scales)
        normed = self._norm("ln_1", block.ln_1, tokens if shared else x)
        parts = self.ops.split_columns(self._scope("in_proj").linear(normed, weight, bias), 3)
        ops = self._scope("gather")
        return [ops.join_rows([part, self._gathered(part)]) for part in parts] if shared else parts

    def _attended(self, block: Block, queries: Node, keys: Node, values: Node, query_rows: Sequence[int]) -> Node:
        """Attention, group by group; ``query_rows`` are the rows of queries in each group."""
        ops, rows = self._scope("attention"), [count * length for count, length in self.groups]
        parts = zip(
            ops.split_rows(queries, query_rows),
            ops.split_rows(keys, rows),
            ops.split_rows(values, rows),
            self.groups,
            strict=True,
        )
        mixed = [ops.attention(q, k, v, sequences=count, heads=block.heads) for q, k, v, (count, _) in parts]
        return ops.join_rows(mixed)

    def _block(self, block: Block, x: Node, tokens: Node | None) -> Node:
        queries, keys, values = self._projected(block, x, tokens)
        return self._behind(block, x, self._attended(block, queries, keys, values, [n * m for n, m in self.groups]))

    def _last_block(self, block: Block, x: Node) -> Node:
        """Only the class tokens' rows, and the pictures' patches where they are an output."""
        weight, bias = array(block.attention.in_proj_weight), optional(block.attention.in_proj_bias)
        query_bias, key_value_bias = (None, None) if bias is None else (bias[: self.width], bias[self.width :])
        normed = self._norm("ln_1", block.ln_1, x)
        ops = self._scope("in_proj")
        keys, values = ops.split_columns(ops.linear(normed, weight[self.width :], key_value_bias), 2)
        read, counts = self._read_rows()
        queries = ops.linear(ops.take_rows(normed, read), weight[: self.width], query_bias)
        attended = self._attended(block, queries, keys, values, counts)
        return self._behind(block, ops.take_rows(x, read), attended)

    def _read_rows(self) -> tuple[np.ndarray, list[int]]:
        """Rows that are computed of the last layer, int64, and how many of them are in each group."""
        rows, counts, start = [], [], 0
        for index, (count, length) in enumerate(self.groups):
            tokens = self._tokens_read() if index == 0 else 1
            rows.append((start + np.arange(count)[:, None] * length + np.arange(tokens)).reshape(-1))
            counts.append(count * tokens)
            start += count * length
        return np.concatenate(rows), counts

    def _tokens_read(self) -> int:
        """Tokens of each picture that are computed in the last layer: all, or the class token."""
        if self.layout.patches:
            return self.layout.tokens
        alone = sum(count for count, _ in self.groups)
        return 1 if alone >= _FEWEST_ROWS else min(_FEWEST_ROWS, self.layout.tokens)

    def _behind(self, block: Block, x: Node, attended: Node) -> Node:
        """What follows attention: its output projection and the MLP, each with its residual."""
        widen, kind, narrow = mlp_parts(block)
        projected = self._linear("out_proj", block.attention.out_proj, attended)
        x = self.ops.add(x, self._layer_scale(block.ls_1, projected))
        hidden = self._linear("mlp/c_fc", widen, self._norm("ln_2", block.ln_2, x))
        hidden = self._linear("mlp/c_proj", narrow, self._scope("mlp/gelu").activation(hidden, kind))
        return self.ops.add(x, self._layer_scale(block.ls_2, hidden))

    def _linear(self, name: str, layer: Any, x: Node) -> Node:
        return self._scope(name).linear(x, array(layer.weight), optional(layer.bias))

    def _layer_scale(self, scale: Any, x: Node) -> Node:
        return x if isinstance(scale, nn.Identity) else self.ops.scale(x, array(scale.gamma))

    def _outputs(self, x: Node) -> None:
        ops, layout = self._scope("outputs"), self.layout
        read, counts = self._read_rows()
        if not layout.read_last:
            x = ops.take_rows(x, read)
        pictures, *windows = ops.split_rows(x, counts)
        rows = np.arange(counts[0], dtype=np.int64).reshape(layout.batch, -1)
        if layout.patches:
            patches = ops.take_rows(pictures, rows[:, 1:].reshape(-1))
            if layout.norm:
                patches = self._norm("ln_post", self.tower.ln_post, patches)
            ops.output(PATCHES, patches)
        if rows.shape[1] > 1:
            pictures = ops.take_rows(pictures, rows[:, 0])
        pooled = self._norm("ln_post", self.tower.ln_post, ops.join_rows([pictures, *windows]))
        embedded = self._scope("proj").linear(pooled, np.ascontiguousarray(array(self.tower.proj).T), None)
        lengths = [layout.batch, *counts[1:]]
        for name, part in zip(
            [IMAGE, *map(window_output, layout.scales)], ops.split_rows(embedded, lengths), strict=True
        ):
            ops.output(name, part)


def window_output(scale: int) -> str:
    """The name of the output of a scale's window embeddings."""
    return f"windows_{scale}"


def mlp_parts(block: Block) -> tuple[Any, str, Any]:
    """An open_clip MLP's first linear layer, its activation ("gelu" or "quick_gelu"), its second linear layer.

    Raises:
        ArchitectureError: the MLP is another one.
    """
    mlp: Any = block.mlp
    widen, activation, narrow = (getattr(mlp, name, None) for name in ("c_fc", "gelu", "c_proj"))
    kind = {"GELU": "gelu", "QuickGELU": "quick_gelu"}.get(type(activation).__name__)
    exact = getattr(activation, "approximate", "none") == "none"
    plain = [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
    if not (plain and isinstance(widen, nn.Linear) and isinstance(narrow, nn.Linear) and kind and exact):
        raise ArchitectureError(
            f"got an MLP {type(mlp).__name__} with {type(activation).__name__}; graphs know open_clip's plain MLP "
            "with GELU or QuickGELU; use engine torch"
        )
    return widen, kind, narrow


def array(tensor: Tensor) -> np.ndarray:
    """A weight as a float32 array, in place where it is one."""
    return tensor.detach().float().contiguous().numpy()


def optional(tensor: Tensor | None) -> np.ndarray | None:
    """A weight, or None."""
    return None if tensor is None else array(tensor)
