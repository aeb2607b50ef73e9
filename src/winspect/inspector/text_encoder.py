"""Class names to text embeddings: from memory, from disk, or from a text tower that is loaded for it.

Imports torch only where a text tower is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from winspect.errors import WeightsCorruptError
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.system.files import replacing_in_cache
from winspect.system.opening import open_file
from winspect.weights.cache import name_of

if TYPE_CHECKING:
    from torch import Tensor

    from winspect.backbones.text_tower import TextTower

logger = logging.getLogger(__name__)

# Raised whenever the same weights and prompts would give other numbers than an older winspect.
_CACHE_VERSION = 1


@dataclass(frozen=True)
class ClassText:
    """The two text embeddings of a class, in the two ways of averaging that the recipes know.

    Attributes:
        raw: float32 (2, embedding); normal, anomalous; the mean of the raw prompt embeddings (recipe ``paper``).
        normalised: the same shape; each embedding L2-normalised, averaged, normalised again (recipe ``tiles``).
    """

    raw: np.ndarray
    normalised: np.ndarray

    @classmethod
    def average(cls, normal: Tensor, anomalous: Tensor) -> ClassText:
        """Average prompt embeddings, float (prompts, embedding), of the two sides."""
        import torch
        from torch.nn.functional import normalize

        sides = (normal, anomalous)
        raw = torch.stack([side.mean(dim=0) for side in sides])
        normalised = torch.stack([normalize(normalize(side, dim=-1).mean(dim=0), dim=-1) for side in sides])
        return cls(raw=raw.numpy(), normalised=normalised.numpy())


class TextCache:
    """Text embeddings of classes on disk, one small file per tower and prompts.

    Args:
        folder: where the files go; made on first use.
        identity: of the text tower: weights, architecture, activation. Part of the key, so that another tower never
            meets these embeddings.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def path(self, normal: Sequence[str], anomalous: Sequence[str]) -> Path:
        """The file of these prompts."""
        return self.folder / f"{name_of([_CACHE_VERSION, self.identity, list(normal), list(anomalous)])}.npz"

    def read(self, path: Path) -> ClassText | None:
        """The embeddings in a file, or None when it is not there or not whole (it is written anew then)."""
        try:
            with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
                raw, normalised = arrays["raw"], arrays["normalised"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile) as error:
            # RuntimeError: damage that looks like a zip file's encryption, or like a newer kind of it
            logger.warning("%s: unreadable text cache (%s); encoding the prompts again", path, error)
            return None
        return ClassText(raw=raw, normalised=normalised)

    def write(self, path: Path, text: ClassText) -> None:
        """Write under a temporary name, then rename. A cache that cannot be written costs time only: it is logged."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing_in_cache(path) as temporary, temporary.open("wb") as file:
                np.savez(file, raw=text.raw, normalised=text.normalised)
        except OSError as error:
            logger.warning("%s: cannot keep text embeddings (%s); they are encoded anew next time", self.folder, error)


class TextEncoder:
    """Class names to text embeddings, from memory, from disk, or from the text tower.

    Args:
        load_tower: gives the text tower; called only for a class nobody has asked for yet. The tower is not kept.
        prompts: states and templates.
        underscores: of class names; see :func:`winspect.methods.winclip.prompts.check_class_name`.
        cache: where embeddings are kept between processes; None keeps them in memory alone.
    """

    def __init__(
        self,
        load_tower: Callable[[], TextTower],
        prompts: PromptEnsemble,
        cache: TextCache | None,
        *,
        underscores: str = "space",
    ) -> None:
        self.load_tower, self.prompts, self.cache, self.underscores = load_tower, prompts, cache, underscores
        self._known: dict[str, ClassText] = {}

    def __call__(self, class_name: str) -> ClassText:
        """The text embeddings of a class.

        Raises:
            ClassNameError: the name cannot be put into a prompt, or is too long for the model.
        """
        if class_name not in self._known:
            self._known[class_name] = self._look_up(*self.prompts.prompts(class_name, underscores=self.underscores))
        return self._known[class_name]

    def drop(self, class_name: str) -> None:
        """Keep the embeddings of a class on disk alone."""
        self._known.pop(class_name, None)

    def _look_up(self, normal: list[str], anomalous: list[str]) -> ClassText:
        path = self.cache.path(normal, anomalous) if self.cache else None
        text = self.cache.read(path) if self.cache and path else None
        if text is None:
            from winspect.system.memory import trim_heap

            embeddings = self.load_tower()(normal + anomalous)
            trim_heap()  # of the tower, which is not kept
            text = ClassText.average(embeddings[: len(normal)], embeddings[len(normal) :])
            if self.cache and path:
                self.cache.write(path, text)
        return text


def load_text_tower(
    model: str, weights: str | PathLike[str] | None, cache_dir: str | PathLike[str] | None, *, sha256: str
) -> TextTower:
    """Load the text tower alone. It is not kept: its weights are half of the model's, and a class is encoded once.

    Args:
        model, weights, cache_dir: as of :class:`winspect.WinCLIP`.
        sha256: of the weights in use.

    Raises:
        WeightsCorruptError: the weights have changed meanwhile.
    """
    from winspect.backbones.open_clip_models import load
    from winspect.backbones.text_tower import TextTower

    again = load(model, weights, cache_dir=cache_dir, offline=True)
    if again.sha256 != sha256:
        raise WeightsCorruptError(f"{again.path}: the weights have changed while they were in use; start again")
    return TextTower(again.model, again.tokenizer).eval()
