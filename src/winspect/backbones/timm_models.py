"""Loading a vision transformer of timm: verified weights, the architecture they fit, and what belongs to them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from winspect.backbones.timm_tower import TimmTower
from winspect.errors import ArchitectureError, WeightsMismatchError
from winspect.weights.checkpoint import fit, read_tensors
from winspect.weights.tags import Source

_FREE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause")
# Their position tables are resampled in ways of their own, which timm keeps inside its functions.
_OTHER_RESAMPLING = ("flexi", "radio")
_BUILD_ERRORS = (TypeError, ValueError, AttributeError, AssertionError, LookupError, RuntimeError, ArithmeticError)


def load_timm(source: Source) -> tuple[TimmTower, str, tuple[str, ...]]:
    """The tower of a source, float32, on the CPU; its activation; remarks to be logged once.

    Every parameter comes from the weights, or it is an error. Checkpoints in the formats that timm converts (Meta's own
    of DINOv2, for example) are converted by timm's function, which also resamples a position table of another size.

    Args:
        source: of :func:`winspect.weights.timm_names.timm_source`, its file in place.

    Raises:
        ArchitectureError: timm cannot build it, or it is no plain ViT.
        WeightsCorruptError: the file is damaged.
        UnsafeWeightsError: the file holds pickled code; it was not run.
        WeightsMismatchError: the file's tensors are not the architecture's; lists them.
    """
    config: Mapping[str, Any] = source.config or {}
    settings = config["pretrained_cfg"]
    model = _built(source.model, config)
    tensors, remarks = _converted(source, model, _without_classifier(read_tensors(source.path), settings))
    fit(model, tensors, path=source.path, name=source.model, dtype=torch.float32)
    if (licence := settings.get("license")) and licence not in _FREE:
        remarks += (f"{source.model}: its weights come under {licence}; read it before you use what they give",)
    return TimmTower(model).eval().requires_grad_(False), _activation(model), remarks


def _built(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The model without memory, but for what timm computes: rotary embeddings have no place in a checkpoint."""

    def build() -> nn.Module:
        arguments = {**config.get("model_args", {}), "num_classes": 0, "dynamic_img_size": True}
        settings = dict(config["pretrained_cfg"])
        return timm.create_model(config["architecture"], pretrained=False, pretrained_cfg=settings, **arguments)

    try:
        with torch.device("meta"):
            model = build()
        if any(buffer.is_meta for buffer in model.buffers()):
            with torch.random.fork_rng(devices=[]):
                model = build()
    except _BUILD_ERRORS as error:
        raise ArchitectureError(f"{name}: timm {timm.__version__} cannot build it ({error})") from error
    TimmTower(model)  # refuses other models before their weights are read
    return model


def _without_classifier(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    named = settings.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((named,) if isinstance(named, str) else named))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}


def _converted(
    source: Source, model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under timm's names, and what there is to be said of it."""
    if any(word in source.model for word in _OTHER_RESAMPLING):
        return dict(tensors), ()
    convert: Any = sys.modules[type(model).__module__].checkpoint_filter_fn
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints
            converted = dict(convert(dict(tensors), model))
    except _BUILD_ERRORS as error:
        raise WeightsMismatchError(
            f"{source.path}: timm cannot read these as weights of {source.model} ({error!r}); choose the model they "
            "were trained for, or another file"
        ) from error
    before, after = tensors.get("pos_embed"), converted.get("pos_embed")
    if before is None or after is None or before.shape == after.shape:
        return converted, ()
    counts = f"{before.shape[1]} positions to {after.shape[1]}"
    return converted, (f"{source.path}: its position table was resampled as timm does it, from {counts}",)


def _activation(model: Any) -> str:
    """The name of the activation in the MLPs, in lower case."""
    return type(model.blocks[0].mlp.act).__name__.lower()
