"""Loading a CLIP model: verified weights, the architecture they fit, and what belongs to them.

Models are built on PyTorch's ``meta`` device, where tensors have shapes but no memory; the checkpoint's tensors are
then put in their place. Nothing is ever initialised at random, and the peak memory is the weights themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.version import __version__ as open_clip_version
from torch import nn

from winspect.backbones.bundled import load_tiny
from winspect.errors import ArchitectureError, PrecisionError, WeightsMissingError, WinspectError
from winspect.pictures.tiles import Preprocess
from winspect.weights import LOCAL
from winspect.weights.architectures import architecture, context_length
from winspect.weights.cache import sha256_of
from winspect.weights.checkpoint import fit, is_openai, read_tensors
from winspect.weights.configs import CONFIG_FILE
from winspect.weights.sources import resolve
from winspect.weights.tags import Source

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What open_clip and torch raise on a configuration that does not fit together.
_BUILD_ERRORS = (TypeError, ValueError, AttributeError, AssertionError, LookupError, RuntimeError, ArithmeticError)


@dataclass(frozen=True)
class LoadedCLIP:
    """A CLIP model with everything that must travel with it.

    Attributes:
        model: an open_clip ``CLIP`` or ``CustomTextCLIP``, in eval mode, on the CPU, no gradients. Its parameters may
            be memory-mapped from ``path``: do not overwrite that file in place while the model is in use (replacing
            it by renaming another file over it is safe).
        name: architecture, or ``winspect-tiny``; see :class:`winspect.weights.tags.Source`.
        tag: pretrained tag, name of the weights file, or "bundled".
        sha256: of the weights file, 64 hexadecimal digits.
        path: the weights file.
        preprocess: pictures to the model's input.
        tokenizer: list of strings -> int64 tensor (texts, ``context_length``).
        context_length: tokens per text.
        precision: "fp32", "fp16" or "bf16": dtype of every floating parameter and buffer.
        activation: "gelu" or "quick_gelu", of the image tower's MLPs; another one's name in lower case.
        remarks: decisions that the weights made, to be logged once.
        scoring: settings of scores that the model brings along, empty for models of open_clip: ``temperature``,
            ``log_fusion`` (see :class:`winspect.methods.winclip.fusion.FusionSettings`) and ``fused`` (see
            :class:`winspect.methods.fused.method.FusedSettings`).
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
    activation: str
    remarks: tuple[str, ...] = ()
    scoring: Mapping[str, Any] = field(default_factory=dict)


def load(
    model: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    precision: str = "fp32",
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> LoadedCLIP:
    """Load a CLIP model. Never a random one: every parameter comes from the weights, or it is an error.

    The weights are mapped into memory and used in place where they have the precision asked for, else converted
    tensor by tensor: the peak stays under twice the weights.

    Args:
        model: an open_clip architecture such as ``"ViT-B-16-plus-240"``; ``"winspect-tiny"``, the bundled model;
            ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, weights with an ``open_clip_config.json``.
        weights: a pretrained tag of the architecture (fetched on first use), or a ``.safetensors``, ``.pt``, ``.pth``
            or ``.bin`` file; None for the default, which only ``ViT-B-16-plus-240`` and ``winspect-tiny`` have, and for
            models that bring their own.
        precision: "fp32", "fp16" or "bf16".
        cache_dir: where downloaded weights are kept; None for ``$WINSPECT_CACHE`` or the user's cache folder.
        offline: never use the network (also where ``WINSPECT_OFFLINE`` or ``HF_HUB_OFFLINE`` is 1).

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
            f"got precision {precision!r}, need one of {', '.join(DTYPES)} (int8 is made by an engine, from fp32)"
        )
    source = resolve(model, weights, cache_dir=cache_dir, offline=offline)
    built = _bundled(source, precision) if source.kind == "bundled" else _from_checkpoint(source, precision)
    network, tokenizer, tokens, remarks = built
    settings = (source.config or {}) if source.kind == "bundled" else {}
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
        activation=activation_of(network),
        remarks=remarks,
        scoring={name: settings[name] for name in ("temperature", "log_fusion", "fused") if name in settings},
    )


def activation_of(network: nn.Module) -> str:
    """The activation of an open_clip model's image tower, as :class:`LoadedCLIP` names it."""
    visual: Any = network.visual
    name = type(visual.transformer.resblocks[0].mlp.gelu).__name__
    return {"GELU": "gelu", "QuickGELU": "quick_gelu"}.get(name, name.lower())


def activation_in(source: Source) -> str | None:
    """The activation that weights are used with, without loading them; None where they are damaged, or timm's."""
    if source.kind == "bundled":
        return "gelu"
    config = source.config or architecture(source.model)
    if "architecture" in config:  # timm's
        return None
    quick_gelu = source.quick_gelu
    if quick_gelu is None and source.kind == "file":
        try:
            quick_gelu, _ = _quick_gelu(source, read_tensors(source.path))
        except WinspectError:
            return None
    return "quick_gelu" if (config.get("quick_gelu") if quick_gelu is None else quick_gelu) else "gelu"


_Built = tuple[nn.Module, Callable[..., torch.Tensor], int, tuple[str, ...]]


def _bundled(source: Source, precision: str) -> _Built:
    network = load_tiny(source.path.parent)
    tokens = int(network.context_length)
    return network.to(DTYPES[precision]), open_clip.SimpleTokenizer(context_length=tokens), tokens, ()


def _from_checkpoint(source: Source, precision: str) -> _Built:
    config = dict(source.config or architecture(source.model))
    tokenizer = _tokenizer(source, config)
    dtype, tensors = DTYPES[precision], read_tensors(source.path)
    quick_gelu, remarks = _quick_gelu(source, tensors)
    network = build_on_meta(config, quick_gelu=quick_gelu)
    fit(network, tensors, path=source.path, name=source.model, dtype=dtype)
    fill_buffers(network, dtype)
    return network, tokenizer, context_length(config), remarks


def _quick_gelu(source: Source, tensors: Mapping[str, torch.Tensor]) -> tuple[bool | None, tuple[str, ...]]:
    """Whether the weights are used with QuickGELU (None: as the architecture states), and remarks about it."""
    if not is_openai(tensors):
        return source.quick_gelu, ()
    if source.quick_gelu is False:
        remark = (
            f"{source.path}: OpenAI's format, whose weights need QuickGELU, but {CONFIG_FILE} says quick_gelu false"
        )
        return False, (remark,)
    if source.quick_gelu is None:
        return True, (f"{source.path}: OpenAI's format: used with QuickGELU, as OpenAI trained it",)
    return True, ()


def _tokenizer(source: Source, config: dict[str, Any]) -> Callable[..., torch.Tensor]:
    name, text = source.model, config["text_cfg"]
    if source.config is not None:
        if not text.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(context_length=context_length(config), **text.get("tokenizer_kwargs", {}))
        name = f"{LOCAL}{source.path.parent}" if source.kind == "file" else name
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


def build_on_meta(config: dict[str, Any], *, quick_gelu: bool | None = None) -> nn.Module:
    """An open_clip model without memory: every parameter and buffer lies on the ``meta`` device.

    Args:
        config: from :func:`architecture`.
        quick_gelu: build with OpenAI's ``x * sigmoid(1.702 x)``, or without; None: as the configuration states. It
            must be what the weights were trained with: the other activation loads without complaint and is wrong.

    Raises:
        ArchitectureError: open_clip cannot build the configuration.
    """
    config = dict(config)
    custom_text = config.pop("custom_text", False)
    if quick_gelu is not None:
        config["quick_gelu"] = quick_gelu
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    try:
        with torch.device("meta"):
            model: nn.Module = kind(**config)
    except _BUILD_ERRORS as error:
        raise ArchitectureError(f"open_clip {open_clip_version} cannot build this configuration ({error})") from error
    return model


def fill_buffers(model: nn.Module, dtype: torch.dtype) -> None:
    """Give memory to the buffers that no checkpoint holds: the text tower's causal mask.

    Raises:
        ArchitectureError: another buffer is without content; this version of open_clip is newer than winspect.
    """
    for module_name, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                continue
            if name != "attn_mask":
                where = f"{module_name}.{name}".lstrip(".")
                raise ArchitectureError(
                    f"open_clip {open_clip_version} computes the buffer {where!r}, which winspect does not know; "
                    'install a version it knows: pip install "open_clip_torch<4"'
                )
            mask = torch.full(buffer.shape, float("-inf"), dtype=dtype).triu_(1)
            module.register_buffer(name, mask, persistent=False)
