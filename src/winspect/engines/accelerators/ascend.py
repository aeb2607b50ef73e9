"""Ascend NPUs: the image tower's weights prefetched into the cache, and the environment that matters there.

What ``torch_npu.npu_prefetch(input, dependency, max_size, offset=0)`` does, read in torch_npu 2.6.0 and 2.14.0: it asks
the device to bring the first ``max_size`` bytes of ``input`` into its L2 cache and changes nothing else. In eager mode
it is queued on the current stream and ``dependency`` has no effect; graph compilers start it after ``dependency``.
So that it runs beside the blocks, and not before them, it goes onto a stream of its own, which first waits for the
tokens. ``docs/ascend.md`` says what has and has not run on the hardware.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from winspect.backbones.image_tower import ImageTower
from winspect.backbones.loading import Tower
from winspect.errors import EngineError, MissingExtraError, SettingsError
from winspect.system.installation import install_command

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "ASCEND_RT_VISIBLE_DEVICES": "NPUs this process sees, as in 0,1",
    "TASK_QUEUE_ENABLE": "how operators are handed to the NPU: 0 one by one, 1 through a queue (default), 2 more of it",
    "PYTORCH_NPU_ALLOC_CONF": "memory allocator; expandable_segments:True against fragmentation",
    "ASCEND_LAUNCH_BLOCKING": "1 waits for every operator, for debugging only: slow, and it switches the queue off",
}
"""What a user may set, before Python starts: ``import torch`` already imports torch_npu, which reads them."""


def environment() -> dict[str, str | None]:
    """The variables of :data:`ENVIRONMENT` as they are set; None where one is not. winspect sets none of them."""
    return {name: os.environ.get(name) for name in ENVIRONMENT}


def prefetch_order(tower: Tower) -> list[tuple[str, Tensor]]:
    """The image tower's weights in the order the blocks read them, four per block: 48 for twelve blocks.

    Returns:
        open_clip's name of each weight within the ``visual`` module, or timm's within the model, and the weight itself,
        not a copy.
    """
    if not isinstance(tower, ImageTower):
        weights = tower.blocks.named_parameters(prefix="blocks")
        return [(name, weight) for name, weight in weights if weight.ndim > 1]
    order: list[tuple[str, Tensor]] = []
    for number, block in enumerate(tower.blocks):
        parts: Any = block
        name = f"transformer.resblocks.{number}"
        order += [
            (f"{name}.attn.in_proj_weight", parts.attention.in_proj_weight),
            (f"{name}.attn.out_proj.weight", parts.attention.out_proj.weight),
            (f"{name}.mlp.c_fc.weight", parts.mlp.c_fc.weight),
            (f"{name}.mlp.c_proj.weight", parts.mlp.c_proj.weight),
        ]
    return order


class WeightPrefetch:
    """Asks the NPU for the tower's weights ahead of their use. Embeddings do not change.

    Called with the tokens, before the first block; :meth:`join` follows the last one.

    Args:
        tower: the image tower, on its NPU already: moving it there makes new weights.
        max_bytes: of each weight at most, its first ones; None for whole weights. All 48 weights of
            ViT-B-16-plus-240 are 462 MB in float32, which is more than the L2 cache of an Ascend 910B holds, so
            that the last ones may push out the first: a limit is worth measuring.
        own_stream: prefetch beside the blocks, on a stream of its own; False queues it on the current stream,
            where the first block waits until all of it is done.

    Raises:
        MissingExtraError: torch_npu is not installed.
        EngineError: this torch_npu has no ``npu_prefetch``.
        SettingsError: ``max_bytes`` is not a whole number from 1 (torch_npu refuses 0).
    """

    def __init__(self, tower: Tower, *, max_bytes: int | None = None, own_stream: bool = True) -> None:
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
            raise SettingsError(f"max_bytes: got {max_bytes!r}, need a whole number of bytes from 1, or None")
        self._prefetch = _npu_prefetch()
        self._tower, self._max_bytes = tower, max_bytes
        self._npu: Any = getattr(torch, "npu")  # noqa: B009  (torch_npu adds it)
        self._stream: Any = self._npu.Stream(tower.device) if own_stream else None
        weights = [weight for _, weight in prefetch_order(tower)]
        total = sum(self._size(weight) for weight in weights)
        logger.info("prefetch of %d weights, %.1f MB; environment %s", len(weights), total / 1e6, environment())

    def __call__(self, tokens: Tensor) -> None:
        """Start the prefetch, to run once ``tokens``, the first block's input, are there. Does not wait for it."""
        if self._stream is None:
            self._start(tokens)
            return
        self._stream.wait_stream(self._npu.current_stream(self._tower.device))
        with self._npu.stream(self._stream):
            self._start(tokens)

    def join(self) -> None:
        """Let the current stream wait for the prefetch: a captured graph must end on the stream it began on."""
        if self._stream is not None:
            self._npu.current_stream(self._tower.device).wait_stream(self._stream)

    def _start(self, tokens: Tensor) -> None:
        for _, weight in prefetch_order(self._tower):
            # All three by position: torch_npu calls the first one `input` in one place and `self` in another.
            self._prefetch(weight, tokens, self._size(weight))

    def _size(self, weight: Tensor) -> int:
        whole = weight.numel() * weight.element_size()
        return whole if self._max_bytes is None else min(whole, self._max_bytes)


def _npu_prefetch() -> Callable[[Tensor, Tensor | None, int], None]:
    try:
        torch_npu = importlib.import_module("torch_npu")
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"weight prefetch needs torch_npu: {install_command('ascend')}") from error
    if not hasattr(torch_npu, "npu_prefetch"):
        version = getattr(torch_npu, "__version__", "of unknown version")
        raise EngineError(f"got torch_npu {version} without npu_prefetch; need 2.6 or later, or another plan")
    return torch_npu.npu_prefetch
