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
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from winspect.encoder import ImageTower
from winspect.engines.graph import GRAPH_VERSION, Layout
from winspect.engines.graph_cache import GraphCache
from winspect.engines.openvino_engine import OpenVINOEngine
from winspect.errors import MissingExtraError, ReferencesError
from winspect.machine import cpu_features
from winspect.system.installation import install_command

logger = logging.getLogger(__name__)

FEWEST_PICTURES = 8
"""Fewer calibration pictures would leave the range of some activations to chance."""


class QuantisedEngine(OpenVINOEngine):
    """The OpenVINO engine in int8. What stays in floating point runs in bf16 where the CPU has it, else in fp32.

    Args:
        tower: in float32, on the CPU.
        calibration: normalised tiles, float32 (tiles, 3, height, width), whose activations set the ranges.
        cache: where quantised graphs are kept: making one takes minutes for a large tower.

    Raises:
        MissingExtraError: NNCF is not installed.
        ReferencesError: fewer than :data:`FEWEST_PICTURES` calibration tiles.
    """

    def __init__(
        self, tower: ImageTower, *, calibration: Tensor, cache: GraphCache, threads: int | None = None
    ) -> None:
        super().__init__(tower, precision="int8", batch_size=1, threads=threads)
        self._quantised = cache
        if len(calibration) < FEWEST_PICTURES:
            raise ReferencesError(
                f"got {len(calibration)} pictures to calibrate int8 on, need at least {FEWEST_PICTURES} of the parts "
                "to be inspected, good ones will do; or none, to use the bundled set"
            )
        self._calibration = calibration
        if cpu_features().native_bf16:
            self._options["INFERENCE_PRECISION_HINT"] = "bf16"

    def _model(self, layout: Layout) -> ov.Model:
        # Patch tokens always among the outputs: few-shot and zero-shot inspection then share one quantisation.
        layout = layout.with_patches()
        key = {
            "kind": "int8",
            "graph": GRAPH_VERSION,
            "layout": repr(layout),
            "openvino": ov.__version__,
            "nncf": _nncf().__version__,
            "pictures": hashlib.sha256(self._calibration.numpy().tobytes()).hexdigest(),
        }
        folder = self._quantised.get(key, lambda made: self._quantise(layout, made))
        return ov.Core().read_model(folder / "tower.xml")

    def _quantise(self, layout: Layout, folder: Path) -> None:
        nncf = _nncf()
        logger.warning(
            "quantising the image tower to int8 on %d pictures; once for these weights", len(self._calibration)
        )
        with torch.inference_mode():
            tokens = [self.tower.tokens(tile[None])[0][0].numpy() for tile in self._calibration]
        # NNCF draws its progress on stdout, which may be about to carry JSON.
        with contextlib.redirect_stdout(sys.stderr):
            model = nncf.quantize(
                super()._model(layout),
                nncf.Dataset([{"tokens": np.ascontiguousarray(own)} for own in tokens]),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(tokens),
            )
        ov.save_model(model, folder / "tower.xml", compress_to_fp16=False)


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
