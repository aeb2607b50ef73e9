"""What methods have in common that see pictures as squares and read some of a tower's blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from winspect.backbones.embeddings import Needs
from winspect.methods.method import Method
from winspect.methods.settings import layers_of, whole_size
from winspect.pictures.tiles import Preprocess


class SquareOfBlocks(Method):
    """A base for frozen dataclasses with these fields.

    Attributes:
        size: side of the square that pictures are resized to, in pixels.
        blocks: whose patch vectors are read, counted from 1, or names of layers; None for those of the tower's depth.
        strict: refuse a size that is no multiple of the patch, instead of rounding it down.
    """

    size: int
    blocks: tuple[int | str, ...] | None
    strict: bool

    @staticmethod
    @abstractmethod
    def blocks_of(depth: int) -> tuple[int, ...]:
        """The blocks that are read of a tower of so many, where none were set."""

    def preprocess(self, preprocess: Preprocess, patch: int) -> Preprocess:
        """See :class:`Method`; a square."""
        return replace(preprocess, size=whole_size(self.size, patch, strict=self.strict))

    def for_model(
        self, scoring: Mapping[str, Any], model: str, *, depth: int | None = None, patch: int | None = None
    ) -> Any:
        """See :class:`Method`: the size in whole patches, and the blocks unless they were set."""
        method: Any = self
        size = self.size if patch is None else whole_size(self.size, patch, strict=self.strict)
        blocks = self.blocks_of(depth) if self.blocks is None and depth is not None else self.blocks
        return replace(method, size=size, blocks=blocks)

    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """See :class:`Method`.

        Raises:
            SettingsError: the blocks depend on a model that is not known yet.
        """
        return Needs(layers=self.layers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of :attr:`blocks`.

        Raises:
            SettingsError: they depend on a model that is not known yet.
        """
        return layers_of(self.blocks)
