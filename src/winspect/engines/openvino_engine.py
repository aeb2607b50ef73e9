"""The OpenVINO engine: static graphs on the CPU (fp32, bf16, int8) or another of OpenVINO's devices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch

from winspect.backbones.embeddings import Needs
from winspect.backbones.loading import Tower
from winspect.engines.compiled import (
    OPENVINO_HINTS,
    TOKENS,
    TOWER,
    Graph,
    OpenVINOGraph,
    openvino_core,
    save_openvino,
)
from winspect.engines.compiled_engine import CompiledEngine
from winspect.engines.graph_cache import GraphCache
from winspect.engines.openvino_operators import openvino_model
from winspect.engines.small_weights import shrink_weights
from winspect.engines.timing import OperatorTime, openvino_fused, openvino_times
from winspect.engines.tower_graph import GRAPH_VERSION, Layout
from winspect.engines.traced import TRACE_VERSION, Trace, TracedTokens, TracedTower, openvino_trace
from winspect.errors import DeviceError, EngineError
from winspect.system.memory import page_out
from winspect.system.opening import read_bytes

_COMPILED = "tower.blob"


class OpenVINOEngine(CompiledEngine):
    """See :class:`~winspect.engines.compiled_engine.CompiledEngine`.

    Args:
        tower: in float32, on the CPU.
        precision: ``fp32``, ``bf16``, ``fp16`` (devices other than the CPU), or ``int8``.
        device: OpenVINO's name of a device: ``CPU``, ``GPU``, ``GPU.1``, ``NPU`` ...
        batch_size, image_hw: see :class:`~winspect.engines.compiled_engine.CompiledEngine`.
        threads: of the CPU; None for as many as torch uses.
        cache: where traced graphs are kept, and graphs compiled for other devices than the CPU. The CPU's are compiled
            anew: that takes a second even for a large tower, no longer than reading them, and reading them takes twice
            the memory.

    Raises:
        DeviceError: OpenVINO does not find that device.
    """

    name = "openvino"

    def __init__(
        self,
        tower: Tower,
        *,
        precision: str = "fp32",
        device: str = "CPU",
        batch_size: int | None = None,
        threads: int | None = None,
        cache: GraphCache | None = None,
        image_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tower, precision=precision, batch_size=batch_size, image_hw=image_hw)
        self._cache = cache
        self.openvino_device = check_openvino_device(device)
        hint = OPENVINO_HINTS[precision]
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        self.threads = threads or torch.get_num_threads()
        if device == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = self.threads

    def _model(self, plan: Layout | Trace) -> ov.Model:
        """A graph before it is compiled."""
        if isinstance(plan, Layout):
            tower: Any = self.tower
            return openvino_model(tower, plan)
        if self._cache is None:
            return self._traced_model(plan)
        key = self._traced_key(plan)
        folder = self._cache.get(key, lambda made: save_openvino(self._traced_model(plan), made / TOWER))
        return openvino_core().read_model(folder / TOWER)

    def _traced_key(self, trace: Trace) -> dict[str, Any]:
        return {"kind": "openvino traced", "graph": TRACE_VERSION, "trace": trace.key, "openvino": ov.__version__}

    def _traced_model(self, trace: Trace) -> ov.Model:
        traced = TracedTower(self.tower, trace).eval()
        return openvino_trace(traced, trace.pixels, traced.outputs)

    def _save(self, plan: Layout | Trace, folder: Path) -> None:
        model = self._model(plan)
        if isinstance(plan, Trace):
            shrink_weights(model)
        save_openvino(model, folder / "tower.xml")

    def keep(self, needs: Needs) -> Mapping[str, Any]:
        """Keep the graphs of one tile in the cache, for starts without torch.

        Returns:
            Their key: :meth:`GraphCache.find` gives their folder, with ``tokens.xml``, where they begin behind the
            patch embedding, and ``tower.xml``.

        Raises:
            OSError, RuntimeError: a graph cannot be made or written.
        """
        cache, plan = self._cache, self.plan_of_one(needs)
        if cache is None:
            raise EngineError(f"engine {self.name} has no cache")
        if isinstance(plan, Trace):
            self._model(plan)  # which keeps it
            return self._traced_key(plan)
        key = {"kind": "openvino kept", "graph": GRAPH_VERSION, "layout": plan.key, "openvino": ov.__version__}
        tower: Any = self.tower

        def make(folder: Path) -> None:
            tokens = TracedTokens(tower).eval()
            save_openvino(openvino_trace(tokens, torch.zeros(1, 3, *tower.image_hw), tokens.outputs), folder / TOKENS)
            save_openvino(self._model(plan), folder / TOWER)

        cache.get(key, make)
        return key

    def _build(self, plan: Layout | Trace) -> Graph:
        if self._cache is None or self.openvino_device == "CPU":
            compiled = self._compiled(plan)
        else:
            compiled = self._from_cache(plan, self._cache)
        page_out(self.tower.blocks.parameters())
        return OpenVINOGraph(compiled)

    def _compiled(self, plan: Layout | Trace, **options: Any) -> ov.CompiledModel:
        return openvino_core().compile_model(self._model(plan), self.openvino_device, {**self._options, **options})

    def _from_cache(self, plan: Layout | Trace, cache: GraphCache) -> ov.CompiledModel:
        core = openvino_core()
        key = {
            "kind": "openvino",
            "graph": GRAPH_VERSION,
            "layout": plan.key,
            "openvino": ov.__version__,
            "device": core.get_property(self.openvino_device, "FULL_DEVICE_NAME"),
            "options": self._options,
        }
        folder = cache.get(key, lambda made: _export(self._compiled(plan), made / _COMPILED))
        return core.import_model(read_bytes(folder / _COMPILED), self.openvino_device, self._options)

    def _timed(self, plan: Layout | Trace, batches: Sequence[np.ndarray]) -> list[OperatorTime]:
        compiled = self._compiled(plan, PERF_COUNT=True)
        graph, fused = OpenVINOGraph(compiled), openvino_fused(compiled)
        graph(batches[0])  # the first run also makes what later ones reuse
        earlier = list(graph.request.profiling_info)
        for batch in batches:
            graph(batch)
        info = graph.request.profiling_info
        return openvino_times(info, fused, passes=len(batches), earlier=earlier, earlier_passes=1)


def _export(compiled: ov.CompiledModel, path: Path) -> None:
    stream = io.BytesIO()
    compiled.export_model(stream)
    path.write_bytes(stream.getvalue())


def openvino_devices() -> Sequence[str]:
    """Names of the devices OpenVINO finds here, ``CPU`` among them."""
    return list(openvino_core().available_devices)


def check_openvino_device(name: str) -> str:
    """A name of one of OpenVINO's devices that is there.

    Raises:
        DeviceError: it is not.
    """
    found = openvino_devices()
    if name not in found and f"{name}.0" not in found:
        raise DeviceError(f"got the device openvino:{name}, but OpenVINO finds {', '.join(found)} here")
    return name
