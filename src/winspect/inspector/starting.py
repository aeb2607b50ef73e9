"""Starting the engine a predictor uses: what was asked for, what suits the machine, what passes the precision gate."""

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

from winspect.backbones.embeddings import Embeddings
from winspect.backbones.image_tower import ImageTower
from winspect.backbones.open_clip_models import LoadedCLIP
from winspect.engines.base import Engine
from winspect.engines.choice import Choice
from winspect.engines.gate import (
    BARS,
    GATE_PICTURES_VERSION,
    GateRecords,
    GateResult,
    Judgements,
    calibration_pictures,
    compare,
    gate_pictures,
)
from winspect.engines.graph_cache import GraphCache
from winspect.engines.making import make_engine
from winspect.engines.torch_engine import TorchEngine
from winspect.engines.tower_graph import GRAPH_VERSION
from winspect.errors import EngineBuildError, PrecisionError, SettingsError
from winspect.methods.winclip.fusion import FusionSettings
from winspect.methods.winclip.judge import PictureScores
from winspect.methods.winclip.prompts import PromptEnsemble
from winspect.methods.winclip.recipes import Recipe
from winspect.pictures.tiles import Preprocess
from winspect.system.machine import versions
from winspect.weights import TINY

logger = logging.getLogger(__name__)

PLANS = ("auto", "serial", "tile-batch", "prefetch")
GATES = ("check", "skip")

Judge = Callable[[Embeddings], list[PictureScores]]
"""Zero-shot scores of tiles, one picture each."""


@dataclass
class Starter:
    """Makes engines for one tower.

    Attributes:
        choice: engine, precision and device as decided before the gate.
        tower: in float32, on the CPU.
        identity: of the weights.
        folder: the cache.
        preprocess: pictures to tiles.
        recipe, prompts: whose scores the gate compares.
        judge: how embeddings of the gate's pictures become scores.
        batch_size: see :class:`~winspect.engines.Engine`.
        plan: one of :data:`PLANS`.
        graphs: run passes as captured graphs, on CUDA or Ascend.
        int8_tiles: normalised tiles to calibrate int8 on; None for the bundled ones.
    """

    choice: Choice
    tower: ImageTower
    identity: str
    folder: Path
    preprocess: Preprocess
    recipe: Recipe
    prompts: PromptEnsemble
    judge: Judge
    batch_size: int | None = None
    plan: str = "auto"
    graphs: bool = False
    int8_tiles: np.ndarray | None = None

    def start(self, gate: str) -> tuple[Engine, GateResult | None]:
        """The engine, and what the gate said of its precision where it was asked: a faster one, and int8, must pass it.

        Args:
            gate: ``check``, or ``skip`` to run int8 whatever it does to scores.

        Raises:
            PrecisionError: int8 does not judge as fp32 does.
        """
        if self.choice.precision == "int8" and gate == "skip":
            logger.warning("int8 runs without the precision gate: its scores may differ from fp32's")
        elif self.choice.precision == "int8":
            return self._checked_int8()
        elif self.choice.faster_precision:
            return self._fastest_that_passes(self.choice.faster_precision)
        return self.make(self.choice.precision), None

    def make(self, precision: str, *, beside: bool = False) -> Engine:
        """An engine in a precision, unchecked.

        Args:
            beside: another engine will run the same tower.
        """
        # The torch engine casts the weights it is given.
        owns = beside and self.choice.engine == "torch"
        return make_engine(
            replace(self.choice, precision=precision),
            copy.deepcopy(self.tower) if owns else self.tower,
            cache=GraphCache(self.folder / "graphs", self.identity),
            batch_size=self._tiles_at_once,
            prefetch=self._prefetches(),
            graphs=self.graphs,
            calibration=self._calibration() if precision == "int8" else None,
            windows=(self.recipe.scales, self.recipe.stride),
        )

    def fall_back(self, error: EngineBuildError) -> Engine:
        """Torch in place of an engine that was not asked for by name and cannot be built.

        Raises:
            EngineBuildError: the same error, where int8 was asked for, which torch does not have.
        """
        precision = self.choice.precision
        if precision == "int8":
            raise error
        logger.warning("%s; falling back to engine torch in %s", error, precision)
        return TorchEngine(self.tower, self.choice.device, precision, self._tiles_at_once)

    @property
    def _tiles_at_once(self) -> int | None:
        return 1 if self.plan == "serial" else self.batch_size

    def _prefetches(self) -> bool:
        if self.plan != "prefetch":
            return False
        if self.choice.device.type == "npu":
            return True
        said = "plan prefetch: %s has no cache that weights can be prefetched to; running as tile-batch"
        logger.warning(said, self.choice.device)
        return False

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
                f"int8 does not judge as fp32 does with these weights: {'; '.join(result.reasons)}. Use precision bf16 "
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

    @property
    def _records(self) -> GateRecords:
        return GateRecords(self.folder / "gate")

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
            "recipe": asdict(self.recipe),
            "prompts": asdict(self.prompts),
            "pictures": GATE_PICTURES_VERSION,
        }
        if precision == "int8" and self.int8_tiles is not None:
            key["int8_tiles"] = hashlib.sha256(self.int8_tiles.tobytes()).hexdigest()
        return key

    def _verdict(self, precision: str) -> tuple[GateResult, Engine | None]:
        """The gate's verdict, from its records or judged now; with the engine, where one was made to be judged."""
        known = self._records.read(self._key(precision))
        if known is not None:
            return known, None
        pictures, labels = gate_pictures()
        tiles = self._tiles(pictures)
        logger.warning("checking %s against fp32 on %d pictures, once for these weights", precision, len(pictures))
        candidate = self.make(precision, beside=True)
        judged = self._judgements(candidate, tiles)  # first: what it builds needs the most memory
        result = compare(precision, self._judgements(self.make("fp32"), tiles), judged, labels)
        logger.warning("%s", result)
        self._records.write(self._key(precision), result)
        return result, candidate

    def _judgements(self, engine: Engine, tiles: Tensor) -> Judgements:
        def encode(tile: Tensor) -> Embeddings:
            return engine.encode(tile, scales=self.recipe.scales, stride=self.recipe.stride, patches=False)

        judged = [scores for tile in tiles.split(1) for scores in self.judge(encode(tile))]
        return Judgements(
            scores=np.array([own.score for own in judged]), maps=np.stack([own.tile_maps[0] for own in judged])
        )


def check_plan(plan: str, gate: str) -> None:
    """Refuse unknown names.

    Raises:
        SettingsError: an unknown plan, or another word than ``check`` or ``skip`` for the gate.
    """
    for name, value, known in (("plan", plan, PLANS), ("gate", gate, GATES)):
        if value not in known:
            raise SettingsError(f"got the {name} {value!r}, need one of {', '.join(known)}")


def own_settings(
    recipe: Recipe, loaded: LoadedCLIP, settings: Mapping[str, Any], *, named: bool
) -> tuple[Recipe, FusionSettings | None]:
    """What a model brings along for the recipe ``log``, named so or by default: its temperature, the parts' weights."""
    if recipe.fusion != "log":
        return recipe, None
    if "log_fusion" not in loaded.scoring:
        raise SettingsError(
            f"fusion log is calibrated for {TINY} alone, not for {loaded.name}; use recipe paper or tiles"
        )
    if named and "temperature" not in settings:
        recipe = replace(recipe, temperature=loaded.scoring["temperature"])
    return recipe, FusionSettings(**loaded.scoring["log_fusion"])
