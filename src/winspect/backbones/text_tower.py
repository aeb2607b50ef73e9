"""Prompts to text embeddings: CLIP's text tower, run once per prefix.

The text tower is causal and only the end-of-text token is read. So tokens after a prompt's end cannot change any
result, and what the tower makes of a token depends on the tokens before it alone: a prefix that prompts share, such as
"a photo of the", need be computed only once. Both savings are exact. Together they leave about 1,100 of the 18,634
tokens of WinCLIP's 242 prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from winspect.backbones.image_tower import Block
from winspect.errors import ClassNameError

_PROMPTS_PER_BATCH = 512
_GATHERED_NUMBERS = 1 << 23  # of keys, and of values, at a time: 32 MB each


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
