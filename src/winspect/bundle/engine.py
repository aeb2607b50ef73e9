"""A bundle's two graphs as an engine: tiles in, embeddings out, in NumPy."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path

import numpy as np

from winspect.backbones.embeddings import LAST, STEM, Embeddings, Needs
from winspect.bundle.manifest import GRAPHS, Manifest
from winspect.engines.compiled import OPENVINO_HINTS, Graph, OnnxGraph, OpenVINOGraph, onnx_options, openvino_core
from winspect.errors import BundleError, MissingExtraError
from winspect.system.installation import EDGE_EXTRAS, install_command

logger = logging.getLogger(__name__)


class EdgeEngine:
    """Runs the graphs of a bundle, a tile at a time: with windows, more together gain nothing on a CPU.

    Attributes:
        name: ``openvino`` or ``onnx``.
        precision: what the tower runs in.
        device: ``cpu``.

    Raises:
        MissingExtraError: the engine is not installed.
        BundleError: it cannot read the graphs.
    """

    device = "cpu"

    def __init__(self, folder: Path, manifest: Manifest, needs: Needs) -> None:
        self.name, self.precision, self._needs = manifest.engine, manifest.identity.precision, needs
        self._grid_hw, self._traced_hw = manifest.grid_hw, manifest.traced_hw
        self._one_at_a_time = threading.Lock()  # a graph has one set of buffers
        tokens, tower = (folder / place for place in GRAPHS[self.name])
        run = _onnx if self.name == "onnx" else _openvino
        try:
            self._tokens = run(tokens, "fp32") if self._traced_hw is None else None
            self._tower = run(tower, self.precision)
        except ModuleNotFoundError as error:
            fix = install_command(EDGE_EXTRAS[self.name])
            raise MissingExtraError(f"this bundle runs in {self.name}, which is not installed: {fix}") from error
        except Exception as error:  # OpenVINO's are RuntimeErrors; ONNX Runtime's have no common base
            raise BundleError(
                f"{folder}: {self.name} cannot run its graphs ({error}); copy it again, or upgrade {self.name}"
            ) from error

    def prepare(self, needs: Needs) -> None:
        """The graphs have been compiled when the bundle was loaded."""

    def tiles_per_pass(self, needs: Needs) -> int:
        """Tiles per pass where there are enough of them."""
        return 1

    def encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        """Embed normalised tiles, float32 (tiles, 3, height, width); all that the graphs give, whatever is needed."""
        with self._one_at_a_time:
            return Embeddings.concatenate([self._encode(tile[None]) for tile in tiles])

    def _encode(self, tile: np.ndarray) -> Embeddings:
        if self._tokens is None:
            return self._traced(tile)
        embedded = self._tokens(np.ascontiguousarray(tile))
        outputs = self._tower(np.ascontiguousarray(embedded["tokens"][0]))

        def copied(name: str) -> np.ndarray:
            return np.array(outputs[name])[None]  # a copy: the next tile overwrites the graph's own

        layers = {
            layer: np.array(embedded[STEM]) if layer == STEM else copied("patches") for layer in self._needs.layers
        }
        if any(vectors.shape[1] != math.prod(self._grid_hw) for vectors in layers.values()):
            raise ValueError(f"its graphs give other patches than a grid of {self._grid_hw} has")
        patches = {layer: vectors.reshape(1, *self._grid_hw, -1) for layer, vectors in layers.items()}
        windows = {scale: copied(f"windows_{scale}") for scale in self._needs.scales}
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

    def _traced(self, tile: np.ndarray) -> Embeddings:
        if (reason := self.refusal(tile.shape[2:])) is not None:
            raise BundleError(reason)
        outputs = {name: np.array(values) for name, values in self._tower(np.ascontiguousarray(tile)).items()}
        # The last block is one output under the name of the last layer.
        layers = {layer: outputs.get(layer, outputs.get(LAST)) for layer in self._needs.layers}
        if any(patches is None or patches.ndim != 4 for patches in layers.values()):
            raise ValueError(f"its graph gives {', '.join(outputs)}, not {', '.join(self._needs.layers)}")
        image = outputs.get("image", np.zeros((1, 0), np.float32))
        windows = {scale: outputs[f"windows_{scale}"] for scale in self._needs.scales}
        return Embeddings(image=image, windows=windows, patches=layers, grid_hw=self._grid_hw)


def _openvino(path: Path, precision: str) -> Graph:

    core = openvino_core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = OPENVINO_HINTS[precision]
    if precision == "int8" and "BF16" in capabilities:
        hint = "bf16"  # what is left in floating point, as when it was exported
    if precision == "bf16" and "BF16" not in capabilities:
        logger.warning("this CPU has no bf16: the bundle runs in fp32; its scores may differ in the third digit")
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    return OpenVINOGraph(core.compile_model(core.read_model(path), "CPU", options))


def _onnx(path: Path, precision: str) -> Graph:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), onnx_options(), providers=["CPUExecutionProvider"])
    return OnnxGraph(session)
