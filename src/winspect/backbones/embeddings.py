"""What a pass of a backbone is asked for, and what it gives. Arrays only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from array_api_compat import array_namespace

from winspect.backbones.windows import window_indices
from winspect.errors import ArchitectureError
from winspect.pictures.inside import Inside, on_grid
from winspect.system.arrays import Array

LAST = "last"
"""The last block's patch tokens, as they are."""
LAST_NORM = "last_norm"
"""The same behind the tower's last layer norm."""
STEM = "stem"
"""Features that a patch embedding of several layers projects its tokens from, ``conv1.stem_features`` in the bundled
model, on the grid of its patches."""
STEM_8, STEM_16 = "stem_8", "stem_16"
"""Its maps of strides 8 and 16, each on its own grid: a vector for 8 x 8 or 16 x 16 pixels."""
WHOLE = "whole"
"""The image embedding of the tile itself, whatever the transformer sees: a grid of a single vector."""

STEMS = (STEM, STEM_8, STEM_16)
"""The layers in front of the transformer."""
FINE = (STEM_8, STEM_16)
"""Those of the tile itself, whatever the transformer sees."""

_BLOCK = "block_"


def block(number: int) -> str:
    """The layer behind a transformer block, counted from 1: the residual stream, no norm, patch tokens alone.

    >>> block(9)
    'block_9'
    """
    return f"{_BLOCK}{number}"


def block_number(layer: str) -> int | None:
    """The number in a name that :func:`block` gave; None for another layer's."""
    digits = layer.removeprefix(_BLOCK)
    return int(digits) if layer.startswith(_BLOCK) and digits.isdecimal() else None


@dataclass(frozen=True)
class Needs:
    """What a method needs of a backbone. Hashable.

    The image embedding comes with every pass that runs the last block: with windows, with the last layer, and where
    nothing else is needed. A pass ends with the last block that a layer needs, and runs none for layers of the stem.

    Attributes:
        scales: sides of the windows to embed, in patches.
        stride: step between windows, in patches.
        layers: names of the layers whose patch vectors are needed, such as :data:`LAST`, :data:`LAST_NORM`,
            :data:`STEM`, ``block(9)``; a backbone says which it has.
        tower_size: side in pixels of the square that the transformer sees, its tokens, windows and the layers that are
            not :data:`STEM_8`, :data:`STEM_16` or :data:`WHOLE`; a tile of another size is resized to it. None for the
            tile as it is.
    """

    scales: tuple[int, ...] = ()
    stride: int = 1
    layers: tuple[str, ...] = ()
    tower_size: int | None = None

    def seen_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width, in pixels, at which the transformer sees a tile."""
        return image_hw if self.tower_size is None else (self.tower_size, self.tower_size)

    def blocks(self, depth: int) -> int:
        """How many of a backbone's ``depth`` blocks a pass must run."""
        if self.scales or not self.layers:
            return depth
        numbers = (0 if layer in STEMS else block_number(layer) or depth for layer in self.layers)
        return max(numbers)

    def gives(self, other: Needs) -> bool:
        """Whether what serves these needs serves the other's."""
        is_same = (self.stride, self.tower_size) == (other.stride, other.tower_size)
        return is_same and other.scales in ((), self.scales) and {*other.layers} <= {*self.layers}

    def check_grid(self, grid_hw: tuple[int, int]) -> None:
        """Refuse windows that do not fit a grid of patches.

        Raises:
            SettingsError: names the scale or the stride.
        """
        for scale in self.scales:
            window_indices(grid_hw, scale, self.stride)

    def check_layers(self, layers: Collection[str]) -> None:
        """Refuse layers that a backbone does not have.

        Args:
            layers: those that it has.

        Raises:
            ArchitectureError: names the missing ones.
        """
        missing = [layer for layer in self.layers if layer not in layers]
        if missing:
            raise ArchitectureError(
                f"the method needs patches of {', '.join(missing)}, this model has {', '.join(layers)}; choose another "
                "recipe or model"
            )


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a batch of tiles. All arrays share kind, device and dtype.

    Attributes:
        image: (batch, embedding), not normalised; (batch, 0) of a pass that ended before the last block (see
            :class:`Needs`).
        windows: scale -> (batch, windows, embedding), in the order of
            :func:`~winspect.backbones.windows.window_indices`.
        patches: layer -> (batch, rows, columns, width of the layer), for each layer that was needed.
        grid_hw: rows and columns of the patches that windows are made of.
        inside: what of each tile lies inside of the region of interest; None where all does.
    """

    image: Array
    windows: Mapping[int, Array] = field(default_factory=dict)
    patches: Mapping[str, Array] = field(default_factory=dict)
    grid_hw: tuple[int, int] = (1, 1)
    inside: Inside | None = None

    def inside_on(self, grid_hw: tuple[int, int]) -> np.ndarray | None:
        """Patches of a grid that lie inside, if only in part: bool (batch, rows, columns); None where all do."""
        return on_grid(self.inside, grid_hw)

    def inside_of(self, layer: str) -> np.ndarray | None:
        """:meth:`inside_on` the grid of a layer."""
        rows, columns = self.patches[layer].shape[1:3]
        return self.inside_on((int(rows), int(columns)))

    def vectors(self, layer: str) -> Array:
        """The patches of a layer one behind the other, row by row: (batch, patches, width)."""
        patches = self.patches[layer]
        return array_namespace(patches).reshape(patches, (len(patches), -1, patches.shape[-1]))

    def map(self, function: Callable[[Array], Array]) -> Embeddings:
        """The same function on every array."""
        return Embeddings(
            image=function(self.image),
            windows={scale: function(windows) for scale, windows in self.windows.items()},
            patches={layer: function(patches) for layer, patches in self.patches.items()},
            grid_hw=self.grid_hw,
            inside=self.inside,
        )

    def rows(self, start: int, stop: int) -> Embeddings:
        """The tiles from ``start`` up to ``stop``, as views."""
        inside = None if self.inside is None else self.inside[start:stop]
        return replace(self.map(lambda array: array[start:stop]), inside=inside)

    @staticmethod
    def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
        """Join batches that were made for the same needs, one behind the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        concat = array_namespace(first.image).concat
        return Embeddings(
            image=concat([part.image for part in parts]),
            windows={scale: concat([part.windows[scale] for part in parts]) for scale in first.windows},
            patches={layer: concat([part.patches[layer] for part in parts]) for layer in first.patches},
            grid_hw=first.grid_hw,
            inside=None if first.inside is None else tuple(chain.from_iterable(part.inside or () for part in parts)),
        )
