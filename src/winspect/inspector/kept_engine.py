"""Graphs that earlier starts kept, as an engine. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.bundle.engine import EdgeEngine
from winspect.bundle.manifest import Manifest
from winspect.engines.compiled import TOKENS, TOWER
from winspect.engines.graph_cache import GraphCache
from winspect.methods.identity import Identity


class NoGraphError(Exception):
    """No graph was kept, or none is left, for what is asked."""


@dataclass(frozen=True)
class KeptGraph:
    """A graph in the graph cache.

    Attributes:
        needs: what it gives of a tile.
        tile_hw: height and width of the tile.
        grid_hw: rows and columns of the patch grid.
        is_traced: whether it takes pixels; else another graph makes tokens of them.
        key: in the graph cache.
    """

    needs: Needs
    tile_hw: tuple[int, int]
    grid_hw: tuple[int, int]
    is_traced: bool
    key: Mapping[str, Any]

    def gives(self, needs: Needs) -> bool:
        """Whether it gives what is needed."""
        return self.needs.gives(needs)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> KeptGraph:
        """From what :func:`dataclasses.asdict` gave, read as JSON.

        Raises:
            KeyError, TypeError, ValueError: damaged.
        """
        needs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document["needs"].items()
        }
        (height, width), (rows, columns) = document["tile_hw"], document["grid_hw"]
        return cls(Needs(**needs), (height, width), (rows, columns), bool(document["is_traced"]), document["key"])


class KeptEngine:
    """Runs kept graphs on the CPU, each read when it is first needed.

    Args:
        graphs: the graphs.
        identity, scoring: of the model.
        cache: where the graphs lie.
        threads: of OpenVINO.

    Attributes: those of :class:`~winspect.bundle.engine.EdgeEngine`.
    """

    device = "cpu"

    def __init__(
        self,
        graphs: tuple[KeptGraph, ...],
        identity: Identity,
        scoring: Mapping[str, Any],
        cache: GraphCache,
        threads: int,
    ) -> None:
        self.name, self.precision = identity.engine, identity.precision
        self._graphs, self._cache, self._threads = graphs, cache, threads
        self._identity, self._scoring = identity, scoring
        self._engines: dict[tuple[Needs, tuple[int, int]], EdgeEngine] = {}

    def prepare(self, needs: Needs) -> None:
        """Compile now what :meth:`encode` would compile for tiles of the size expected.

        Raises:
            NoGraphError: none is there. And what OpenVINO raises.
        """
        self._engine(next((graph for graph in self._graphs if graph.gives(needs)), None)).prepare(needs)

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per pass where there are enough of them."""
        return 1

    def encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        """Embed normalised tiles, float32 (tiles, 3, height, width).

        Raises:
            NoGraphError: none is there for tiles of this size, or for these needs. And what OpenVINO raises.
        """
        fitting = (graph for graph in self._graphs if graph.tile_hw == tiles.shape[2:] and graph.gives(needs))
        return self._engine(next(fitting, None)).encode(tiles, needs)

    def _engine(self, graph: KeptGraph | None) -> EdgeEngine:
        if graph is None:
            raise NoGraphError("no graph of an earlier start serves this")
        known = self._engines.get((graph.needs, graph.tile_hw))
        if known is None:
            folder = self._cache.find(graph.key)
            if folder is None:
                raise NoGraphError("the graph of an earlier start has left the cache")
            traced_hw = graph.tile_hw if graph.is_traced else None
            manifest = Manifest(self._identity, self._scoring, graph.grid_hw, {}, sha256={}, traced_hw=traced_hw)
            files = folder / TOKENS, folder / TOWER
            known = EdgeEngine(folder, manifest, graph.needs, graphs=files, threads=self._threads)
            self._engines[graph.needs, graph.tile_hw] = known
        return known
