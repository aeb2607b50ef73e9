"""Captured graphs for a few fixed batch sizes, on CUDA and Ascend alike.

A graph replays a whole pass of the tower with one call, so that the host no longer hands over its operators one by
one. It is bound to one shape: batches are filled up to the next allowed size, the bucket, and the rows that were
filled in are cut off again. A tile's embedding does not depend on the others of its batch, so scores stay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.errors import EngineError, SettingsError

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes a graph is captured for."""

_WARM_UP_PASSES = 3  # before capture, so that libraries have chosen their kernels: as many as torch's own helper does


def check_buckets(buckets: Sequence[int]) -> tuple[int, ...]:
    """Batch sizes in rising order, each once.

    Raises:
        SettingsError: none, or one that is not a whole number from 1.
    """
    if not buckets or any(type(bucket) is not int or bucket < 1 for bucket in buckets):
        raise SettingsError(f"buckets: got {buckets!r}, need at least one batch size, whole numbers from 1")
    return tuple(sorted(set(buckets)))


def bucket_of(count: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds ``count`` tiles.

    Raises:
        SettingsError: even the largest is too small.
    """
    fitting = [bucket for bucket in buckets if bucket >= count]
    if count < 1 or not fitting:
        raise SettingsError(f"got a batch of {count} tiles, need 1 to {max(buckets)}, the largest bucket")
    return min(fitting)


def fill_up(pixels: Tensor, bucket: int) -> Tensor:
    """Tiles (batch, ...) with zeros behind them, up to (bucket, ...)."""
    return torch.cat([pixels, pixels.new_zeros(bucket - len(pixels), *pixels.shape[1:])])


@dataclass(frozen=True)
class _Captured:
    graph: Any
    pixels: Tensor
    embeddings: Embeddings


class CapturedGraphs:
    """Runs passes of the tower as captured graphs: one per bucket and kind of pass, captured when first needed.

    A capture that fails is logged as a warning; from then on every pass runs without graphs, and :attr:`failure`
    says why.

    Args:
        encode: the pass to capture, called as ``encode(pixels, needs)``. It must not copy from
            the host or wait for the device; whatever it puts onto other streams must be joined when it returns.
        device: ``cuda`` or ``npu``.
        buckets: batch sizes to capture graphs for.

    Raises:
        EngineError: the device has no graphs.
        SettingsError: see :func:`check_buckets`.
    """

    def __init__(
        self, encode: Callable[[Tensor, Needs], Embeddings], device: torch.device, *, buckets: Sequence[int] = BUCKETS
    ) -> None:
        self.buckets = check_buckets(buckets)
        self.failure: str | None = None
        self._encode, self._device = encode, device
        # torch.cuda and torch.npu have the same names for streams and graphs, but for the class of a graph.
        self._runtime: Any = getattr(torch, device.type, None)
        self._new_graph: Any = getattr(self._runtime, f"{device.type.upper()}Graph", None)
        if self._new_graph is None:
            raise EngineError(f"got the device {device}, which has no graphs; need cuda or npu, or graph mode off")
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        self._pool: Any = None
        self._lock = threading.Lock()  # a graph has one input and one output, whoever calls

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, needs: Needs) -> Embeddings:
        """Embed 1 to ``max(buckets)`` tiles (batch, 3, height, width) that lie on the device.

        Returns:
            What ``encode`` gives for these tiles, in memory of its own.

        Raises:
            SettingsError: more tiles than the largest bucket holds.
        """
        bucket = bucket_of(len(pixels), self.buckets)
        with self._lock, self._runtime.device(self._device):
            captured = None if self.failure else self._for(bucket, pixels, needs)
            if captured is None:
                return self._encode(pixels, needs)
            captured.pixels[: len(pixels)].copy_(pixels)  # behind them lies an earlier batch, which nobody reads
            captured.graph.replay()
            return captured.embeddings.rows(0, len(pixels)).map(torch.clone)

    def _for(self, bucket: int, pixels: Tensor, needs: Needs) -> _Captured | None:
        key = (bucket, *pixels.shape[1:], pixels.dtype, needs)
        if key not in self._captured:
            filled = fill_up(pixels, bucket)
            self._warm_up(filled, needs)
            try:
                self._captured[key] = self._capture(filled, needs)
            except RuntimeError as error:
                self.failure = f"{error}"
                self._captured.clear()
                message = "cannot capture a graph of %d tiles on %s (%s); going on without graphs"
                logger.warning(message, bucket, self._device, error)
                return None
        return self._captured[key]

    def _warm_up(self, pixels: Tensor, needs: Needs) -> None:
        """Passes as they are, on a stream other than the default one; their errors are the pass's own."""
        stream, current = self._runtime.Stream(self._device), self._runtime.current_stream(self._device)
        stream.wait_stream(current)
        with self._runtime.stream(stream):
            for _ in range(_WARM_UP_PASSES):
                self._encode(pixels, needs)
        current.wait_stream(stream)

    def _capture(self, pixels: Tensor, needs: Needs) -> _Captured:
        # Graphs run one after the other and their results are copied out at once, so they can share their memory.
        if self._pool is None:
            self._pool = self._runtime.graph_pool_handle()
        graph = self._new_graph()
        # Threads that load pictures may go on during a capture.
        with self._runtime.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            embeddings = self._encode(pixels, needs)
        return _Captured(graph, pixels, embeddings)
