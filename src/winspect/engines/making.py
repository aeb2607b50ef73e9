"""From a choice to an engine that runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from winspect.backbones.image_tower import ImageTower
from winspect.engines.base import Engine
from winspect.engines.choice import Choice
from winspect.engines.graph_cache import GraphCache
from winspect.engines.torch_engine import TorchEngine
from winspect.errors import EngineBuildError, EngineError


def make_engine(
    choice: Choice,
    tower: ImageTower,
    *,
    cache: GraphCache,
    batch_size: int | None = None,
    prefetch: bool = False,
    graphs: bool = False,
    calibration: Tensor | None = None,
    windows: tuple[Sequence[int], int] = ((), 1),
) -> Engine:
    """The engine of a choice. Graphs are built when tiles are first encoded.

    Args:
        choice: what was decided.
        tower: the image tower in float32, on the CPU.
        cache: of graphs.
        batch_size: tiles per pass at most; None for the engine's default.
        prefetch: prefetch weights, on an Ascend NPU.
        graphs: run passes as captured graphs, on CUDA or Ascend.
        calibration: normalised tiles that int8 is calibrated on.
        windows: scales and stride of the recipe, with which int8 is quantised.

    Raises:
        EngineError: ``graphs`` on a device that has none.
        WinspectError: the engine cannot be made for another reason.
    """
    if choice.engine == "torch":
        return TorchEngine(tower, choice.device, choice.precision, batch_size, prefetch=prefetch, graphs=graphs)
    if graphs:
        raise EngineError(f"got graphs with engine {choice.engine}; captured graphs need engine torch on cuda or npu")
    try:
        return _static_engine(choice, tower, cache, batch_size, calibration, windows)
    except ImportError as error:
        raise EngineBuildError(f"engine {choice.engine} cannot be loaded: {error}; install it again") from error


def _static_engine(
    choice: Choice,
    tower: ImageTower,
    cache: GraphCache,
    batch_size: int | None,
    calibration: Tensor | None,
    windows: tuple[Sequence[int], int],
) -> Engine:
    if choice.engine == "onnx":
        from winspect.engines.onnx_engine import OnnxEngine

        return OnnxEngine(tower, cache=cache, batch_size=batch_size)
    if choice.precision == "int8":
        from winspect.engines.quantised import QuantisedEngine

        if calibration is None:
            raise ValueError("int8 needs calibration tiles")
        return QuantisedEngine(tower, calibration=calibration, cache=cache, scales=windows[0], stride=windows[1])
    from winspect.engines.openvino_engine import OpenVINOEngine

    return OpenVINOEngine(
        tower, precision=choice.precision, device=choice.openvino_device, batch_size=batch_size, cache=cache
    )
