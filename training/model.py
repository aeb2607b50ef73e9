"""The bundled model's configuration, and its forward passes from cached stem features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from training.stem import pretrained_stem
from winspect.backbones.bundled import TOKEN_INDEX, TOKEN_ROWS, TOKEN_WEIGHT, build_tiny
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.weights.configs import BUNDLED_CONFIG, BUNDLED_WEIGHTS

CONFIG: dict[str, Any] = {
    "name": "winspect-tiny",
    "version": 1,
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 240, "patch_size": 16, "width": 192, "head_width": 64, "layers": 4},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
    },
    "preprocess": {"size": 240, "mean": [127 / 255] * 3, "std": [128 / 255] * 3, "interpolation": "bicubic"},
    "temperature": 0.07,
}
TEMPERATURE = float(CONFIG["temperature"])
GRID = CONFIG["model_cfg"]["vision_cfg"]["image_size"] // CONFIG["model_cfg"]["vision_cfg"]["patch_size"]
_NOUN = "x"
"""Stands for any class name: one token that no state or template has."""


def new_model(stem_mean: torch.Tensor, stem_std: torch.Tensor) -> nn.Module:
    """An untrained tiny model around the pretrained stem. Its token embedding holds the words of the prompts alone, as
    :class:`PromptTokens` numbers them; see :func:`with_full_vocabulary`."""
    model = build_tiny(CONFIG)
    embed = model.visual.conv1
    embed.stem.load_state_dict(pretrained_stem().state_dict())
    embed.stem_mean.copy_(stem_mean)
    embed.stem_std.copy_(stem_std)
    model.token_embedding = nn.Embedding(
        1 + len(PromptTokens().vocabulary), model.token_embedding.embedding_dim, padding_idx=0
    )
    return model


def with_full_vocabulary(model: nn.Module) -> nn.Module:
    """A copy of the trained model with CLIP's own vocabulary, the rows of all words it was not trained on zero."""
    full = build_tiny(CONFIG)
    state = model.state_dict()
    table = torch.zeros_like(full.token_embedding.weight)
    table[PromptTokens().vocabulary] = state["token_embedding.weight"][1:]
    full.load_state_dict({**state, "token_embedding.weight": table})
    return full


def save_tiny(model: nn.Module, config: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float16) to ``folder``.

    Of the token embedding only the rows that are not zero are kept: the model knows no other words.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    table = state.pop(TOKEN_WEIGHT)
    index = table.any(dim=1).nonzero()[:, 0]
    state[TOKEN_INDEX], state[TOKEN_ROWS] = index.int(), table[index].contiguous()
    (folder / BUNDLED_WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))
    (folder / BUNDLED_CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")


def embed(visual: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """``(B, 176, 15, 15)`` stem features to the transformer's input ``(B, 226, 192)``, class token first."""
    tokens = visual.conv1.project(features).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(tokens), 1, -1)
    return visual.ln_pre(torch.cat([cls, tokens], dim=1) + visual.positional_embedding)


def transform(transformer: nn.Module, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    """The transformer in bfloat16, six times as fast as float32 on a CPU that has it; float32 out."""
    with torch.autocast(tokens.device.type, torch.bfloat16):
        return transformer(tokens, **options).float()


def to_text_space(visual: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Transformer outputs ``(..., 192)`` to unit vectors ``(..., 128)`` beside the text's."""
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


def window_embeddings(visual: nn.Module, tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Embeddings ``(B, W, 128)`` of windows, each passed through the transformer alone with the class token.

    Args:
        tokens: ``(B, 226, 192)`` as :func:`embed` gives.
        patches: ``(B, W, s * s)`` patch numbers, W windows for each picture.
    """
    batch, windows = patches.shape[:2]
    gathered = tokens[torch.arange(batch, device=tokens.device)[:, None, None], patches + 1]
    cls = tokens[:, :1, None].expand(-1, windows, -1, -1)
    alone = torch.cat([cls, gathered], dim=2).flatten(0, 1)
    out = transform(visual.transformer, alone)[:, 0].reshape(batch, windows, -1)
    return to_text_space(visual, out)


class PromptTokens:
    """The prompt ensemble as token numbers, for class names of any length.

    Only the words of states and templates are trained, numbered from 1 in the order of CLIP's vocabulary. Any other
    token is 0, whose embedding stays zero: a class name reaches the model as blank positions, and which name it is
    makes no difference.
    """

    def __init__(self) -> None:
        self._ensemble = PromptEnsemble()
        self._tokenize = open_clip.get_tokenizer("ViT-B-16-plus-240")
        noun = self._tokenize([_NOUN])[0, 1]
        normal, anomalous = self._ensemble.prompts(_NOUN)
        used = self._tokenize(normal + anomalous).unique()
        self.vocabulary = used[(used != noun) & (used != 0)]

    def __call__(self, blanks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normal ``(154, L)`` and anomalous ``(88, L)`` prompts for a class name of ``blanks`` tokens."""
        normal, anomalous = self._ensemble.prompts(" ".join([_NOUN] * blanks))
        tokens = self._tokenize(normal + anomalous)
        known = torch.isin(tokens, self.vocabulary)
        numbers = (torch.searchsorted(self.vocabulary, tokens) + 1) * known
        numbers = numbers[:, : int(numbers.argmax(dim=1).max()) + 1]
        return numbers[: len(normal)], numbers[len(normal) :]


def encode_prompts(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """``(P, L)`` token numbers to ``(P, 128)`` text embeddings, not normalised. ``L`` may be under 77: the tower is
    causal and reads the end token, the largest number, so what is behind the longest prompt's changes nothing."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = transform(model.transformer, x, attn_mask=model.attn_mask[:length, :length])
    ends = x[torch.arange(len(x)), tokens.argmax(dim=1)]
    return model.ln_final(ends) @ model.text_projection


def average_prompts(embeddings: torch.Tensor, *, normalise_each: bool) -> torch.Tensor:
    """``(P, 128)`` prompt embeddings to their unit mean ``(128,)``, each made a unit vector before or not."""
    if normalise_each:
        embeddings = F.normalize(embeddings, dim=-1)
    return F.normalize(embeddings.mean(dim=0), dim=-1)


def logits(embeddings: torch.Tensor, normal: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
    """Unit vectors ``(..., 128)`` against both sides of the text: cosine difference over the temperature."""
    return (embeddings @ (anomalous - normal)) / TEMPERATURE
