"""A bundle's two graphs as an engine: tiles in, embeddings out, in NumPy."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path

import numpy as np

from winspect.backbones.embeddings import STEM, Embeddings, Needs
from winspect.bundle.manifest import GRAPHS
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

    def __init__(self, folder: Path, name: str, precision: str, needs: Needs, grid_hw: tuple[int, int]) -> None:
        self.name, self.precision, self._needs, self._grid_hw = name, precision, needs, grid_hw
        self._one_at_a_time = threading.Lock()  # a graph has one set of buffers
        tokens, tower = (folder / place for place in GRAPHS[name])
        try:
            if name == "openvino":
                self._tokens, self._tower = _openvino(tokens, "fp32"), _openvino(tower, precision)
            else:
                self._tokens, self._tower = _onnx(tokens), _onnx(tower)
        except ModuleNotFoundError as error:
            fix = install_command(EDGE_EXTRAS[name])
            raise MissingExtraError(f"this bundle runs in {name}, which is not installed: {fix}") from error
        except Exception as error:  # OpenVINO's are RuntimeErrors; ONNX Runtime's have no common base
            raise BundleError(
                f"{folder}: {name} cannot run its graphs ({error}); copy it again, or upgrade {name}"
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


def _onnx(path: Path) -> Graph:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), onnx_options(), providers=["CPUExecutionProvider"])
    return OnnxGraph(session)
