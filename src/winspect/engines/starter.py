"""From options to an engine that runs: what suits the machine, and what passes the precision gate."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from winspect.backbones.embeddings import Needs
from winspect.backbones.loading import Tower
from winspect.engines.base import Engine
from winspect.engines.choice import Choice
from winspect.engines.gate import (
    BARS,
    GATE_PICTURES_VERSION,
    GateRecords,
    GateResult,
    GateScores,
    calibration_pictures,
    compare,
    gate_pictures,
)
from winspect.engines.graph_cache import GraphCache
from winspect.engines.options import EngineOptions
from winspect.engines.torch_engine import TorchEngine
from winspect.engines.tower_graph import GRAPH_VERSION
from winspect.errors import EngineBuildError, EngineError, PrecisionError
from winspect.pictures.tiles import Preprocess
from winspect.system.machine import versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Starter:
    """Makes engines for one tower.

    Attributes:
        options: what was asked for.
        choice: engine, precision and device as decided before the gate.
        tower: in float32, on the CPU.
        needs: all that the method may ask for.
        identity: of the weights.
        folder: the cache.
        preprocess: pictures to tiles.
        score: scores the gate's tiles with an engine.
        scored_with: the ``recipe`` and ``prompts`` of these scores, as JSON has them.
        int8_tiles: normalised tiles to calibrate int8 on; None for the bundled ones.
    """

    options: EngineOptions
    choice: Choice
    tower: Tower
    needs: Needs
    identity: str
    folder: Path
    preprocess: Preprocess
    score: Callable[[Engine, Tensor], GateScores]
    scored_with: Mapping[str, Any]
    int8_tiles: np.ndarray | None = None

    def start(self) -> tuple[Engine, GateResult | None]:
        """The engine, and the gate's result where its precision was checked: int8, and one that ``auto`` would take.

        Raises:
            PrecisionError: int8 does not score as fp32 does.
            EngineBuildError: the engine was asked for by name, or needs int8, and cannot be built.
        """
        try:
            if self.choice.precision == "int8" and self.options.gate == "skip":
                logger.warning("int8 runs without the precision gate: its scores may differ from fp32's")
            elif self.choice.precision == "int8":
                return self._checked_int8()
            elif self.choice.faster_precision:
                return self._fastest_that_passes(self.choice.faster_precision)
            return self.make(self.choice.precision), None
        except EngineBuildError as error:
            return self.fall_back(error), None

    def make(self, precision: str, *, beside: bool = False) -> Engine:
        """An engine in a precision, unchecked.

        Args:
            beside: another engine will run the same tower.
        """
        # The torch engine casts the weights it is given.
        tower = copy.deepcopy(self.tower) if beside and self.choice.engine == "torch" else self.tower
        cache = GraphCache(self.folder / "graphs", self.identity)
        calibration = self._calibration() if precision == "int8" else None
        choice = replace(self.choice, precision=precision)
        side = self.preprocess.size - self.preprocess.size % self.preprocess.patch  # of a square picture
        return make_engine(self.options, choice, tower, self.needs, cache, calibration, image_hw=(side, side))

    def fall_back(self, error: EngineBuildError) -> Engine:
        """Torch in place of an engine that was not asked for by name and cannot be built.

        Raises:
            EngineBuildError: the same error, where the engine was named, or int8 was asked for, which torch lacks.
        """
        precision = self.choice.precision
        if precision == "int8" or not self.options.may_fall_back:
            raise error
        logger.warning("%s; falling back to engine torch in %s", error, precision)
        return TorchEngine(self.tower, self.choice.device, precision, self.options.tiles_at_once)

    def _calibration(self) -> Tensor:
        if self.int8_tiles is not None:
            return torch.from_numpy(self.int8_tiles)
        return self._tiles(calibration_pictures())

    def _tiles(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([self.preprocess(picture) for picture in pictures]))

    def _checked_int8(self) -> tuple[Engine, GateResult]:
        result, engine = self._verdict("int8")
        if not result.passed:
            raise PrecisionError(
                f"int8 does not score as fp32 does with these weights: {'; '.join(result.reasons)}. Use precision bf16 "
                "or fp32, calibrate on pictures of your own parts, or skip the gate to run it all the same"
            )
        return engine or self.make("int8"), result

    def _fastest_that_passes(self, faster: str) -> tuple[Engine, GateResult]:
        result, engine = self._verdict(faster)
        if not result.passed:
            for reason in result.reasons:
                logger.warning("precision fp32, as %s did not pass the gate: %s", faster, reason)
            return self.make("fp32"), result
        logger.info("precision %s: it has passed the gate (%s)", faster, result)
        return engine or self.make(faster), result

    def _key(self, precision: str) -> dict[str, Any]:
        """Everything the verdict depends on."""
        releases = versions()
        key: dict[str, Any] = {
            "weights": self.identity,
            "graph": GRAPH_VERSION,
            "engine": self.choice.engine,
            "releases": {name: releases[name] for name in ("torch", "openvino", "nncf")},
            "device": f"{self.choice.device} {self.choice.openvino_device}",
            "precision": precision,
            "bar": asdict(BARS[precision]),
            **self.scored_with,
            "pictures": GATE_PICTURES_VERSION,
        }
        if precision == "int8" and self.int8_tiles is not None:
            key["int8_tiles"] = hashlib.sha256(self.int8_tiles.tobytes()).hexdigest()
        return key

    def _verdict(self, precision: str) -> tuple[GateResult, Engine | None]:
        """The gate's verdict, from its records or found now; with the engine, where one was made for it."""
        records, key = GateRecords(self.folder / "gate"), self._key(precision)
        known = records.read(key)
        if known is not None:
            return known, None
        pictures, labels = gate_pictures()
        tiles = self._tiles(pictures)
        logger.warning("checking %s against fp32 on %d pictures, once for these weights", precision, len(pictures))
        candidate = self.make(precision, beside=True)
        scores = self.score(candidate, tiles)  # first: what it builds needs the most memory
        result = compare(precision, self.score(self.make("fp32"), tiles), scores, labels)
        logger.warning("%s", result)
        records.write(key, result)
        return result, candidate


def make_engine(
    options: EngineOptions,
    choice: Choice,
    tower: Tower,
    needs: Needs,
    cache: GraphCache,
    calibration: Tensor | None = None,
    *,
    image_hw: tuple[int, int] | None = None,
) -> Engine:
    """The engine of a choice. Its graphs are compiled when tiles are first encoded.

    Args:
        calibration: normalised tiles that int8 is calibrated on.
        image_hw: height and width of the tiles to come; None for the tower's own.

    Raises:
        EngineError: captured graphs on a device that has none.
        WinspectError: the engine cannot be made for another reason.
    """
    batch_size, prefetch = options.tiles_at_once, _prefetches(options, choice)
    if choice.engine == "torch":
        return TorchEngine(tower, choice.device, choice.precision, batch_size, prefetch=prefetch, graphs=options.graphs)
    if options.graphs:
        raise EngineError(f"got graphs with engine {choice.engine}; captured graphs need engine torch on cuda or npu")
    try:
        if choice.engine == "onnx":
            from winspect.engines.onnx_engine import OnnxEngine

            return OnnxEngine(tower, cache=cache, batch_size=batch_size, image_hw=image_hw)
        if choice.precision == "int8":
            from winspect.engines.quantised import QuantisedEngine

            if calibration is None:
                raise ValueError("int8 needs calibration tiles")
            return QuantisedEngine(tower, calibration=calibration, cache=cache, needs=needs, image_hw=image_hw)
        from winspect.engines.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(
            tower,
            precision=choice.precision,
            device=choice.openvino_device,
            batch_size=batch_size,
            cache=cache,
            image_hw=image_hw,
        )
    except ImportError as error:
        raise EngineBuildError(f"engine {choice.engine} cannot be loaded: {error}; install it again") from error


def _prefetches(options: EngineOptions, choice: Choice) -> bool:
    if options.plan != "prefetch":
        return False
    if choice.device.type == "npu":
        return True
    reason = "plan prefetch: %s has no cache that weights can be prefetched to; running as tile-batch"
    logger.warning(reason, choice.device)
    return False
