"""The torch engine: eager, on CPU, CUDA or Ascend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.backbones.loading import Tower
from winspect.engines.accelerators.ascend import WeightPrefetch
from winspect.engines.accelerators.captured_graphs import BUCKETS, CapturedGraphs
from winspect.engines.base import Engine
from winspect.engines.devices import dtype_of
from winspect.engines.timing import OperatorTime, torch_times
from winspect.errors import DeviceError

# Tiles per pass. More does not make a CPU faster and costs memory; a GPU needs more to be busy.
DEFAULT_BATCH_SIZES = {"cpu": 4, "cuda": 32, "npu": 32}


class TorchEngine(Engine):
    """The tower as torch runs it, operator by operator.

    Args:
        tower: the image tower; moved to the device and cast to the precision.
        device: where it runs.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        batch_size: tiles per pass at most; None for the device's default.
        prefetch: ask an Ascend NPU for the weights before the first block (:class:`WeightPrefetch`).
        graphs: run passes as captured graphs, on CUDA or Ascend (:class:`CapturedGraphs`).
        buckets: with ``graphs``, the batch sizes they are captured for; the largest limits ``batch_size``.

    Raises:
        DeviceError: ``prefetch`` on a device that is no Ascend NPU.
        EngineError: ``graphs`` on a device that has none.
    """

    name = "torch"

    def __init__(
        self,
        tower: Tower,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        *,
        prefetch: bool = False,
        graphs: bool = False,
        buckets: Sequence[int] = BUCKETS,
    ) -> None:
        if prefetch and device.type != "npu":
            raise DeviceError(f"got weight prefetch on {device}, need an Ascend NPU; use npu:0, or another plan")
        self.dtype = dtype_of(precision)
        super().__init__(
            tower.to(device=device, dtype=self.dtype),
            precision=precision,
            device=device,
            batch_size=batch_size or DEFAULT_BATCH_SIZES[device.type],
        )
        # Only now: on its way to a device a tower gets new weights.
        self.prefetch = WeightPrefetch(self.tower) if prefetch else None
        self.captured = CapturedGraphs(self._pass, device, buckets=buckets) if graphs else None
        if self.captured is not None:
            self.batch_size = min(self.batch_size, self.captured.buckets[-1])

    def _encode(self, tiles: Tensor, needs: Needs) -> Embeddings:
        with torch.inference_mode():
            pixels = tiles.to(device=self.device, dtype=self.dtype)
            run = self._pass if self.captured is None else self.captured
            return run(pixels, needs).map(Tensor.float)

    def timings(self, tiles: Tensor, needs: Needs) -> list[OperatorTime]:
        """Operators' own times for all tiles together.

        Passes run operator by operator, also where graphs are on: a graph hides what it is made of.
        """

        def run() -> None:
            for part in tiles.split(self.batch_size):
                self._pass(part.to(device=self.device, dtype=self.dtype), needs)

        with torch.inference_mode():
            return torch_times(run, self.device)

    def _pass(self, pixels: Tensor, needs: Needs) -> Embeddings:
        if self.prefetch is None:
            return self.tower(pixels, needs)
        embeddings = self.tower(pixels, needs, before_blocks=self.prefetch)
        self.prefetch.join()
        return embeddings
