"""The torch engine: eager, on CPU, CUDA or Ascend."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from winspect.embeddings import Embeddings
from winspect.encoder import ImageTower
from winspect.errors import DeviceMemoryError

logger = logging.getLogger(__name__)

# Tiles per pass. More does not make a CPU faster and costs memory; a GPU needs more to be busy.
DEFAULT_BATCH_SIZES = {"cpu": 4, "cuda": 32, "npu": 32}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")  # GPUs; the CPU on Linux, on Windows
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


class TorchEngine:
    """Embeds tiles in batches; halves the batch when memory runs out, and says so.

    Args:
        tower: the image tower; moved to the device and cast to the precision.
        device: where it runs.
        dtype: what it runs in. Embeddings come back as float32 whatever it is.
        batch_size: tiles per pass at most; None for the device's default.
    """

    def __init__(
        self, tower: ImageTower, device: torch.device, dtype: torch.dtype, batch_size: int | None = None
    ) -> None:
        self.tower = tower.to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype
        self.batch_size = batch_size or DEFAULT_BATCH_SIZES[device.type]

    def encode(self, tiles: Tensor, *, scales: Sequence[int], stride: int, patches: bool) -> Embeddings:
        """Embed normalised tiles, float32 (tiles, 3, height, width) on the CPU.

        Returns:
            float32 embeddings on the engine's device, in the order of the tiles.

        Raises:
            DeviceMemoryError: not even one tile fits.
        """
        parts, start = [], 0
        while start < len(tiles):
            part = tiles[start : start + self.batch_size]
            try:
                parts.append(self._encode(part, scales=scales, stride=stride, patches=patches))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(part), error)
            else:
                start += len(part)
        return Embeddings.concatenate(parts)

    def _encode(self, tiles: Tensor, *, scales: Sequence[int], stride: int, patches: bool) -> Embeddings:
        with torch.inference_mode():
            pixels = tiles.to(device=self.device, dtype=self.dtype)
            embeddings = self.tower(pixels, scales=scales, stride=stride, patches=patches)
            return embeddings.map(Tensor.float)

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
