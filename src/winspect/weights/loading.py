"""Loading a CLIP model: verified weights, the architecture they fit, and what belongs to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from winspect.errors import PrecisionError, WeightsMissingError
from winspect.images import Preprocess
from winspect.weights.architectures import architecture, build_on_meta, context_length, fill_buffers
from winspect.weights.cache import sha256_of
from winspect.weights.checkpoint import fit, read_tensors
from winspect.weights.sources import Source, resolve
from winspect.weights.tiny import load_tiny, read_config

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedCLIP:
    """A CLIP model with everything that must travel with it.

    Attributes:
        model: an open_clip ``CLIP`` or ``CustomTextCLIP``, in eval mode, on the CPU, no gradients. Its parameters may
            be memory-mapped from ``path``: do not overwrite that file in place while the model is in use (replacing
            it by renaming another file over it is safe).
        name: architecture, or ``winspect-tiny``.
        tag: pretrained tag, name of the weights file, or "bundled".
        sha256: of the weights file, 64 hexadecimal digits.
        path: the weights file.
        preprocess: pictures to the model's input.
        tokenizer: list of strings -> int64 tensor (texts, ``context_length``).
        context_length: tokens per text.
        precision: "fp32", "fp16" or "bf16": dtype of every floating parameter and buffer.
        scoring: settings of scores that the model brings along, empty for models of open_clip: ``temperature``, and
            ``log_fusion`` (see :class:`winspect.fusion.FusionSettings`).
    """

    model: nn.Module
    name: str
    tag: str
    sha256: str
    path: Path
    preprocess: Preprocess
    tokenizer: Callable[..., torch.Tensor]
    context_length: int
    precision: str
    scoring: Mapping[str, Any] = field(default_factory=dict)


def load(
    model: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    precision: str = "fp32",
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: bool = True,
) -> LoadedCLIP:
    """Load a CLIP model. Never a random one: every parameter comes from the weights, or it is an error.

    The weights are mapped into memory and used in place where they have the precision asked for, else converted
    tensor by tensor: the peak stays under twice the weights.

    Args:
        model: an open_clip architecture such as ``"ViT-B-16-plus-240"``, or ``"winspect-tiny"``, the bundled model.
        weights: a pretrained tag of the architecture (fetched on first use), or a ``.safetensors``, ``.pt``, ``.pth``
            or ``.bin`` file; None for the default, which only ``ViT-B-16-plus-240`` and ``winspect-tiny`` have.
        precision: "fp32", "fp16" or "bf16".
        cache_dir: where downloaded weights are kept; None for ``$WINSPECT_CACHE`` or the user's cache folder.
        offline: never use the network (also where ``WINSPECT_OFFLINE`` or ``HF_HUB_OFFLINE`` is 1).
        progress: draw a bar on stderr while downloading.

    Raises:
        PrecisionError: an unknown precision.
        ArchitectureError: the model is unknown, or of a kind WinCLIP cannot use.
        WeightsMissingError: the weights are not here and could not be fetched; says what to fetch and where to put it.
        WeightsCorruptError: the file is damaged, or its hash is wrong.
        UnsafeWeightsError: the file holds pickled code; it was not run.
        WeightsMismatchError: the file's tensors are not the architecture's; lists them.
    """
    if precision not in DTYPES:
        raise PrecisionError(
            f"got precision {precision!r}, wanted one of {', '.join(DTYPES)} (int8 is made by an engine, from fp32)"
        )
    source = resolve(model, weights, cache_dir=cache_dir, offline=offline, progress=progress)
    built = _bundled(source, precision) if source.kind == "bundled" else _from_checkpoint(source, precision)
    network, tokenizer, tokens = built
    return LoadedCLIP(
        model=network.eval().requires_grad_(False),
        name=source.model,
        tag=source.tag,
        sha256=sha256_of(source.path, cache_dir),
        path=source.path,
        preprocess=source.preprocess,
        tokenizer=tokenizer,
        context_length=tokens,
        precision=precision,
        scoring=_scoring(source),
    )


def _scoring(source: Source) -> dict[str, Any]:
    if source.kind != "bundled":
        return {}
    config = read_config(source.path.parent)
    return {name: config[name] for name in ("temperature", "log_fusion") if name in config}


_Built = tuple[nn.Module, Callable[..., torch.Tensor], int]


def _bundled(source: Source, precision: str) -> _Built:
    network = load_tiny(source.path.parent)
    tokens = int(network.context_length)
    return network.to(DTYPES[precision]), open_clip.SimpleTokenizer(context_length=tokens), tokens


def _from_checkpoint(source: Source, precision: str) -> _Built:
    config = architecture(source.model)
    tokenizer = _tokenizer(source.model, config)
    dtype = DTYPES[precision]
    network = build_on_meta(config, quick_gelu=source.quick_gelu)
    fit(network, read_tensors(source.path), path=source.path, name=source.model, dtype=dtype)
    fill_buffers(network, dtype)
    return network, tokenizer, context_length(config)


def _tokenizer(name: str, config: dict[str, Any]) -> Callable[..., torch.Tensor]:
    try:
        tokenizer: Callable[..., torch.Tensor] = open_clip.get_tokenizer(name)
    except Exception as error:
        # A tokenizer of the transformers library: any of that library's, the hub's or the network's errors.
        kind = config["text_cfg"].get("hf_tokenizer_name")
        raise WeightsMissingError(
            f"{name} reads text with the tokenizer {kind} of the transformers library, which is not here "
            f"({str(error).splitlines()[0]}); pip install transformers, and be online once"
        ) from error
    return tokenizer
