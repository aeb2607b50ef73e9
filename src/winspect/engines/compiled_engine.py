"""Engines that run static graphs: one graph per layout, built when it is first needed."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from winspect.backbones.embeddings import STEM, Embeddings, Needs
from winspect.backbones.loading import Tower
from winspect.engines.base import Engine, is_out_of_memory
from winspect.engines.compiled import Graph
from winspect.engines.timing import OperatorTime, torch_times
from winspect.engines.tower_graph import IMAGE, PATCHES, Layout, window_output
from winspect.engines.traced import Trace, embeddings_of, has_packed_graph
from winspect.errors import ArchitectureError, EngineBuildError, WinspectError

IMAGE_BATCH = 8
"""Tiles per graph for image embeddings alone, on a CPU: 226 rows are too few for a matrix product at full speed
(ViT-B-16-plus-240, per tile: 143, 134, 129 ms for 1, 4, 8 tiles in fp32; 83, 73, 71 ms in bf16). With windows one tile
is 2,896 rows, and more gain nothing."""

TRACES_KEPT = 4
"""Traced graphs in memory: pictures' aspect ratios vary, and each ratio is a graph."""

_ENOUGH_ROWS = 2048  # tokens of a pass; see IMAGE_BATCH


_Plan = TypeVar("_Plan", Layout, Trace)


class CompiledEngine(Engine):
    """The tower as static graphs, one for each kind of pass.

    A CLIP's tower at its own size, with or without windows, is patch embedding in torch, in float32, and a hand-written
    graph from behind ln_pre to the embeddings (:mod:`winspect.engines.tower_graph`). A graph with patch tokens serves
    calls that need none, so that a model is in memory once, not twice. Everything else is traced from pixels on
    (:mod:`winspect.engines.traced`), for each size of tiles; the last few of these graphs are kept.

    Args:
        tower: the image tower in float32 on the CPU. It stays in use: graphs may share its memory.
        precision: what the graph runs in.
        batch_size: tiles per graph at most; None for one with windows and :data:`IMAGE_BATCH` without.
        image_hw: height and width of the tiles to come, for :meth:`prepare`; None for the tower's own.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        precision: str,
        batch_size: int | None = None,
        image_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tower, precision=precision, device=torch.device("cpu"), batch_size=batch_size or IMAGE_BATCH)
        self.image_hw = image_hw or tower.image_hw
        self._windowed_batch = batch_size or 1
        self._graphs: dict[Layout | Trace, Graph] = {}
        self._few = 0  # passes in a row that would leave most places empty
        self._one_at_a_time = threading.Lock()  # a graph has one set of buffers

    @abstractmethod
    def _build(self, plan: Layout | Trace) -> Graph:
        """Compile a graph, or read it from the cache."""

    @abstractmethod
    def _save(self, plan: Layout | Trace, folder: Path) -> None:
        """Write a graph, uncompiled, as ``tower.xml`` (OpenVINO) or ``tower.onnx`` with files beside it."""

    @abstractmethod
    def _timed(self, plan: Layout | Trace, batches: Sequence[np.ndarray]) -> list[OperatorTime]:
        """Run batches through a graph of its own that keeps the times of its operators."""

    def is_traced(self, needs: Needs) -> bool:
        """Whether tiles of :attr:`image_hw` go through a graph that takes pixels, not tokens."""
        return not has_packed_graph(self.tower, needs, self.image_hw)

    def save_tower(self, folder: Path, needs: Needs) -> None:
        """Write the graph of one tile of :attr:`image_hw`, for an edge bundle; see :meth:`_save` for its name."""
        self._save(self.plan_of_one(needs), folder)

    def plan_of_one(self, needs: Needs) -> Layout | Trace:
        """What a graph of one tile of :attr:`image_hw` embeds that serves all calls with these needs, or less."""
        if self.is_traced(needs):
            return Trace(needs, self.image_hw, 1)
        return Layout.of(self.tower.grid_hw, needs, batch=1).with_patches()

    def prepare(self, needs: Needs) -> None:
        """Build now what :meth:`encode` would build for its first tiles, if they are of :attr:`image_hw`."""
        try:
            with self._one_at_a_time, torch.inference_mode():
                tiles = self.tiles_per_pass(needs)
                self._graph(
                    self._trace(tiles, needs, self.image_hw) if self.is_traced(needs) else self._layout(tiles, needs)
                )
        except Exception as error:
            if not is_out_of_memory(error):  # encode() goes on with fewer tiles
                raise

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per graph where there are enough of them."""
        if self.is_traced(needs):
            return self._traced_batch(needs, self.image_hw)
        return min(self.batch_size, self._windowed_batch if needs.scales else self.batch_size)

    def timings(self, tiles: Tensor, needs: Needs) -> list[OperatorTime]:
        """Operators' own times for all tiles together."""
        image_hw = (tiles.shape[2], tiles.shape[3])
        if not has_packed_graph(self.tower, needs, image_hw):
            trace = self._trace(len(tiles), needs, image_hw)
            return self._timed(trace, [_filled_up(part, trace.batch) for part in tiles.split(trace.batch)])
        tower: Any = self.tower
        embedded: list[Tensor] = []
        with torch.inference_mode():
            times = torch_times(lambda: embedded.append(tower.tokens(tiles)[0]), self.device)
        for layout in self._layouts(len(tiles), needs):
            parts = embedded[0].split(layout.batch)
            times += self._timed(layout, [_as_rows(_filled_up(part, layout.batch)) for part in parts])
        return times

    def _trace(self, tiles: int, needs: Needs, image_hw: tuple[int, int]) -> Trace:
        """The graph for so many tiles; as :meth:`_layout`."""
        most = self._traced_batch(needs, image_hw)
        return Trace(needs, image_hw, 1 if tiles <= most // 2 else most)

    def _traced_batch(self, needs: Needs, image_hw: tuple[int, int]) -> int:
        patches = math.prod(side // self.tower.patch for side in needs.seen_hw(image_hw))
        return min(self.batch_size, self._windowed_batch if needs.scales else max(1, _ENOUGH_ROWS // (patches + 1)))

    def _layouts(self, tiles: int, needs: Needs) -> list[Layout]:
        """The graphs that a call of :meth:`encode` runs."""
        return [self._layout(tiles, needs)]

    def _layout(self, tiles: int, needs: Needs) -> Layout:
        # A shorter batch is filled up; where more than half of its places would be empty, tiles run one by one.
        most = self.tiles_per_pass(needs)
        return Layout.of(self.tower.grid_hw, needs, batch=1 if tiles <= most // 2 else most)

    def _layout_for(self, tiles: int, needs: Needs) -> Layout:
        """The layout to run."""
        return self._filled(self._layout(tiles, needs), self._layout(self.tiles_per_pass(needs), needs))

    def _filled(self, fitting: _Plan, batched: _Plan) -> _Plan:
        """The plan to run: a stream's last tiles are filled up rather than given another copy of the weights."""
        self._few = 0 if fitting == batched else self._few + 1
        return batched if self._few == 1 and self._known(batched) and not self._known(fitting) else fitting

    def _known(self, plan: Layout | Trace) -> Layout | Trace | None:
        """The plan of a graph in memory that serves a plan: the same, or the same with patch tokens beside."""
        if isinstance(plan, Trace):
            return plan if plan in self._graphs else None
        layouts = (known for known in self._graphs if isinstance(known, Layout))
        return next((known for known in layouts if plan in (known, known.without_patches())), None)

    def _encode(self, tiles: Tensor, needs: Needs) -> Embeddings:
        image_hw = (tiles.shape[2], tiles.shape[3])
        if not has_packed_graph(self.tower, needs, image_hw):
            with self._one_at_a_time, torch.inference_mode():
                batched = self._trace(self._traced_batch(needs, image_hw), needs, image_hw)
                return self._traced(tiles, needs, self._filled(self._trace(len(tiles), needs, image_hw), batched))
        tower: Any = self.tower
        with self._one_at_a_time, torch.inference_mode():
            tokens, stem = tower.tokens(tiles)
            embeddings = self._embed(tokens, needs)
        known = dict(embeddings.patches)
        if stem is not None:
            known[STEM] = stem.unflatten(1, tower.grid_hw)
        return replace(embeddings, patches={layer: known[layer] for layer in needs.layers})

    def _traced(self, tiles: Tensor, needs: Needs, trace: Trace) -> Embeddings:
        graph, _ = self._graph(trace)
        parts = []
        for part in tiles.split(trace.batch):
            outputs = graph(_filled_up(part, trace.batch))
            copies = {name: torch.from_numpy(values.copy())[: len(part)] for name, values in outputs.items()}
            parts.append(embeddings_of(copies, self.tower, trace))
        found = Embeddings.concatenate(parts)
        return replace(found, patches={layer: found.patches[layer] for layer in needs.layers})

    def _embed(self, tokens: Tensor, needs: Needs) -> Embeddings:
        """Embeddings of tiles from their tokens; patch tokens among them where the graph has them anyway."""
        graph, plan = self._graph(self._layout_for(len(tokens), needs))
        layout: Any = plan
        return Embeddings.concatenate([self._run(graph, layout, part) for part in tokens.split(layout.batch)])

    def _graph(self, plan: Layout | Trace) -> tuple[Graph, Layout | Trace]:
        known = self._known(plan)
        if known is not None:
            self._graphs[known] = self._graphs.pop(known)  # the last one used stands last
            return self._graphs[known], known
        self._make_room(plan)
        try:
            self._graphs[plan] = self._build(plan)
        except Exception as error:
            is_ours = isinstance(error, WinspectError) and not isinstance(error, ArchitectureError)
            if is_ours or is_out_of_memory(error):
                raise
            raise EngineBuildError(f"engine {self.name} cannot build its graph: {error}") from error
        return self._graphs[plan], plan

    def _make_room(self, plan: Layout | Trace) -> None:
        """Drop the graph that a new one replaces, or the traced one that was not used for longest."""
        if isinstance(plan, Layout):
            self._graphs.pop(plan.without_patches(), None)
            return
        traces = [known for known in self._graphs if isinstance(known, Trace)]
        for oldest in traces[: max(0, len(traces) + 1 - TRACES_KEPT)]:
            del self._graphs[oldest]

    def _halve(self, failed_size: int, error: BaseException) -> None:
        self._graphs.clear()  # the next ones are smaller
        super()._halve(failed_size, error)

    def _run(self, graph: Graph, layout: Layout, tokens: Tensor) -> Embeddings:
        """Embeddings of up to ``layout.batch`` tiles."""
        outputs = graph(_as_rows(_filled_up(tokens, layout.batch)))

        def tensor(name: str) -> Tensor:
            return torch.from_numpy(outputs[name].copy()).unflatten(0, (layout.batch, -1))[: len(tokens)]

        return Embeddings(
            image=tensor(IMAGE).flatten(0, 1),
            windows={scale: tensor(window_output(scale)) for scale in layout.scales},
            patches={layout.layer: tensor(PATCHES).unflatten(1, layout.grid_hw)} if layout.patches else {},
            grid_hw=layout.grid_hw,
        )


def _filled_up(tiles: Tensor, batch: int) -> np.ndarray:
    """Tiles (tiles, ...) with zeros behind them, up to (batch, ...)."""
    missing = tiles.new_zeros(batch - len(tiles), *tiles.shape[1:])
    return np.ascontiguousarray((torch.cat([tiles, missing]) if len(missing) else tiles).numpy())


def _as_rows(tokens: np.ndarray) -> np.ndarray:
    """Tokens (tiles, tokens, width) as one matrix."""
    return tokens.reshape(-1, tokens.shape[-1])
