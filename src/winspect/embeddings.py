"""What one pass of the image tower gives. Tensors only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a batch of tiles. All tensors share device and dtype.

    Attributes:
        image: (batch, embedding), not normalised.
        windows: scale -> (batch, windows, embedding), windows in the order of :func:`winspect.windows.window_indices`.
        patches: (batch, patches, width), the last layer's patch tokens of the full sequence (no ln_post, no
            projection), or None when not asked for.
        stem: (batch, patches, channels), the features a patch embedding of several layers projects its tokens from
            (``conv1.stem_features`` then ``conv1.project``, as in the bundled model); None for a plain ViT.
    """

    image: Tensor
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    patches: Tensor | None = None
    stem: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Embeddings:
        """The same function on every tensor."""
        return Embeddings(
            image=function(self.image),
            windows={scale: function(windows) for scale, windows in self.windows.items()},
            patches=None if self.patches is None else function(self.patches),
            stem=None if self.stem is None else function(self.stem),
        )

    def rows(self, start: int, stop: int) -> Embeddings:
        """The tiles from ``start`` up to ``stop``, as views."""
        return self.map(lambda tensor: tensor[start:stop])

    @staticmethod
    def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
        """Batches one behind the other; all made with the same scales and patches."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return Embeddings(
            image=torch.cat([part.image for part in parts]),
            windows={scale: torch.cat([part.windows[scale] for part in parts]) for scale in first.windows},
            patches=None if first.patches is None else torch.cat([p.patches for p in parts if p.patches is not None]),
            stem=None if first.stem is None else torch.cat([p.stem for p in parts if p.stem is not None]),
        )
