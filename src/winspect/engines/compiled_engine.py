"""Engines that run static graphs: one graph per layout, built when it is first needed."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from winspect.backbones.embeddings import STEM, Embeddings, Needs
from winspect.backbones.image_tower import ImageTower
from winspect.engines.base import Engine, is_out_of_memory
from winspect.engines.compiled import Graph
from winspect.engines.timing import OperatorTime, torch_times
from winspect.engines.tower_graph import IMAGE, PATCHES, Layout, window_output
from winspect.errors import ArchitectureError, EngineBuildError, WinspectError

IMAGE_BATCH = 8
"""Tiles per graph for image embeddings alone, on a CPU: 226 rows are too few for a matrix product at full speed
(ViT-B-16-plus-240, per tile: 143, 134, 129 ms for 1, 4, 8 tiles in fp32; 83, 73, 71 ms in bf16). With windows one tile
is 2,896 rows, and more gain nothing."""


class CompiledEngine(Engine):
    """Patch embedding in torch, in float32; the tower from behind ln_pre to the embeddings as a static graph.

    A graph with patch tokens serves calls that need none, so that a model is in memory once, not twice.

    Args:
        tower: the image tower in float32 on the CPU. It stays in use: graphs may share its memory.
        precision: what the graph runs in.
        batch_size: tiles per graph at most; None for one with windows and :data:`IMAGE_BATCH` without.
    """

    def __init__(self, tower: ImageTower, *, precision: str, batch_size: int | None = None) -> None:
        super().__init__(tower, precision=precision, device=torch.device("cpu"), batch_size=batch_size or IMAGE_BATCH)
        self._windowed_batch = batch_size or 1
        self._graphs: dict[Layout, Graph] = {}
        self._few = 0  # passes in a row that would leave most places empty
        self._one_at_a_time = threading.Lock()  # a graph has one set of buffers

    @abstractmethod
    def _build(self, layout: Layout) -> Graph:
        """Compile a graph, or read it from the cache."""

    @abstractmethod
    def _save(self, layout: Layout, folder: Path) -> None:
        """Write a layout's graph, uncompiled, as ``tower.xml`` (OpenVINO) or ``tower.onnx`` with files beside it."""

    @abstractmethod
    def _timed(self, layout: Layout, batches: Sequence[np.ndarray]) -> list[OperatorTime]:
        """Run batches through a graph of its own that keeps the times of its operators."""

    def save_tower(self, folder: Path, needs: Needs) -> None:
        """Write the graph of one tile, for an edge bundle; see :meth:`_save` for its name."""
        self._save(Layout.of(self.tower.grid_hw, needs, batch=1).with_patches(), folder)

    def prepare(self, needs: Needs) -> None:
        """Build now what :meth:`encode` would build for its first tiles."""
        try:
            with self._one_at_a_time:
                self._graph(self._layout(self.tiles_per_pass(needs), needs))
        except Exception as error:
            if not is_out_of_memory(error):  # encode() goes on with fewer tiles
                raise

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per graph where there are enough of them."""
        return min(self.batch_size, self._windowed_batch if needs.scales else self.batch_size)

    def timings(self, tiles: Tensor, needs: Needs) -> list[OperatorTime]:
        """Operators' own times for all tiles together."""
        embedded: list[Tensor] = []
        with torch.inference_mode():
            times = torch_times(lambda: embedded.append(self.tower.tokens(tiles)[0]), self.device)
        for layout in self._layouts(len(tiles), needs):
            times += self._timed(layout, [_filled_up(part, layout.batch) for part in embedded[0].split(layout.batch)])
        return times

    def _layouts(self, tiles: int, needs: Needs) -> list[Layout]:
        """The graphs that a call of :meth:`encode` runs."""
        return [self._layout(tiles, needs)]

    def _layout(self, tiles: int, needs: Needs) -> Layout:
        # A shorter batch is filled up; where more than half of its places would be empty, tiles run one by one.
        most = self.tiles_per_pass(needs)
        return Layout.of(self.tower.grid_hw, needs, batch=1 if tiles <= most // 2 else most)

    def _layout_for(self, tiles: int, needs: Needs) -> Layout:
        """The layout to run: a stream's last tiles are filled up rather than given another copy of the weights."""
        fitting, batched = self._layout(tiles, needs), self._layout(self.tiles_per_pass(needs), needs)
        self._few = 0 if fitting == batched else self._few + 1
        return batched if self._few == 1 and self._known(batched) and not self._known(fitting) else fitting

    def _known(self, layout: Layout) -> Layout | None:
        """The layout of a graph in memory that serves a layout: the same, or the same with patch tokens beside."""
        return next((known for known in self._graphs if layout in (known, known.without_patches())), None)

    def _encode(self, tiles: Tensor, needs: Needs) -> Embeddings:
        with self._one_at_a_time, torch.inference_mode():
            tokens, stem = self.tower.tokens(tiles)
            embeddings = self._embed(tokens, needs)
        known = dict(embeddings.patches)
        if stem is not None:
            known[STEM] = stem.unflatten(1, self.tower.grid_hw)
        return replace(embeddings, patches={layer: known[layer] for layer in needs.layers})

    def _embed(self, tokens: Tensor, needs: Needs) -> Embeddings:
        """Embeddings of tiles from their tokens; patch tokens among them where the graph has them anyway."""
        graph, layout = self._graph(self._layout_for(len(tokens), needs))
        return Embeddings.concatenate([self._run(graph, layout, part) for part in tokens.split(layout.batch)])

    def _graph(self, layout: Layout) -> tuple[Graph, Layout]:
        known = self._known(layout)
        if known is not None:
            return self._graphs[known], known
        self._graphs.pop(layout.without_patches(), None)
        try:
            self._graphs[layout] = self._build(layout)
        except Exception as error:
            is_ours = isinstance(error, WinspectError) and not isinstance(error, ArchitectureError)
            if is_ours or is_out_of_memory(error):
                raise
            raise EngineBuildError(f"engine {self.name} cannot build its graph: {error}") from error
        return self._graphs[layout], layout

    def _halve(self, failed_size: int, error: BaseException) -> None:
        self._graphs.clear()  # the next ones are smaller
        super()._halve(failed_size, error)

    def _run(self, graph: Graph, layout: Layout, tokens: Tensor) -> Embeddings:
        """Embeddings of up to ``layout.batch`` tiles."""
        outputs = graph(_filled_up(tokens, layout.batch))

        def tensor(name: str) -> Tensor:
            return torch.from_numpy(outputs[name].copy()).unflatten(0, (layout.batch, -1))[: len(tokens)]

        return Embeddings(
            image=tensor(IMAGE).flatten(0, 1),
            windows={scale: tensor(window_output(scale)) for scale in layout.scales},
            patches={layout.layer: tensor(PATCHES).unflatten(1, layout.grid_hw)} if layout.patches else {},
            grid_hw=layout.grid_hw,
        )


def _filled_up(tokens: Tensor, batch: int) -> np.ndarray:
    """Tokens (tiles, tokens, width) as a matrix of ``batch`` tiles' rows, zeros where tiles are missing."""
    missing = batch - len(tokens)
    if missing:
        tokens = torch.nn.functional.pad(tokens, (0, 0, 0, 0, 0, missing))
    return np.ascontiguousarray(tokens.flatten(0, 1).numpy())
