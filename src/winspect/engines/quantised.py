"""int8: NNCF's post-training quantisation of the tower's graph, calibrated on pictures, kept on disk.

Activations of transformers have a few channels far larger than the rest. SmoothQuant (Xiao et al., arXiv 2211.10438)
moves part of their size into the weights before both are rounded to 8 bits; NNCF's transformer scheme does so and
leaves LayerNorm, softmax and the residual stream in floating point.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from winspect.backbones.embeddings import LAST_NORM, Embeddings, Needs
from winspect.backbones.loading import Tower
from winspect.engines.compiled import openvino_core, save_openvino
from winspect.engines.graph_cache import GraphCache
from winspect.engines.openvino_engine import OpenVINOEngine
from winspect.engines.subgraphs import without_windows
from winspect.engines.tower_graph import GRAPH_VERSION, Layout
from winspect.engines.traced import TRACE_VERSION, Trace
from winspect.errors import MissingExtraError, ReferencesError
from winspect.system.installation import install_command
from winspect.system.machine import cpu_features

logger = logging.getLogger(__name__)

FEWEST_PICTURES = 8
"""Fewer calibration pictures would leave the range of some activations to chance."""


class QuantisedEngine(OpenVINOEngine):
    """The OpenVINO engine in int8. What stays in floating point runs in bf16 where the CPU has it, else in fp32.

    Args:
        tower: in float32, on the CPU.
        calibration: normalised tiles, float32 (tiles, 3, height, width), whose activations set the ranges.
        needs: all that the method may ask for. The tower is quantised for it once, and scores without maps or good
            samples come from the same quantisation: two would give a picture two scores.
        cache: where quantised graphs are kept: making one takes minutes for a large tower.

    Raises:
        MissingExtraError: NNCF is not installed.
        ReferencesError: fewer than :data:`FEWEST_PICTURES` calibration tiles.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        calibration: Tensor,
        cache: GraphCache,
        needs: Needs,
        threads: int | None = None,
        image_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tower, precision="int8", batch_size=1, threads=threads, image_hw=image_hw)
        self._quantised, self._needs = cache, needs
        if len(calibration) < FEWEST_PICTURES:
            raise ReferencesError(
                f"got {len(calibration)} pictures to calibrate int8 on, need at least {FEWEST_PICTURES} of the parts "
                "to be inspected, good ones will do; or none, to use the bundled set"
            )
        self._calibration = calibration
        if cpu_features().native_bf16:
            self._options["INFERENCE_PRECISION_HINT"] = "bf16"

    def prepare(self, needs: Needs) -> None:
        """Build now what :meth:`encode` would build: the graph of the pictures, and that of their windows."""
        for part in _passes(needs):
            super().prepare(part)

    def _embed(self, tokens: Tensor, needs: Needs) -> Embeddings:
        # What belongs to the picture always comes from the graph without windows: rounding to 8 bits turns the last
        # digit of a sum, which depends on the rows beside it, into a step, and a score must not depend on its map.
        pictures, *rest = [super(QuantisedEngine, self)._embed(tokens, part) for part in _passes(needs)]
        return replace(pictures, windows=rest[0].windows) if rest else pictures

    def _layouts(self, tiles: int, needs: Needs) -> list[Layout]:
        return [self._layout(tiles, part) for part in _passes(needs)]

    def _trace(self, tiles: int, needs: Needs, image_hw: tuple[int, int]) -> Trace:
        # One quantisation for all that the method asks for, as with a packed graph.
        whole, depth = self._needs, self.tower.depth
        is_part = set(needs.layers) <= set(whole.layers) and needs.scales in ((), whole.scales)
        is_part = is_part and needs.blocks(depth) <= whole.blocks(depth)
        return super()._trace(tiles, whole if is_part else needs, image_hw)

    def _model(self, plan: Layout | Trace) -> ov.Model:
        key = {
            "openvino": ov.__version__,
            "nncf": _nncf().__version__,
            "pictures": hashlib.sha256(self._calibration.numpy().tobytes()).hexdigest(),
        }
        if isinstance(plan, Trace):
            key = {"kind": "int8 traced", "graph": TRACE_VERSION, "trace": plan.key, **key}
        else:
            # Patch tokens always among the outputs: few-shot and zero-shot inspection then share one quantisation.
            plan = replace(plan, patches=True, norm=LAST_NORM in self._needs.layers)
            if not plan.scales and self._needs.scales:
                whole = replace(plan, scales=self._needs.scales, stride=self._needs.stride)
                return without_windows(self._model(whole), plan.batch * plan.tokens)
            key = {"kind": "int8", "graph": GRAPH_VERSION, "layout": plan.key, **key}
        folder = self._quantised.get(key, lambda made: self._quantise(plan, made))
        return openvino_core().read_model(folder / "tower.xml")

    def _quantise(self, plan: Layout | Trace, folder: Path) -> None:
        nncf = _nncf()
        logger.warning(
            "quantising the image tower to int8 on %d pictures; once for these weights", len(self._calibration)
        )
        # NNCF draws its progress on stdout, which may be about to carry JSON.
        with contextlib.redirect_stdout(sys.stderr):
            model = nncf.quantize(
                super()._model(plan),
                nncf.Dataset([self._calibration_input(tile[None], plan) for tile in self._calibration]),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(self._calibration),
            )
        save_openvino(model, folder / "tower.xml")

    def _calibration_input(self, tile: Tensor, plan: Layout | Trace) -> dict[str, np.ndarray]:
        """What a graph takes of a calibration tile (1, 3, height, width)."""
        if isinstance(plan, Trace):
            if tuple(tile.shape[2:]) != plan.image_hw:
                tile = interpolate(tile, plan.image_hw, mode="bicubic", antialias=True, align_corners=False)
            return {"pixels": np.ascontiguousarray(tile.numpy())}
        tower: Any = self.tower
        with torch.inference_mode():
            return {"tokens": np.ascontiguousarray(tower.tokens(tile)[0][0].numpy())}


def _passes(needs: Needs) -> list[Needs]:
    """What one call runs: the pictures alone, then their windows where they are needed."""
    return list(dict.fromkeys([replace(needs, scales=()), needs]))


def _nncf() -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import nncf
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"precision int8 needs NNCF: {install_command('int8')}") from error
    nncf.set_log_level(logging.WARNING)
    for handler in logging.getLogger("nncf").handlers:  # it logs on stdout, which may be about to carry JSON
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stderr
    return nncf
