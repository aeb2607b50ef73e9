"""What one pass of the image tower gives. Arrays only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from array_api_compat import array_namespace

from winspect.system.arrays import Array


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a batch of tiles. All arrays share kind, device and dtype.

    Attributes:
        image: (batch, embedding), not normalised.
        windows: scale -> (batch, windows, embedding), in the order of
            :func:`~winspect.backbones.windows.window_indices`.
        patches: (batch, patches, width), the last layer's patch tokens of the full sequence (no ln_post, no
            projection), or None when not asked for.
        stem: (batch, patches, channels), the features a patch embedding of several layers projects its tokens from
            (``conv1.stem_features`` then ``conv1.project``, as in the bundled model); None for a plain ViT.
    """

    image: Array
    windows: Mapping[int, Array] = field(default_factory=dict)
    patches: Array | None = None
    stem: Array | None = None

    def map(self, function: Callable[[Array], Array]) -> Embeddings:
        """The same function on every array."""
        return Embeddings(
            image=function(self.image),
            windows={scale: function(windows) for scale, windows in self.windows.items()},
            patches=None if self.patches is None else function(self.patches),
            stem=None if self.stem is None else function(self.stem),
        )

    def rows(self, start: int, stop: int) -> Embeddings:
        """The tiles from ``start`` up to ``stop``, as views."""
        return self.map(lambda array: array[start:stop])

    @staticmethod
    def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
        """Batches one behind the other; all made with the same scales and patches."""
        first = parts[0]
        if len(parts) == 1:
            return first
        concat = array_namespace(first.image).concat
        return Embeddings(
            image=concat([part.image for part in parts]),
            windows={scale: concat([part.windows[scale] for part in parts]) for scale in first.windows},
            patches=None if first.patches is None else concat([part.patches for part in parts]),
            stem=None if first.stem is None else concat([part.stem for part in parts]),
        )
