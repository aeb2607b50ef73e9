"""What every engine is: tiles in, embeddings out, in batches that shrink when memory runs out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.backbones.loading import Tower
from winspect.engines.timing import OperatorTime
from winspect.errors import DeviceMemoryError, WinspectError

logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    # GPUs and NPUs; the CPU on Linux, on Windows; OpenVINO and ONNX Runtime where C++ had no memory
    signs = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "failed to allocate memory")
    # ONNX Runtime's errors are no RuntimeErrors.
    return not isinstance(error, WinspectError | OSError) and any(sign in text for sign in signs)


class Engine(ABC):
    """Runs the image tower; halves the batch when memory runs out, and says so.

    Attributes:
        name: ``torch``, ``openvino`` or ``onnx``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``: what the tower's layers run in.
        device: where embeddings come back, and where scores are computed.
        batch_size: tiles per pass at most.
    """

    name: str

    def __init__(self, tower: Tower, *, precision: str, device: torch.device, batch_size: int) -> None:
        self.tower, self.precision, self.device, self.batch_size = tower, precision, device, batch_size

    def encode(self, tiles: Tensor, needs: Needs) -> Embeddings:
        """Embed normalised tiles, float32 (tiles, 3, height, width) on the CPU.

        Returns:
            float32 embeddings on the engine's device, in the order of the tiles, whatever the precision.

        Raises:
            DeviceMemoryError: not even one tile fits.
        """
        parts, start = [], 0
        while start < len(tiles):
            part = tiles[start : start + self.batch_size]
            try:
                parts.append(self._encode(part, needs))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(part), error)
            else:
                start += len(part)
        return Embeddings.concatenate(parts)

    @abstractmethod
    def timings(self, tiles: Tensor, needs: Needs) -> list[OperatorTime]:
        """Operators' own times for all tiles together."""

    def prepare(self, needs: Needs) -> None:  # noqa: B027  (not all build)
        """Build now what :meth:`encode` would build for its first tiles."""

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per pass where there are enough of them."""
        return self.batch_size

    @abstractmethod
    def _encode(self, tiles: Tensor, needs: Needs) -> Embeddings:
        """Embed one batch."""

    def _halve(self, failed_size: int, error: BaseException) -> None:
        if failed_size <= 1:
            raise DeviceMemoryError(
                f"not even one tile fits into the memory of {self.device} ({error}); "
                "free memory, use a smaller model, or --device cpu"
            ) from error
        self.batch_size = failed_size // 2
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()
        logger.warning("out of memory on %s with %d tiles; going on with %d", self.device, failed_size, self.batch_size)
