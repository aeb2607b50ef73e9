"""Prompts to text embeddings: CLIP's text tower, run once per prefix, cached on disk.

The text tower is causal and only the end-of-text token is read. So tokens after a prompt's end cannot change any
result, and what the tower makes of a token depends on the tokens before it alone: a prefix that prompts share, such as
"a photo of the", need be computed only once. Both savings are exact. Together they leave about 1,100 of the 18,634
tokens of WinCLIP's 242 prompts.
"""

from __future__ import annotations

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
from torch.nn.functional import normalize, scaled_dot_product_attention

from winspect.backbones.image_tower import Block
from winspect.errors import ClassNameError
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.system.memory import trim_heap
from winspect.system.opening import open_file
from winspect.weights.cache import name_of

logger = logging.getLogger(__name__)

# Raised whenever the same weights and prompts would give other numbers than an older winspect.
_CACHE_VERSION = 1
_PROMPTS_PER_BATCH = 512
_GATHERED_NUMBERS = 1 << 23  # of keys, and of values, at a time: 32 MB each


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

    Towers that are causal and read the end-of-text token run once per prefix; any other text tower (Hugging Face
    models, padding masks) runs as open_clip runs it.

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
        prefixes = Prefixes.of(tokens)
        x = self.text.token_embedding(prefixes.tokens) + self.text.positional_embedding[prefixes.positions]
        for block in self.blocks:
            x = block.follow(x, _attend_to_prefix(block, x, prefixes))
        return self.text.ln_final(x[prefixes.ends]) @ self.text.text_projection


@dataclass(frozen=True)
class Prefixes:
    """The different prefixes of some prompts: a row for each, which stands for its last token.

    Attributes:
        tokens: int64 (rows,), the last token of each prefix.
        positions: int64 (rows,), its place in the prompt, from 0.
        chains: int64 (rows, longest), the rows of a prefix's own prefixes, itself last, then zeros.
        ends: int64 (prompts,), the row of each whole prompt, which ends with the end-of-text token.
    """

    tokens: Tensor
    positions: Tensor
    chains: Tensor
    ends: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> Prefixes:
        """From prompts, int64 (prompts, context), each ended by the highest number of the vocabulary."""
        known: dict[tuple[int, ...], int] = {}
        chains: list[list[int]] = []
        ends = []
        for prompt, end in zip(tokens.tolist(), tokens.argmax(dim=-1).tolist(), strict=True):
            chain: list[int] = []
            for length in range(1, end + 2):
                row = known.setdefault(tuple(prompt[:length]), len(known))
                chain.append(row)
                if row == len(chains):
                    chains.append(list(chain))
            ends.append(chain[-1])
        longest = max(map(len, chains))
        return cls(
            tokens=torch.tensor([prefix[-1] for prefix in known]),
            positions=torch.tensor([len(chain) - 1 for chain in chains]),
            chains=torch.tensor([chain + [0] * (longest - len(chain)) for chain in chains]),
            ends=torch.tensor(ends),
        )


def _attend_to_prefix(block: Block, x: Tensor, prefixes: Prefixes) -> Tensor:
    """Causal attention: each row sees the rows of its chain. (rows, width) to (rows, width), before the projection."""

    def split_heads(part: Tensor) -> Tensor:
        return part.unflatten(-1, (block.heads, -1))

    queries, keys, values = (split_heads(part) for part in block.project(x))
    longest = prefixes.chains.shape[1]
    seen = torch.arange(longest) <= prefixes.positions[:, None]
    attended = []
    for part in torch.arange(len(x)).split(max(1, _GATHERED_NUMBERS // (longest * x.shape[1]))):
        own = prefixes.chains[part]
        mixed = scaled_dot_product_attention(
            queries[part, :, None],
            keys[own].transpose(1, 2),
            values[own].transpose(1, 2),
            attn_mask=seen[part, None, None],
        )
        attended.append(mixed.flatten(1))
    return torch.cat(attended)


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
            embeddings = self.load_tower()(normal + anomalous)
            trim_heap()  # of the tower, which is not kept
            text = ClassText.average(embeddings[: len(normal)], embeddings[len(normal) :])
            if self.cache and path:
                self.cache.write(path, text)
        return text
