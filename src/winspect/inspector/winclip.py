"""WinCLIP: load once, show it good samples if there are any, predict."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.engines.options import EngineOptions, check_count
from winspect.errors import (
    ArchitectureError,
    EngineBuildError,
    MissingExtraError,
    PictureError,
    ReferencesError,
    SettingsError,
)
from winspect.inspector.base import DEFAULT_CLASS, Picture
from winspect.inspector.prompted import Prompted
from winspect.methods.batch_method import BatchMethod
from winspect.methods.identity import Identity
from winspect.methods.method import CutPicture, Method
from winspect.methods.registry import default_recipe, get_method
from winspect.methods.winclip.prompts import PromptEnsemble, class_key
from winspect.methods.winclip.recipes import Recipe
from winspect.pictures.alignment import Alignment, Kind
from winspect.pictures.given import pictures_given
from winspect.pictures.roi import Roi
from winspect.system.installation import install_command
from winspect.weights import DEFAULT_MODEL, cache_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from winspect.backbones.loading import Tower
    from winspect.engines.base import Engine
    from winspect.engines.choice import Choice
    from winspect.engines.gate import GateScores

__all__ = ["DEFAULT_CLASS", "Picture", "WinCLIP"]

logger = logging.getLogger(__name__)


class WinCLIP(Prompted):
    """Zero-shot and few-shot anomaly detection with a frozen CLIP.

    Args:
        model: an open_clip architecture; ``timm/NAME``, a vision transformer of timm; ``winspect-tiny``, the bundled
            model; ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, weights with an ``open_clip_config.json`` (a folder
            also with timm's ``config.json``).
        weights: a pretrained tag of that architecture or a weights file; None for the model's default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``npu:N``.
        precision: what the image tower runs in: ``fp32``, ``bf16``, ``fp16`` or ``int8``, which must pass the precision
            gate (:mod:`winspect.engines.gate`); ``auto`` is bf16 where the CPU has it natively and these weights pass
            the gate, which is asked once, else fp32. None is the default that was set for this machine (see
            :func:`winspect.system.preferences.default_precision`), else fp32. Text and scores are always float32.
        engine: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        plan: ``serial`` (a tile per pass, decoding in between), ``tile-batch`` (tiles of several pictures together,
            decoding beside them), ``prefetch`` (the same, and an Ascend NPU prefetches weights); auto is tile-batch.
        graphs: capture passes as graphs for fixed batch sizes (CUDA, Ascend; see docs/ascend.md).
        gate: ``check``, or ``skip`` to run int8 whatever it does to scores; it is a warning then.
        recipe: ``paper``, ``tiles``, ``log``, ``fused``, another name in :data:`winspect.methods.registry.METHODS`, a
            :class:`~winspect.Recipe` or a :class:`~winspect.methods.method.Method`; None for the model's default
            (``paper``; ``log`` for the bundled model, ``memory`` for ``timm/NAME``).
        settings: single settings of the recipe to replace, as in ``{"temperature": 0.05}``.
        prompts: states and templates, a YAML file of them, or the name of a set (``winclip``, the default, or
            ``accurate-winclip``: see :data:`winspect.methods.winclip.prompts.PROMPT_SETS`).
        batch_size: tiles per pass of the image tower at most; None for the device's default.
        workers: threads that decode and resize; None for one per core, at most 8.
        bit_depth: of the camera, 9 to 16, where its values stand unscaled in 16-bit files or arrays, as those of 12-bit
            cameras do: they are scaled by its range, and larger values are refused. None for values of the whole range.
        roi: the region of interest, or a file of it: a mask (PNG), or polygons of LabelMe or COCO. What lies outside
            takes no part in scores, maps, calibrations or good samples. None for whole pictures.
        alignment: pictures are registered to the first good sample of their class before they are scored:
            ``translation``, ``euclidean`` (and a turn), ``affine``, or a full
            :class:`~winspect.pictures.alignment.Alignment`. Needs OpenCV. None for pictures as they are.
        int8_pictures: at least 8 pictures of the parts to be inspected, to calibrate int8 on; None for a bundled set.
        cache_dir: where downloaded weights and text embeddings are kept; None for the user's cache folder.

    Raises:
        WinspectError: see :mod:`winspect.errors`; nothing is ever replaced in silence.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        precision: str | None = None,
        engine: str = "auto",
        plan: str = "auto",
        graphs: bool = False,
        gate: str = "check",
        recipe: str | Recipe | Method | None = None,
        settings: Mapping[str, Any] | None = None,
        prompts: PromptEnsemble | str | PathLike[str] | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        bit_depth: int | None = None,
        roi: Roi | str | PathLike[str] | None = None,
        alignment: Alignment | Kind | None = None,
        int8_pictures: Iterable[Picture] | None = None,
        cache_dir: str | PathLike[str] | None = None,
    ) -> None:
        _check_installation()
        from winspect.engines.choice import choose_here  # not at the top: a bundle is loaded without torch

        check_count("workers", workers)
        options = EngineOptions(engine, precision, device, plan, graphs, gate, batch_size, int8_pictures)
        choice = choose_here(options)
        self.reasons = choice.reasons
        for reason in choice.reasons:
            logger.info("%s", reason)
        method = get_method(recipe or default_recipe(model), settings)
        self.prompts = prompts if isinstance(prompts, PromptEnsemble) else PromptEnsemble.read(prompts)
        roi = roi if isinstance(roi, Roi | None) else Roi.load(roi)
        alignment = alignment if isinstance(alignment, Alignment | None) else Alignment(alignment)
        super().__init__(plan=plan, workers=workers, bit_depth=bit_depth, roi=roi, alignment=alignment)
        self._source = model, weights, cache_dir
        tower = self._load(method)
        self._start(options, choice, tower)

    def _load(self, method: Method) -> Tower:
        """Load the weights, and give the method what they say of it; returns the image tower."""
        from winspect.backbones.loading import load_tower

        model, weights, cache_dir = self._source
        loaded = load_tower(model, weights, cache_dir=cache_dir)
        self.model, self.weights_sha256 = loaded.name, loaded.sha256
        self.weights, self.activation, self.remarks = loaded.tag, loaded.activation, loaded.remarks
        for remark in loaded.remarks:
            logger.warning("%s", remark)
        tower = loaded.tower
        self.method = method.for_model(loaded.scoring, loaded.name, depth=tower.depth, patch=tower.patch)
        self.preprocess = self.method.preprocess(loaded.preprocess, tower.patch)
        self.grid_hw = tower.grid_hw
        tower.check(self.method.needs(few_shot=True, maps=True))  # before any picture
        if self.method.reads_text and not tower.has_text:
            raise ArchitectureError(
                f"recipe {self.method.name} compares pictures with text, and {self.model} has no text tower; choose "
                "recipe memory, subspace or mutual, or a CLIP such as ViT-B-16-plus-240"
            )
        # One file can serve two architectures that differ in their activation alone: OpenAI's QuickGELU or GELU.
        self._weights_key = f"{self.weights_sha256}/{self.model}/{self.activation}"
        self._cache_folder = cache_folder(cache_dir)
        self._read_texts(self._weights_key)
        return tower

    def _start(self, options: EngineOptions, choice: Choice, tower: Tower) -> None:
        from winspect.engines.starter import Starter

        self._starter = Starter(
            options=options,
            choice=choice,
            tower=tower,
            needs=self.method.needs(few_shot=True, maps=True),
            identity=self._weights_key,
            folder=self._cache_folder,
            preprocess=self.preprocess,
            score=self._score_for_gate,
            scored_with={"recipe": self.method.document(), "prompts": asdict(self.prompts)},
            int8_tiles=None if options.int8_pictures is None else self._int8_tiles(options.int8_pictures),
        )
        self.engine, self.gate = self._starter.start()

    def save(self, folder: str | PathLike[str]) -> Path:
        """Save the few-shot state: how the model was made, and the classes that have good samples, without weights.

        :meth:`load` scores with it as this model does, and reads no good sample again. A saved state that is there is
        replaced. Good samples are kept as vectors, with their names and hashes, not as pictures.

        Raises:
            OutputError: the folder holds something else, or cannot be written.
        """
        from winspect.inspector.saving import SavedState, write_state

        model, weights, _ = self._source
        place = weights if weights is None or not Path(weights).is_file() else Path(weights).resolve()
        classes = {name: self.state_of(name) for name in self._good}
        weights = None if place is None else str(place)
        return write_state(SavedState(self.identity(), model, weights, classes, self.roi, self.alignment), folder)

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        *,
        weights: str | PathLike[str] | None = None,
        device: str | None = None,
        engine: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
    ) -> Any:
        """Load what :meth:`save` saved, or an edge bundle of ``winspect export``, which needs no torch.

        Args:
            folder: of either.
            weights: the tag or the file, where it has another place than when the state was saved.
            device, engine: as of :class:`WinCLIP`; None for ``auto``, and for those of the state where its precision is
                not fp32: another engine would round otherwise.
            cache_dir: as of :class:`WinCLIP`.

        Returns:
            Of a state a :class:`WinCLIP`; of a bundle a :class:`~winspect.inspector.edge.EdgePredictor`, which has
            weights, device and engine of its own.

        Raises:
            BundleError: neither is there, it is damaged or of a newer release; or the weights are others.
            MissingExtraError: what it needs is not installed.
            SettingsError: options that a bundle does not have.
        """
        from winspect.inspector.saving import STATE_FILE, read_state

        options = {"weights": weights, "device": device, "engine": engine, "cache_dir": cache_dir}
        chosen = {name: value for name, value in options.items() if value is not None}
        if not (Path(folder) / STATE_FILE).is_file():
            from winspect.inspector.edge import load_bundle

            if chosen:
                raise SettingsError(f"{folder}: not a saved state, and a bundle has its own {', '.join(chosen)}")
            return load_bundle(folder)
        saved = read_state(folder)
        made = saved.identity
        if made.precision != "fp32":
            chosen = {"device": made.device, "engine": made.engine, **chosen}
        parts: dict[str, Any] = {
            "recipe": made.recipe,
            "prompts": made.prompts,
            "bit_depth": made.bit_depth,
            "roi": saved.roi,
            "alignment": saved.alignment,
        }
        loaded = cls(saved.model, **{"weights": saved.weights, "precision": made.precision, **parts, **chosen})
        saved.check(loaded.identity())
        for name, state in saved.classes.items():
            loaded.take(name, state)
        return loaded

    def _int8_tiles(self, pictures: Iterable[Picture]) -> np.ndarray:
        tiles = []
        for item in self._prepare(pictures_given(pictures), self.cut):
            if isinstance(item, PictureError):
                raise ReferencesError(f"cannot calibrate int8 on a picture: {item}") from item
            if item.warning is not None:
                logger.warning("int8 picture %s: %s", item.name, item.warning)
            tiles.append(item.tiles)
        return np.concatenate(tiles) if tiles else np.empty((0, 3, 1, 1), np.float32)

    def _score_for_gate(self, engine: Engine, tiles: Tensor) -> GateScores:
        import torch

        from winspect.engines.gate import GateScores, good_pictures

        needs = self.method.needs(few_shot=not self.method.zero_shot, maps=True)
        text = torch.from_numpy(self._averaged_text(DEFAULT_CLASS)) if self.method.reads_text else torch.zeros(2, 0)
        references = None
        if not self.method.zero_shot:
            goods = [torch.from_numpy(self.preprocess(picture)[None]) for picture in good_pictures()]
            references = self.method.fit([engine.encode(good, needs) for good in goods])
        given: dict[str, Any] = {"text": text.to(engine.device), "references": references}
        embedded = (engine.encode(tile, needs) for tile in tiles.split(1))
        if isinstance(self.method, BatchMethod):
            batch = self.method.batch(len(tiles))
            for tile in embedded:
                batch.add(tile)
            scores = batch.scores().pictures
        else:
            scores = [found for tile in embedded for found in self.method.score(tile, [CutPicture(1)], **given)]
        maps = [found.tile_maps[0] for found in scores if found.tile_maps is not None]
        return GateScores(np.array([found.score for found in scores]), np.stack(maps))

    def _identity(self) -> Identity:
        return Identity(
            model=self.model,
            weights=self.weights,
            weights_sha256=self.weights_sha256,
            activation=self.activation,
            recipe=self.method,
            prompts=self.prompts,
            engine=self.engine.name,
            precision=self.precision,
            device=self.device.type,
            bit_depth=self.bit_depth,
            roi=None if self.roi is None else self.roi.words,
            alignment=None if self.alignment is None else self.alignment.words,
        )

    @property
    def device(self) -> torch.device:
        """Where the image tower runs."""
        return self.engine.device

    def prepare_engine(self, category_name: str = DEFAULT_CLASS, *, maps: bool = True) -> None:
        """See :meth:`Predictor.prepare_engine`; an engine that was not asked for by name may be replaced."""
        few_shot = class_key(category_name) in self._good
        self.prepare_needs(self.method.needs(few_shot=few_shot, maps=maps))

    def prepare_needs(self, needs: Needs) -> None:
        """:meth:`prepare_engine` for what is needed of the tower."""
        self._fork_guard.check()
        try:
            self.engine.prepare(needs)
        except EngineBuildError as error:
            self.engine = self._starter.fall_back(error)

    def _encode_text(self, category_name: str) -> torch.Tensor:
        return self._on_device(self._averaged_text(category_name))

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        import torch

        return torch.tensor(array, device=self.device)  # a copy: the array may be read-only, or shared with others

    def _encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        import torch

        try:
            return self.engine.encode(torch.from_numpy(tiles), needs)
        except EngineBuildError as error:
            self.engine = self._starter.fall_back(error)
            return self.engine.encode(torch.from_numpy(tiles), needs)


def _check_installation() -> None:
    missing = [name for name in ("torch", "open_clip") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{' and '.join(missing)} not installed: {install_command('full')}; an edge bundle needs neither "
            "(WinCLIP.load, predict --bundle)"
        )
