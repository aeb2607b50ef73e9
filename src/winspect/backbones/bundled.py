"""The bundled model's architecture: an ordinary open_clip CLIP whose patch embedding is a small frozen network.

``visual.conv1``, in CLIP one 16 x 16 convolution, is here a :class:`HybridPatchEmbed`: the first five stages of
EfficientNet-Lite0 (ImageNet weights, Apache-2.0, see NOTICE), their maps pooled to the grid of patches, and a linear
layer. It maps ``(B, 3, 240, 240)`` to ``(B, width, 15, 15)`` as CLIP's convolution does, so that WinCLIP's windows,
and anything else that reads an open_clip vision transformer, work on it unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import nn

from winspect.backbones.embeddings import STEM, STEM_8, STEM_16
from winspect.errors import WeightsMismatchError
from winspect.weights import TINY
from winspect.weights.checkpoint import fit, read_tensors
from winspect.weights.configs import BUNDLED_WEIGHTS, read_bundled

TOKEN_WEIGHT = "token_embedding.weight"
TOKEN_ROWS, TOKEN_INDEX = "token_embedding.rows", "token_embedding.index"

STEM_LEVELS = (24, 40, 112)
"""Channels of the stride-4, stride-8 and stride-16 maps."""
STEM_CHANNELS = sum(STEM_LEVELS)
"""Channels of a stem token: the three maps side by side."""
_LEVEL_OF = {STEM_8: 1, STEM_16: 2}

# (blocks, kernel, stride of the first block, channels out) of EfficientNet-Lite0's stages 1 to 4 (arXiv 1905.11946,
# table 1, without squeeze-and-excitation); every block widens its input six times.
_STAGES = ((2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112))
_TAPPED_STAGES = (0, 1, 3)
_WIDEN = 6
_CPU_CHUNK = 2
_ODDNESS_NEAREST, _ODDNESS_FLOOR = 3, 0.05


class _Conv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding and, unless ``linear``, a ReLU6 behind it.

    TensorFlow puts the odd pixel of padding at the right and bottom; torch's own ``padding`` is symmetric, and with
    it every map of a strided network is shifted by half a pixel.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride=stride, groups=groups, padding=kernel // 2 if stride == 1 else 0)
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            pad_h, pad_w = (same_padding(n, self.kernel_size[0], self.stride[0]) for n in x.shape[-2:])
            x = F.pad(x, (*pad_w, *pad_h))
        x = super().forward(x)
        return x if self.linear else F.relu6(x, inplace=not torch.is_grad_enabled())


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding, in pixels before and after, of one axis."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; the input is added where its shape is kept (arXiv 1801.04381)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = c_in * _WIDEN
        self.widen = _Conv(c_in, wide, 1)
        self.filter = _Conv(wide, wide, kernel, stride=stride, groups=wide)
        self.narrow = _Conv(wide, c_out, 1, linear=True)
        self.keeps_shape = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.narrow(self.filter(self.widen(x)))
        return out + x if self.keeps_shape else out


class Stem(nn.Module):
    """EfficientNet-Lite0 up to stride 16, batch norms folded into the convolutions. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            _Conv(3, 32, 3, stride=2), _Conv(32, 32, 3, groups=32), _Conv(32, 16, 1, linear=True)
        )
        stages, channels = [], 16
        for blocks, kernel, stride, c_out in _STAGES:
            stage = [_InvertedResidual(channels, c_out, kernel, stride)]
            stage += [_InvertedResidual(c_out, c_out, kernel, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            channels = c_out
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """``(B, 3, H, W)`` normalised pixels to the stride-4, -8 and -16 maps (24, 40 and 112 channels)."""
        x = self.first(pixels.contiguous(memory_format=torch.channels_last))
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _TAPPED_STAGES:
                maps.append(x)
        return maps


class HybridPatchEmbed(nn.Module):
    """Pixels to patch tokens: the frozen stem, its maps on one grid, standardised; layer norm; a linear layer.

    The grid has a patch for each 16 x 16 pixels, whatever the picture's size. Beside its features the linear layer
    sees how odd each patch is in its picture (:func:`oddness_in_picture`).

    Args:
        width: channels of the vision transformer behind it.
    """

    stem_mean: torch.Tensor
    stem_std: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Stem()
        self.register_buffer("stem_mean", torch.zeros(STEM_CHANNELS))
        self.register_buffer("stem_std", torch.ones(STEM_CHANNELS))
        self.norm = nn.LayerNorm(STEM_CHANNELS)
        self.linear = nn.Linear(STEM_CHANNELS + 2 * len(STEM_LEVELS), width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` normalised pixels to ``(B, width, H / 16, W / 16)`` patch embeddings."""
        return self.project(self.stem_features(pixels))

    def stem_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` normalised pixels to ``(B, 176, H / 16, W / 16)`` stem maps, each channel standardised by
        the mean and deviation it has over the training pictures."""
        return self.stem_layers(pixels, (STEM,))[STEM]

    def stem_layers(self, pixels: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Stem maps by layer: those of :meth:`stem_features`, and the stride-8 map (40 channels) and the stride-16 map
        (112), neither standardised nor pooled.

        Args:
            pixels: ``(B, 3, H, W)``, normalised.
            layers: some of ``STEM``, ``STEM_8`` and ``STEM_16``.

        Returns:
            Layer -> ``(B, channels, rows, columns)``.
        """
        # A few pictures at a time keep the maps in a CPU's cache, six times as fast; a traced graph must not be cut.
        cut = pixels.device.type == "cpu" and not (torch.jit.is_tracing() or torch.compiler.is_compiling())
        parts = []
        for some in pixels.split(_CPU_CHUNK if cut else len(pixels)):
            maps = self.stem(some)
            parts.append({layer: self._layer(maps, layer) for layer in layers})
        return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}

    def _layer(self, maps: Sequence[torch.Tensor], layer: str) -> torch.Tensor:
        if layer != STEM:
            return maps[_LEVEL_OF[layer]]
        grid_hw = _rows_and_columns(maps[-1])
        features = torch.cat([F.adaptive_avg_pool2d(x, grid_hw) for x in maps], dim=1)
        return (features - self.stem_mean[:, None, None]) / self.stem_std[:, None, None]

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, 176, rows, columns)`` stem maps to ``(B, width, rows, columns)``: the trained half of the patch
        embedding."""
        tokens = features.flatten(2).transpose(1, 2)
        oddness = oddness_in_picture(tokens, _rows_and_columns(features)).to(tokens.dtype)
        together = torch.cat([self.norm(tokens), oddness, oddness - oddness.mean(dim=1, keepdim=True)], dim=2)
        return self.linear(together).transpose(1, 2).unflatten(2, features.shape[2:])


def _rows_and_columns(maps: torch.Tensor) -> tuple[int, int]:
    """Of ``(B, channels, rows, columns)``, as numbers also while a graph is traced."""
    return int(maps.shape[2]), int(maps.shape[3])


def oddness_in_picture(tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """How little each patch looks like the rest of its picture, at each level of the stem.

    The logarithm of the mean distance to the three nearest patches of the picture that are not neighbours. A few
    attention layers cannot easily find nearest patches themselves.

    Args:
        tokens: ``(B, rows * columns, 176)`` stem features.
        grid_hw: rows and columns.

    Returns:
        float32 ``(B, rows * columns, 3)``.
    """
    sides = (torch.arange(side, device=tokens.device) for side in grid_hw)
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    near = ((rows[:, None] - rows).abs() <= 1) & ((columns[:, None] - columns).abs() <= 1)
    levels = []
    for level in tokens.float().split(STEM_LEVELS, dim=2):
        squares = level.square().sum(dim=2)
        # In place of cdist, which not every engine has.
        distances = squares[:, :, None] + squares[:, None] - 2 * level @ level.transpose(1, 2)
        distances = (distances.clamp_min(0) / level.shape[2] + _ODDNESS_FLOOR**2).sqrt()
        nearest = distances.masked_fill(near, torch.inf).topk(_ODDNESS_NEAREST, dim=2, largest=False).values
        levels.append(nearest.mean(dim=2).log())
    return torch.stack(levels, dim=2)


def build_tiny(config: Mapping[str, Any]) -> open_clip.model.CLIP:
    """An open_clip CLIP after ``config["model_cfg"]``, its ``visual.conv1`` a :class:`HybridPatchEmbed`.

    The weights are random, the token embedding zero; the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        model = open_clip.model.CLIP(**config["model_cfg"])
        visual = model.visual
        visual.conv1 = HybridPatchEmbed(config["model_cfg"]["vision_cfg"]["width"])
        nn.init.zeros_(model.token_embedding.weight)
    return model.eval()


def load_tiny(folder: str | Path) -> open_clip.model.CLIP:
    """The tiny model in ``folder`` (``config.json`` and ``model.safetensors``), float32, on the CPU, in eval mode.

    Raises:
        WeightsMissingError: a file is not there.
        WeightsCorruptError: a file cannot be read.
        WeightsMismatchError: the tensors are not those of the architecture in ``config.json``; names them.
    """
    model = build_tiny(read_bundled(folder))
    path = Path(folder) / BUNDLED_WEIGHTS
    tensors = read_tensors(path)
    rows, index = tensors.pop(TOKEN_ROWS, None), tensors.pop(TOKEN_INDEX, None)
    if rows is not None and index is not None:
        table = torch.zeros_like(model.token_embedding.weight)
        if rows.shape != (len(index), table.shape[1]) or not ((index >= 0) & (index < len(table))).all():
            raise WeightsMismatchError(
                f"{path}: {TOKEN_ROWS} is {tuple(rows.shape)} for {len(index)} tokens and a {tuple(table.shape)} "
                "vocabulary; the file is not of this architecture"
            )
        table[index.long()] = rows.to(table.dtype)
        tensors[TOKEN_WEIGHT] = table
    fit(model, tensors, path=path, name=TINY, dtype=torch.float32)
    return model.eval()
