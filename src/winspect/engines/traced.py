"""The image tower as torch traces it at the tiles' size: a static graph from pixels to embeddings.

For everything that the hand-written graph (:mod:`winspect.engines.tower_graph`) does not hold: tiles of another size
than the tower's own, blocks on the way, the stem's maps, timm's models.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from winspect.backbones.embeddings import LAST, LAST_NORM, STEM, Embeddings, Needs, block
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.loading import Tower
from winspect.engines.tower_graph import IMAGE, window_output
from winspect.errors import MissingExtraError
from winspect.system.installation import install_command

if TYPE_CHECKING:
    import openvino as ov

TRACE_VERSION = 2
"""Part of every cached graph's key: raised when the same weights would give another graph."""
OPSET = 20  # the first with Gelu
_LARGEST_WITHIN = 1 << 30  # bytes of weights in an ONNX file: protobuf ends at two


@dataclass(frozen=True)
class Trace:
    """What a graph embeds.

    Attributes:
        needs: what it gives.
        image_hw: height and width of a tile in pixels.
        batch: tiles.
    """

    needs: Needs
    image_hw: tuple[int, int]
    batch: int

    @property
    def key(self) -> str:
        """The trace in the keys of caches."""
        return f"{self!r} of torch {torch.__version__}"

    @property
    def pixels(self) -> Tensor:
        """Tiles of its shape."""
        return torch.zeros(self.batch, 3, *self.image_hw)


def has_packed_graph(tower: Tower, needs: Needs, image_hw: tuple[int, int]) -> bool:
    """Whether the hand-written graph gives what is needed."""
    layers = set(needs.layers)
    return (
        isinstance(tower, ImageTower)
        and needs.seen_hw(image_hw) == image_hw == tower.image_hw
        and layers <= {LAST, LAST_NORM, STEM}
        and not {LAST, LAST_NORM} <= layers
        and needs.blocks(tower.depth) == tower.depth
    )


class TracedTower(nn.Module):
    """A tower that gives what is needed of tiles of one size as a tuple of tensors."""

    def __init__(self, tower: Tower, trace: Trace) -> None:
        super().__init__()
        self.tower, self.needs = tower, trace.needs
        tower.prepare(trace.image_hw, trace.needs)

    @property
    def outputs(self) -> list[str]:
        """Names of what it gives: the image embedding where the last block runs, windows, layers."""
        image = [IMAGE] if self.needs.blocks(self.tower.depth) == self.tower.depth else []
        return [
            *image,
            *map(window_output, self.needs.scales),
            *dict.fromkeys(layer_outputs(self.tower, self.needs).values()),
        ]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        embeddings = self.tower(pixels, self.needs)
        given = {IMAGE: embeddings.image, **{window_output(s): windows for s, windows in embeddings.windows.items()}}
        for layer, output in layer_outputs(self.tower, self.needs).items():
            given[output] = embeddings.patches[layer]
        return tuple(given[name] for name in self.outputs)


class TracedTokens(nn.Module):
    """Pixels to tokens behind ln_pre, and stem features where the tower has them."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        tokens, stem = self.tower.tokens(pixels)
        return tokens if stem is None else (tokens, stem)

    @property
    def outputs(self) -> list[str]:
        """Names of what it gives."""
        return ["tokens", "stem"] if hasattr(self.tower.conv1, "stem_features") else ["tokens"]


def layer_outputs(tower: Tower, needs: Needs) -> dict[str, str]:
    """The output that each layer is: layers that are the same have one, as graphs may merge equal outputs."""
    same = {block(tower.depth): LAST}
    if isinstance(getattr(tower, "last_norm", None), nn.Identity):
        same[LAST_NORM] = LAST
    return {layer: same.get(layer, layer) for layer in needs.layers}


def embeddings_of(outputs: Mapping[str, Tensor], tower: Tower, trace: Trace) -> Embeddings:
    """The embeddings in a graph's outputs."""
    first = next(iter(outputs.values()))
    rows, columns = (side // tower.patch for side in trace.needs.seen_hw(trace.image_hw))
    return Embeddings(
        image=outputs[IMAGE] if IMAGE in outputs else first.new_zeros(len(first), 0),
        windows={scale: outputs[window_output(scale)] for scale in trace.needs.scales},
        patches={layer: outputs[output] for layer, output in layer_outputs(tower, trace.needs).items()},
        grid_hw=(rows, columns),
    )


def openvino_trace(module: nn.Module, pixels: Tensor, outputs: Sequence[str]) -> ov.Model:
    """A module from pixels to tensors as an OpenVINO model of exactly this shape; it may share the module's memory."""
    import openvino as ov

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every shape that becomes a constant, as it shall
        traced = torch.jit.trace(module, pixels, check_trace=False, strict=False)
    converted = ov.convert_model(traced, example_input=pixels)
    converted.reshape(list(pixels.shape))
    converted.inputs[0].get_tensor().set_names({"pixels"})
    for output, name in zip(converted.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def write_onnx_trace(module: nn.Module, pixels: Tensor, outputs: Sequence[str], path: Path) -> None:
    """A module from pixels to tensors as an ONNX file of exactly this shape, its weights in it or, if large, beside it.

    Raises:
        MissingExtraError: onnxscript, which torch's exporter is written in, is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"torch writes ONNX with onnxscript: {install_command('onnx')}") from error
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": list(outputs)}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(module, (pixels,), dynamo=True, opset_version=OPSET, verbose=False, **names)
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    program.save(str(path), external_data=size > _LARGEST_WITHIN)
