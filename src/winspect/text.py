"""Prompts to text embeddings: CLIP's text tower, run to the longest prompt's end, cached on disk.

The text tower is causal and only the end-of-text token is read, so tokens after the longest prompt's end cannot
change any result; stopping there is exact and about four times cheaper than the full 77 tokens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from winspect.encoder import Block
from winspect.errors import ClassNameError
from winspect.prompts import PromptEnsemble

logger = logging.getLogger(__name__)

# Raised whenever the same weights and prompts would give other numbers than an older winspect.
_CACHE_VERSION = 1
_PROMPTS_PER_BATCH = 64


@dataclass(frozen=True)
class ClassText:
    """The two text embeddings of a class, in the two ways of averaging that the recipes know.

    Attributes:
        raw: float32 (2, embedding); normal, anomalous; the mean of the raw prompt embeddings (recipe ``paper``).
        normalised: the same shape; each embedding L2-normalised, averaged, normalised again (recipe ``tiles``).
    """

    raw: Tensor
    normalised: Tensor

    @classmethod
    def average(cls, normal: Tensor, anomalous: Tensor) -> ClassText:
        """Average prompt embeddings, float (prompts, embedding), of the two sides."""
        sides = (normal, anomalous)
        return cls(
            raw=torch.stack([side.mean(dim=0) for side in sides]),
            normalised=torch.stack([normalize(normalize(side, dim=-1).mean(dim=0), dim=-1) for side in sides]),
        )


class TextTower(nn.Module):
    """An open_clip text tower, sharing its weights, in float32 on the CPU.

    Towers that are causal and read the end-of-text token run up to the longest prompt's end; any other text tower
    (Hugging Face models, padding masks) runs as open_clip runs it.

    Args:
        clip: an open_clip model.
        tokenizer: its tokenizer, a call from texts to int64 (texts, context length).
    """

    text: Any
    clip: Any

    def __init__(self, clip: nn.Module, tokenizer: Callable[[Sequence[str]], Tensor]) -> None:
        super().__init__()
        self.clip, self.tokenizer = clip, tokenizer
        self.text = getattr(clip, "text", clip)
        blocks = getattr(getattr(self.text, "transformer", None), "resblocks", None)
        self.is_plain = bool(
            blocks is not None
            and getattr(self.text, "cls_emb", None) is None
            and getattr(self.text, "attn_mask", None) is not None
            and not getattr(self.text, "use_pad_mask", False)
            and getattr(self.text, "text_pool_type", getattr(self.text, "pool_type", "argmax")) == "argmax"
            and isinstance(getattr(self.text, "text_projection", None), Tensor)
        )
        self.blocks = [Block(block) for block in blocks or ()] if self.is_plain else []

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, float32 (texts, embedding), not normalised.

        Raises:
            ClassNameError: a text is longer than the tower's context.
        """
        tokens = self.tokenizer(list(texts))
        self._check_length(texts, tokens)
        with torch.inference_mode():
            return torch.cat([self._encode(part) for part in tokens.split(_PROMPTS_PER_BATCH)]).float()

    def _check_length(self, texts: Sequence[str], tokens: Tensor) -> None:
        encode = getattr(self.tokenizer, "encode", None)
        if encode is None or not self.is_plain:
            return
        full = tokens[:, -1] != 0  # a row without padding may have been cut
        for text in (text for text, is_full in zip(texts, full, strict=True) if is_full):
            if len(encode(text)) + 2 > tokens.shape[1]:
                raise ClassNameError(
                    f"got a prompt of {len(encode(text)) + 2} tokens ({text[:60]!r}...), at most {tokens.shape[1]} "
                    "fit into this model; use a shorter class name"
                )

    def _encode(self, tokens: Tensor) -> Tensor:
        if not self.is_plain:
            return self.clip.encode_text(tokens)
        ends = tokens.argmax(dim=-1)  # end-of-text has the highest number of the vocabulary
        tokens = tokens[:, : int(ends.max()) + 1]
        x = self.text.token_embedding(tokens) + self.text.positional_embedding[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        return self.text.ln_final(x[torch.arange(len(x)), ends]) @ self.text.text_projection


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
        key = json.dumps([_CACHE_VERSION, self.identity, list(normal), list(anomalous)])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"

    def read(self, path: Path) -> ClassText | None:
        """The embeddings in a file, or None when it is not there or not whole (it is written anew then)."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                raw, normalised = (torch.from_numpy(arrays[name]) for name in ("raw", "normalised"))
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
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
                temporary = Path(file.name)
                try:
                    np.savez(file, raw=text.raw.numpy(), normalised=text.normalised.numpy())
                except BaseException:
                    temporary.unlink()
                    raise
            os.replace(temporary, path)
        except OSError as error:
            logger.warning("%s: cannot keep text embeddings (%s); they are encoded anew next time", self.folder, error)


class TextEncoder:
    """Class names to text embeddings, from memory, from disk, or from the text tower.

    Args:
        tower: the text tower.
        prompts: states and templates.
        cache: where embeddings are kept between processes; None keeps them in memory alone.
    """

    def __init__(self, tower: TextTower, prompts: PromptEnsemble, cache: TextCache | None) -> None:
        self.tower, self.prompts, self.cache = tower, prompts, cache
        self._known: dict[str, ClassText] = {}

    def __call__(self, class_name: str) -> ClassText:
        """The text embeddings of a class.

        Raises:
            ClassNameError: the name cannot be put into a prompt, or is too long for the model.
        """
        if class_name not in self._known:
            self._known[class_name] = self._look_up(*self.prompts.prompts(class_name))
        return self._known[class_name]

    def _look_up(self, normal: list[str], anomalous: list[str]) -> ClassText:
        path = self.cache.path(normal, anomalous) if self.cache else None
        text = self.cache.read(path) if self.cache and path else None
        if text is None:
            embeddings = self.tower(normal + anomalous)
            text = ClassText.average(embeddings[: len(normal)], embeddings[len(normal) :])
            if self.cache and path:
                self.cache.write(path, text)
        return text
