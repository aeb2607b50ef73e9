"""A bundle's two graphs as an engine: tiles in, embeddings out, in NumPy."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from winspect.backbones.embeddings import LAST, STEM, Embeddings, Needs
from winspect.bundle.manifest import GRAPHS, Manifest
from winspect.engines.compiled import OPENVINO_HINTS, Graph, OnnxGraph, OpenVINOGraph, onnx_options, openvino_core
from winspect.errors import BundleError, MissingExtraError
from winspect.system.installation import EDGE_EXTRAS, install_command

logger = logging.getLogger(__name__)


class EdgeEngine:
    """Runs the graphs of a bundle, a tile at a time: with windows, more together gain nothing on a CPU.

    Args:
        folder, manifest: of the bundle; of kept graphs where they lie, and what they are.
        needs: what its graphs give.
        graphs: OpenVINO's files, where they are not the bundle's: tokens, unused where the tower is traced, and tower.
            Then they are compiled for what is needed of them, when it is first needed.
        threads: of OpenVINO; None for its own choice.

    Attributes:
        name: ``openvino`` or ``onnx``.
        precision: what the tower runs in.
        device: ``cpu``.

    Raises:
        MissingExtraError: the engine is not installed.
        BundleError: it cannot read the graphs.
    """

    device = "cpu"

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        needs: Needs,
        *,
        graphs: tuple[Path, Path] | None = None,
        threads: int | None = None,
    ) -> None:
        self.name, self.precision, self._needs = manifest.engine, manifest.identity.precision, needs
        self._grid_hw, self._traced_hw = manifest.grid_hw, manifest.traced_hw
        self._one_at_a_time = threading.Lock()  # a graph has one set of buffers
        self._in_parts, self._threads = graphs is not None, threads
        tokens, self._tower_file = graphs or tuple(folder / place for place in GRAPHS[self.name])
        self._towers: dict[Needs, Graph] = {}
        try:
            self._tokens = self._compiled(tokens, "fp32") if self._traced_hw is None else None
            if not self._in_parts:
                self._tower(needs)
        except ModuleNotFoundError as error:
            fix = install_command(EDGE_EXTRAS[self.name])
            raise MissingExtraError(f"this bundle runs in {self.name}, which is not installed: {fix}") from error
        except Exception as error:  # OpenVINO's are RuntimeErrors; ONNX Runtime's have no common base
            raise BundleError(
                f"{folder}: {self.name} cannot run its graphs ({error}); copy it again, or upgrade {self.name}"
            ) from error

    def prepare(self, needs: Needs) -> None:
        """Compile now what :meth:`encode` would compile; a bundle's graphs have been compiled when it was loaded."""
        with self._one_at_a_time:
            self._tower(self._part(needs))

    def _compiled(self, path: Path, precision: str) -> Graph:
        return _onnx(path, precision) if self.name == "onnx" else _openvino(path, precision, threads=self._threads)

    def _part(self, needs: Needs) -> Needs:
        """What a call gets: of a bundle all that its graphs give."""
        return needs if self._in_parts else self._needs

    def _tower(self, part: Needs) -> Graph:
        """The graph that gives a part of what the files' graph gives; one that gives less of the same is dropped."""
        for known, graph in self._towers.items():
            if known.scales == part.scales and {*part.layers} <= {*known.layers}:
                return graph
        if not self._in_parts:
            self._towers[part] = self._compiled(self._tower_file, self.precision)
            return self._towers[part]
        if not self._needs.gives(part):
            raise ValueError(f"its graphs give {self._needs}, not {part}")
        self._towers = {known: graph for known, graph in self._towers.items() if known.scales != part.scales}
        is_packed = self._traced_hw is None
        outputs = {"image", *map("windows_{}".format, part.scales)}
        if is_packed:
            outputs |= {"patches"} if {*part.layers} - {STEM} else set()
        elif part.layers:
            outputs |= {*part.layers, LAST}
        rows = 1 + math.prod(self._grid_hw) if is_packed and not part.scales and self._needs.scales else None
        self._towers[part] = _openvino(
            self._tower_file, self.precision, threads=self._threads, outputs=outputs, rows=rows
        )
        return self._towers[part]

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per pass where there are enough of them."""
        return 1

    def encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        """Embed normalised tiles, float32 (tiles, 3, height, width); all that the graphs give, whatever is needed."""
        with self._one_at_a_time:
            return Embeddings.concatenate([self._encode(tile[None], self._part(needs)) for tile in tiles])

    def _encode(self, tile: np.ndarray, needs: Needs) -> Embeddings:
        if self._tokens is None:
            return self._traced(tile, needs)
        embedded = self._tokens(np.ascontiguousarray(tile))
        outputs = self._tower(needs)(np.ascontiguousarray(embedded["tokens"][0]))

        def copied(name: str) -> np.ndarray:
            return np.array(outputs[name])[None]  # a copy: the next tile overwrites the graph's own

        layers = {layer: np.array(embedded[STEM]) if layer == STEM else copied("patches") for layer in needs.layers}
        if any(vectors.shape[1] != math.prod(self._grid_hw) for vectors in layers.values()):
            raise ValueError(f"its graphs give other patches than a grid of {self._grid_hw} has")
        patches = {layer: vectors.reshape(1, *self._grid_hw, -1) for layer, vectors in layers.items()}
        windows = {scale: copied(f"windows_{scale}") for scale in needs.scales}
        return Embeddings(image=copied("image")[0], windows=windows, patches=patches, grid_hw=self._grid_hw)

    def refusal(self, tile_hw: tuple[int, ...]) -> str | None:
        """Why tiles of this height and width cannot be embedded; None where they can."""
        if self._traced_hw is None or tile_hw == self._traced_hw:
            return None
        got, has = (f"{width}x{height}" for height, width in (tile_hw, self._traced_hw))
        return (
            f"the picture becomes {got} pixels in front of the model, and the graph of this bundle is for {has}: "
            "inspect pictures of the shape that it was exported for, or export a bundle for these"
        )

    def _traced(self, tile: np.ndarray, needs: Needs) -> Embeddings:
        if (reason := self.refusal(tile.shape[2:])) is not None:
            raise BundleError(reason)
        outputs = {name: np.array(values) for name, values in self._tower(needs)(np.ascontiguousarray(tile)).items()}
        # The last block is one output under the name of the last layer.
        layers = {layer: outputs.get(layer, outputs.get(LAST)) for layer in needs.layers}
        if any(patches is None or patches.ndim != 4 for patches in layers.values()):
            raise ValueError(f"its graph gives {', '.join(outputs)}, not {', '.join(needs.layers)}")
        image = outputs.get("image", np.zeros((1, 0), np.float32))
        windows = {scale: outputs[f"windows_{scale}"] for scale in needs.scales}
        return Embeddings(image=image, windows=windows, patches=layers, grid_hw=self._grid_hw)


def _openvino(
    path: Path,
    precision: str,
    *,
    threads: int | None = None,
    outputs: Collection[str] = (),
    rows: int | None = None,
) -> Graph:
    """Compile a file.

    Args:
        outputs: those to keep, by name; none for all.
        rows: tokens of the picture, where its windows are left out; None where nothing is.
    """
    core = openvino_core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = OPENVINO_HINTS[precision]
    if precision == "int8" and "BF16" in capabilities:
        hint = "bf16"  # what is left in floating point, as when it was exported
    if precision == "bf16" and "BF16" not in capabilities:
        logger.warning("this CPU has no bf16: the bundle runs in fp32; its scores may differ in the third digit")
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(path)
    if outputs:
        from winspect.engines.subgraphs import with_outputs, without_windows

        model = with_outputs(model if rows is None else without_windows(model, rows), outputs)
    return OpenVINOGraph(core.compile_model(model, "CPU", options))


def _onnx(path: Path, precision: str) -> Graph:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), onnx_options(), providers=["CPUExecutionProvider"])
    return OnnxGraph(session)
