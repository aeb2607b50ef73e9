"""WinCLIP: what a user holds. Load once, show it good samples if there are any, predict."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from winspect._version import __version__
from winspect.embeddings import Embeddings
from winspect.encoder import ImageTower
from winspect.engines import Engine, choose
from winspect.errors import (
    EngineBuildError,
    PictureError,
    PrecisionError,
    ReferencesError,
    SettingsError,
    WeightsCorruptError,
)
from winspect.images import Prepared, prepare, prepare_many
from winspect.judge import PictureScores, References, judge
from winspect.outcome import result_of, warn_if_constant
from winspect.prompts import PromptEnsemble, check_class_name
from winspect.recipes import Recipe, get_recipe
from winspect.results import Result
from winspect.starting import Starter, check_plan, own_settings
from winspect.text import TextCache, TextEncoder, TextTower
from winspect.thresholds import Calibration, calibrate
from winspect.thresholds.fingerprints import Fingerprint, fingerprint
from winspect.weights import DEFAULT_MODEL, TINY, cache_folder, load
from winspect.windows import window_indices

logger = logging.getLogger(__name__)

DEFAULT_CLASS = "object"

PRECISION_VARIABLE = "WINSPECT_PRECISION"
"""The environment variable that names the precision where the caller does not."""

Picture = str | PathLike[str] | np.ndarray | Any
"""A file, an array (see :func:`winspect.images.read_rgb`), or a Pillow image."""


_ONE_PICTURE = (str, PathLike, bytes, np.ndarray, Image.Image)


class WinCLIP:
    """Zero-shot and few-shot anomaly detection with a frozen CLIP.

    Args:
        model: an open_clip architecture, or ``winspect-tiny``, the bundled model.
        weights: a pretrained tag of that architecture or a weights file; None for the model's default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``npu:N``.
        precision: what the image tower runs in: ``fp32``, ``bf16``, ``fp16`` or ``int8``, which must pass the precision
            gate (see :mod:`winspect.gate`). None is fp32, or bf16 where the CPU has it natively and these weights have
            passed the gate on this machine; ``auto`` asks the gate now, once. Text and scores are always float32.
        engine: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        plan: ``serial`` (a tile per pass, decoding in between), ``tile-batch`` (tiles of several pictures together,
            decoding beside them), ``prefetch`` (the same, and an Ascend NPU prefetches weights); auto is tile-batch.
        graphs: capture passes as graphs for fixed batch sizes (CUDA, Ascend; see docs/ascend.md).
        gate: ``check``, or ``skip`` to run int8 whatever it does to scores; it is a warning then.
        recipe: ``paper``, ``tiles``, ``log`` or a :class:`~winspect.recipes.Recipe`; None for the model's default
            (``paper``; ``log`` for the bundled model).
        settings: single settings of the recipe to replace, as in ``{"temperature": 0.05}``.
        prompts: own states and templates, or a YAML file of them.
        batch_size: tiles per pass of the image tower at most; None for the device's default.
        workers: threads that decode and resize; None for one per core, at most 8.
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
        recipe: str | Recipe | None = None,
        settings: Mapping[str, Any] | None = None,
        prompts: PromptEnsemble | str | PathLike[str] | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        int8_pictures: Iterable[Picture] | None = None,
        cache_dir: str | PathLike[str] | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("workers", workers)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise SettingsError(f"{name}: got {number!r}, need a whole number from 1")
        check_plan(plan, gate)
        precision = precision or os.environ.get(PRECISION_VARIABLE)
        choice = choose(engine, precision or "auto", device)
        if int8_pictures is not None and choice.precision != "int8":
            raise PrecisionError(
                f"got int8_pictures with precision {choice.precision}: they calibrate int8 alone; ask for precision "
                "int8, or leave them out"
            )
        for reason in choice.reasons:
            logger.info("%s", reason)
        chosen = get_recipe(recipe or ("log" if model == TINY else "paper"), settings)
        self.prompts = prompts if isinstance(prompts, PromptEnsemble) else _read_prompts(prompts)
        self.plan = plan
        self.workers = workers

        loaded = load(model, weights, cache_dir=cache_dir)
        self.model, self.weights_sha256, self.preprocess = loaded.name, loaded.sha256, loaded.preprocess
        self.weights = loaded.tag
        visual: Any = loaded.model.visual
        tower = ImageTower(visual).eval()
        self.grid_hw = tower.grid_hw
        self.recipe, self._fusion = own_settings(chosen, loaded, settings or {}, named=not isinstance(recipe, Recipe))
        for scale in self.recipe.scales:
            window_indices(self.grid_hw, scale, self.recipe.stride)  # refuses what does not fit, before any picture
        # One file can serve two architectures that differ in their activation alone: OpenAI's QuickGELU or GELU.
        activation = type(visual.transformer.resblocks[0].mlp.gelu).__name__
        identity = f"{self.weights_sha256}/{self.model}/{activation}"
        cache = cache_folder(cache_dir)

        def load_text_tower() -> TextTower:
            # Loaded again, not kept: its weights are half of the model's, and a class is encoded once.
            again = load(model, weights, cache_dir=cache_dir, offline=True)
            if again.sha256 != self.weights_sha256:
                raise WeightsCorruptError(f"{again.path}: the weights have changed while they were in use; start again")
            return TextTower(again.model, again.tokenizer).eval()

        self._text = TextEncoder(load_text_tower, self.prompts, TextCache(cache / "text", identity))
        self._references: dict[str, References] = {}
        self._shown: dict[str, tuple[Fingerprint, ...]] = {}
        self._may_fall_back = engine == "auto" and not device.startswith("openvino:")  # named, if by its device
        self._starter = Starter(
            choice=choice,
            tower=tower,
            identity=identity,
            folder=cache,
            preprocess=self.preprocess,
            recipe=self.recipe,
            prompts=self.prompts,
            judge=self._judge_for_the_gate,
            batch_size=batch_size,
            plan=plan,
            graphs=graphs,
            int8_tiles=None if int8_pictures is None else self._int8_tiles(int8_pictures),
        )
        try:
            self.engine, self.gate = self._starter.start(precision, gate)
        except EngineBuildError as error:
            self.engine, self.gate = self._fall_back(error), None

    def _int8_tiles(self, pictures: Iterable[Picture]) -> np.ndarray:
        tiles = []
        for item in self._prepare(pictures):
            if isinstance(item, PictureError):
                raise ReferencesError(f"cannot calibrate int8 on a picture: {item}") from item
            tiles.append(item.tiles)
        return np.concatenate(tiles) if tiles else np.empty((0, 3, 1, 1), np.float32)

    def _judge_for_the_gate(self, embeddings: Embeddings) -> list[PictureScores]:
        text = self._averaged_text(DEFAULT_CLASS).to(embeddings.image.device)
        return judge(embeddings, text, None, self.recipe, self.grid_hw, [1] * len(embeddings.image), self._fusion)

    def describe(self) -> dict[str, Any]:
        """What decides the scores, for results files: model, weights, recipe, engine, precision, prompts."""
        return {
            "winspect": __version__,
            "model": self.model,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "recipe": asdict(self.recipe),
            "prompts": asdict(self.prompts),
            "engine": self.engine.name,
            "precision": self.precision,
            "device": self.device.type,
        }

    @property
    def engine_name(self) -> str:
        """What runs the image tower."""
        return self.engine.name

    @property
    def precision(self) -> str:
        """What the image tower runs in."""
        return self.engine.precision

    @property
    def device(self) -> torch.device:
        """Where the image tower runs."""
        return self.engine.device

    def reference(
        self, pictures: Iterable[Picture] | Picture, category_name: str = DEFAULT_CLASS, *, shots: int | None = None
    ) -> int:
        """Show good samples of a class, in place of those shown before: it is judged few-shot from now on.

        Args:
            pictures: good samples, at least one; a single one need not be in a list.
            category_name: the class they belong to.
            shots: how many of them to use, the first ones; None for all.

        Returns:
            The number of samples used.

        Raises:
            ReferencesError: none, fewer than ``shots``, or one of them cannot be read.
        """
        key = check_class_name(category_name)
        pictures = [pictures] if isinstance(pictures, _ONE_PICTURE) else list(pictures)
        wanted = 1 if shots is None else shots
        if wanted < 1 or len(pictures) < wanted:
            raise ReferencesError(
                f"asked for {wanted} reference pictures of {category_name!r}, found {len(pictures)}; need at least one "
                "good sample, and as many as asked for"
            )
        parts = []
        for item in self._prepare(pictures[:shots]):
            if isinstance(item, PictureError):
                raise ReferencesError(f"cannot use a reference picture: {item}") from item
            parts.append(self._encode(item.tiles, patches=True))
        self._references[key] = References.collect(parts)
        self._shown[key] = tuple(fingerprint(picture) for picture in pictures[:shots])
        return len(pictures[:shots])

    def references_of(self, category_name: str = DEFAULT_CLASS) -> tuple[Fingerprint, ...]:
        """Names and hashes of the good samples a class is judged with, in the order shown; none for zero-shot."""
        return self._shown.get(check_class_name(category_name), ())

    def calibrate(self, pictures: Iterable[Picture], category_name: str = DEFAULT_CLASS, **options: Any) -> Calibration:
        """Thresholds from good pictures: see :func:`winspect.thresholds.calibrate`, whose options these are."""
        return calibrate(self, pictures, category_name, **options)

    def prepare_class(self, category_name: str = DEFAULT_CLASS) -> None:
        """Encode the prompts of a class now (or read them from the cache) instead of at its first picture.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        self._class_text(category_name)

    def prepare_engine(self, category_name: str = DEFAULT_CLASS, *, maps: bool = True) -> None:
        """Build what the engine needs for a class now instead of at its first picture; ``maps`` as in `predict_many`.

        From then on :meth:`describe` says what runs, also where the engine had to be replaced.

        Raises:
            EngineBuildError: the engine was asked for by name and cannot be built.
        """
        patches = check_class_name(category_name) in self._references
        try:
            scales = self.recipe.scales if maps or self._scores_need_maps(category_name) else ()
            self.engine.prepare(scales=scales, stride=self.recipe.stride, patches=patches)
        except EngineBuildError as error:
            self.engine = self._fall_back(error)

    def forget(self, category_name: str = DEFAULT_CLASS) -> None:
        """Drop the references of a class: it is judged zero-shot again."""
        self._references.pop(check_class_name(category_name), None)
        self._shown.pop(check_class_name(category_name), None)

    def predict(self, picture: Picture, category_name: str = DEFAULT_CLASS, *, keep_picture: bool = False) -> Result:
        """Judge one picture.

        Args:
            picture: a file, a Pillow image, or an array (height, width[, 3]) in RGB order.
            category_name: what the part is called, as in ``"metal nut"``.
            keep_picture: keep the decoded picture in the result.

        Raises:
            PictureError: the picture cannot be used.
            ClassNameError: the class name cannot be put into a prompt.
        """
        text = self._class_text(category_name)
        item = prepare(picture, self.preprocess, keep_rgb=keep_picture, **self._cut)
        (result,) = self._judge([item], category_name, text)
        if result.error is not None:
            raise result.error
        return result

    def predict_many(
        self,
        pictures: Iterable[Picture],
        category_name: str = DEFAULT_CLASS,
        *,
        keep_pictures: bool = False,
        maps: bool = True,
    ) -> Iterator[Result]:
        """Judge any number of pictures, in order, in constant memory.

        Decoding and resizing of the next pictures overlap with the encoder. A picture that cannot be used gives a
        result with an ``error``; the others go on.

        Args:
            maps: False for scores alone. Zero-shot scores of recipes ``paper`` and ``tiles`` need no windows, which
                are eleven twelfths of the work; other scores need the maps, and results then have them all the same.

        Raises:
            ClassNameError: at once, before any picture is read.
        """
        return self._stream(pictures, category_name, self._class_text(category_name), keep_pictures, maps)

    def _stream(
        self, pictures: Iterable[Picture], category_name: str, text: torch.Tensor, keep_pictures: bool, maps: bool
    ) -> Iterator[Result]:
        waiting: list[Prepared | PictureError] = []
        tiles = 0
        maps = maps or self._scores_need_maps(category_name)
        enough = self.engine.tiles_per_pass(self.recipe.scales if maps else ())
        for item in self._prepare(pictures, keep_rgb=keep_pictures):
            waiting.append(item)
            tiles += 1 if isinstance(item, PictureError) else len(item.tiles)  # so that errors never pile up
            if tiles >= enough:
                yield from self._judge(waiting, category_name, text, maps=maps)
                waiting, tiles = [], 0
        yield from self._judge(waiting, category_name, text, maps=maps)

    def _scores_need_maps(self, category_name: str) -> bool:
        return self.recipe.fusion != "sum" or check_class_name(category_name) in self._references

    @property
    def _cut(self) -> dict[str, Any]:
        """How pictures are cut into tiles, as options of :func:`winspect.images.prepare`."""
        return {"recipe": "tiles" if self.recipe.tiling else "paper", "stride_fraction": self.recipe.tile_stride}

    def _prepare(self, pictures: Iterable[Picture], *, keep_rgb: bool = False) -> Iterator[Prepared | PictureError]:
        threads = {"workers": 1, "ahead": 1} if self.plan == "serial" else {"workers": self.workers}
        return prepare_many(pictures, self.preprocess, keep_rgb=keep_rgb, **threads, **self._cut)

    def _class_text(self, category_name: str) -> torch.Tensor:
        return self._averaged_text(category_name).to(self.device)

    def _averaged_text(self, category_name: str) -> torch.Tensor:
        text = self._text(category_name)
        return text.raw if self.recipe.text_average == "raw" else text.normalised

    def _encode(self, tiles: np.ndarray, *, patches: bool, maps: bool = True) -> Embeddings:
        options: dict[str, Any] = {
            "scales": self.recipe.scales if maps else (),
            "stride": self.recipe.stride,
            "patches": patches,
        }
        try:
            return self.engine.encode(torch.from_numpy(tiles), **options)
        except EngineBuildError as error:
            self.engine = self._fall_back(error)
            return self.engine.encode(torch.from_numpy(tiles), **options)

    def _fall_back(self, error: EngineBuildError) -> Engine:
        if not self._may_fall_back:
            raise error
        return self._starter.fall_back(error)

    def _judge(
        self,
        items: Sequence[Prepared | PictureError],
        category_name: str,
        text: torch.Tensor,
        *,
        maps: bool = True,
    ) -> list[Result]:
        """Results of prepared pictures, in order; their tiles share the encoder's batches."""
        usable = [item for item in items if isinstance(item, Prepared)]
        scores = iter(self._score(usable, check_class_name(category_name), text, maps) if usable else ())
        results = [
            Result(item.path, category_name, error=item)
            if isinstance(item, PictureError)
            else result_of(item, category_name, next(scores), self.precision, maps=maps)
            for item in items
        ]
        warn_if_constant(results)
        return results

    def _score(self, items: Sequence[Prepared], key: str, text: torch.Tensor, maps: bool) -> list[PictureScores]:
        references = self._references.get(key)
        tiles = np.concatenate([item.tiles for item in items])
        embeddings = self._encode(tiles, patches=references is not None, maps=maps)
        with torch.inference_mode():
            counts = [len(item.tiles) for item in items]
            return judge(embeddings, text, references, self.recipe, self.grid_hw, counts, self._fusion)


def _read_prompts(path: str | PathLike[str] | None) -> PromptEnsemble:
    return PromptEnsemble() if path is None else PromptEnsemble.from_yaml(Path(path))
