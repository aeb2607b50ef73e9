"""Classes of a predictor: their texts, good samples and identity. No torch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.errors import PictureError, ReferencesError, SettingsError
from winspect.inspector.class_state import ClassState, GoodSamples, Learned, Sample
from winspect.inspector.standing_apart import left_out_scores, warnings_of
from winspect.methods.dropping import lowest_outside
from winspect.methods.identity import Identity
from winspect.methods.method import Method, References
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.alignment import Aligned, Alignment
from winspect.pictures.decoding import decoding
from winspect.pictures.depth import check_bit_depth
from winspect.pictures.fingerprints import Fingerprint, fingerprint
from winspect.pictures.given import pictures_given
from winspect.pictures.pool import Pace, prepare_many
from winspect.pictures.roi import Roi
from winspect.pictures.tiles import Cut, Prepared, Preprocess
from winspect.system.arrays import Array, to_numpy
from winspect.system.forks import ForkGuard
from winspect.system.terminal import progress_bar

logger = logging.getLogger(__name__)

DEFAULT_CLASS = "object"
_LEVEL_SAMPLES = 8
_FITTED_BYTES = 512_000_000  # vectors of good samples that are fitted together

Picture = str | PathLike[str] | np.ndarray | Any
"""A file, an array, a torch tensor, a Pillow image, or a pair (name, picture): see :mod:`winspect.pictures.given`."""


class Classes(ABC):
    """What is known of the classes of a model, and how it is learnt.

    Attributes:
        engine: what runs the image tower.
        preprocess: pictures to tiles.
        method: embeddings to scores.
        grid_hw: rows and columns of the patch grid.
        bit_depth: of the camera, where its values stand unscaled in 16 bits; None for values of the whole range.
        measure: also measure brightness, sharpness, ... of each picture: ``Result.statistics``. It changes no score.
        roi: the region of interest; None for whole pictures.
        alignment: how pictures are registered to the first good sample of their class; None for pictures as they are.
    """

    engine: Any
    preprocess: Preprocess
    method: Method
    grid_hw: tuple[int, int]

    def __init__(
        self,
        *,
        plan: str = "auto",
        workers: int | None = None,
        bit_depth: int | None = None,
        roi: Roi | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        self._fork_guard, self.roi, self.alignment = ForkGuard(), roi, alignment
        self.measure = False
        self.plan, self.workers, self.bit_depth = plan, workers, check_bit_depth(bit_depth)
        self._texts: dict[str, Array] = {}
        self._good: dict[str, GoodSamples] = {}

    @abstractmethod
    def _identity(self) -> Identity:
        """What decides the scores, whatever the class."""

    @abstractmethod
    def _encode_text(self, category_name: str) -> Array:
        """The text of a class not met yet: (2, embedding), normal and anomalous, on the engine's device."""

    @abstractmethod
    def _encode(self, tiles: np.ndarray, needs: Needs) -> Embeddings:
        """Embeddings of normalised tiles, float32 (tiles, 3, height, width)."""

    def _embed(self, items: Sequence[Prepared], needs: Needs) -> Embeddings:
        """Embeddings of the tiles of pictures, one behind the other; their tiles have one size."""
        embeddings = self._encode(np.concatenate([item.tiles for item in items]), needs)
        insides = [item.inside for item in items if item.inside is not None]
        return replace(embeddings, inside=tuple(chain.from_iterable(insides))) if insides else embeddings

    def _on_device(self, array: np.ndarray) -> Array:
        """An array as what the embeddings are, where the embeddings are."""
        return array

    @property
    def recipe(self) -> Any:
        """The settings of WinCLIP's methods, a :class:`winspect.Recipe`; of another method the method itself."""
        return getattr(self.method, "recipe", self.method)

    @property
    def cut(self) -> Cut:
        """How pictures are read and cut into tiles; see :meth:`cut_of` where they are aligned."""
        return replace(self.method.cut, bit_depth=self.bit_depth, measure=self.measure, roi=self.roi)

    def cut_of(self, category_name: str = DEFAULT_CLASS) -> Cut:
        """How pictures of a class are read, aligned and cut."""
        return replace(self.cut, alignment=self._alignment_of(category_name))

    def _alignment_of(self, category_name: str) -> Alignment | None:
        good = self._good.get(class_key(category_name))
        return self.alignment if good is None else good.alignment

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores: of a class, with its good samples; of the model as such for None.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        if category_name is None:
            return self._identity()
        alignment = self._alignment_of(category_name)
        identity = self._identity().of_class(category_name, self.references_of(category_name))
        return replace(identity, alignment=None if alignment is None else alignment.words)

    def describe(self) -> dict[str, Any]:
        """What decides the scores, for results files: model, weights, recipe, engine, precision, prompts."""
        return self.identity().document()

    def reference(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        shots: int | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> int:
        """Show good samples of a class, in place of those shown before: it is scored few-shot from now on.

        Args:
            pictures: good samples, at least one: a folder, file or glob, or any number of pictures.
            category_name: the class they belong to.
            shots: how many of them to use, the first ones; None for all.
            bgr: the channels of arrays and tensors are BGR, as OpenCV has them.
            progress: show it on stderr, where that is a terminal.

        Returns:
            The number of samples used.

        Raises:
            ReferencesError: none, fewer than ``shots``, or one of them cannot be read.
            SettingsError: the method takes no good samples.
            SourceError: a folder or glob without pictures.
        """
        self._fork_guard.check()
        self.method.check_good_samples(category_name, are_there=True)
        pictures = list(pictures_given(pictures, bgr=bgr))
        count = 1 if shots is None else shots
        if count < 1 or len(pictures) < count:
            raise ReferencesError(
                f"asked for {count} reference pictures of {category_name!r}, found {len(pictures)}; need at least one "
                "good sample, and as many as asked for"
            )
        used = pictures[:shots]
        fingerprints = tuple(fingerprint(picture) for picture in used)
        cut = replace(self.cut, alignment=self._aligning_to(used[0]))
        learned = self._learn(used, fingerprints, category_name, progress, cut)
        for warning in learned.warnings:
            logger.warning("reference picture %s", warning)

        def find_levels() -> tuple[float, ...]:
            samples = learned.samples or [*self._encode_samples(used[:_LEVEL_SAMPLES], cut, progress=False)]
            text = self._class_text(category_name)
            return tuple(self._level(samples, number, text) for number in range(len(samples)))

        self.forget(category_name)
        self._good[class_key(category_name)] = GoodSamples(
            learned.references, fingerprints, find_levels, learned.alignment
        )
        return len(used)

    def _aligning_to(self, picture: Picture) -> Alignment | None:
        """The alignment to a class's first good sample."""
        if self.alignment is None:
            return None
        try:
            with decoding(picture, bit_depth=self.bit_depth) as decoded:
                return self.alignment.to(decoded.image)
        except PictureError as error:
            raise ReferencesError(f"cannot use a reference picture: {error}") from error

    def _learn(
        self,
        pictures: Sequence[Picture],
        fingerprints: Sequence[Fingerprint],
        category_name: str,
        progress: bool,
        cut: Cut,
    ) -> Learned:
        """Encode good samples."""
        warnings: list[str] = []
        first: list[Sample] = []
        waiting: list[Sample] = []
        parts: list[References] = []
        names: list[str] = []
        left_out: list[float] = []

        def fit_waiting() -> None:
            references, apart = self._fit([sample.embeddings for sample in waiting], category_name)
            if self.method.joins:
                apart = left_out_scores(self.method, waiting, self._class_text(category_name))
            parts.append(references)
            names.extend(sample.name for sample in waiting)
            left_out.extend(apart)
            waiting.clear()

        aligned: list[Aligned] = []
        for sample in self._encode_samples(pictures, cut, warnings, aligned, progress=progress):
            refusal = None if first else self.method.samples_refusal(len(pictures), sample.embeddings)
            if refusal is not None:
                raise ReferencesError(f"{category_name!r}: {refusal}")
            if len(first) < _LEVEL_SAMPLES:
                first.append(sample)
            waiting.append(sample)
            if self.method.joins and sum(map(_bytes_of, waiting)) > _FITTED_BYTES:
                fit_waiting()
        if waiting:
            fit_waiting()
        references = self.method.join(parts) if len(parts) > 1 else parts[0]
        warnings += warnings_of(names, left_out)
        alignment = None if cut.alignment is None else cut.alignment.after(aligned[1:])
        return Learned(references, tuple(warnings), tuple(first), alignment)

    def _fit(self, samples: Sequence[Embeddings], category_name: str) -> tuple[References, list[float]]:
        try:
            return self.method.learn(samples)
        except ReferencesError as error:
            raise ReferencesError(f"{category_name!r}: {error}") from error

    def _encode_samples(
        self,
        pictures: Sequence[Picture],
        cut: Cut,
        warnings: list[str] | None = None,
        aligned: list[Aligned] | None = None,
        *,
        progress: bool,
    ) -> Iterator[Sample]:
        """Each sample in turn.

        Args:
            cut: how they are read, aligned and cut.
            warnings: gets a line for each that decoding warned of.
            aligned: gets how each was registered.
        """
        needs = self.method.needs(few_shot=True, maps=True)
        prepared = self._prepare(pictures, cut, angles=self.method.angles)
        for item in progress_bar(prepared, "references", len(pictures), shown=progress):
            if isinstance(item, PictureError):
                raise ReferencesError(f"cannot use a reference picture: {item}") from item
            if item.warning is not None and warnings is not None:
                warnings.append(f"{item.name}: {item.warning}")
            if item.alignment is not None and not item.alignment.aligned:
                reason = f"not aligned to the first ({item.alignment.reason}): leave it out"
                raise ReferencesError(f"cannot use a reference picture: {item.name}: {reason}, or choose another kind")
            if aligned is not None and item.alignment is not None:
                aligned.append(item.alignment)
            views = len(item.boxes) // len(set(item.boxes))
            sample = Sample(item.name, self._embed([item], needs), views, item.size_wh)
            if not sample.is_finite:
                reason = f"its vectors in {self.engine.precision} are not numbers: use precision fp32 or bf16, or check"
                raise ReferencesError(f"cannot use a reference picture: {item.name}: {reason} the weights")
            yield sample

    def _prepare(
        self,
        pictures: Iterable[Picture],
        cut: Cut,
        *,
        keep_rgb: bool = False,
        pace: Pace | None = None,
        angles: Callable[[int], Sequence[float]] | None = None,
    ) -> Iterator[Prepared | PictureError]:
        options: dict[str, Any] = {"keep_rgb": keep_rgb, "pace": pace, "angles": angles}
        threads = {"workers": 1, "ahead": 1} if self.plan == "serial" else {"workers": self.workers}
        return prepare_many(pictures, self.preprocess, cut, **options, **threads)

    def good_levels(self, category_name: str = DEFAULT_CLASS) -> tuple[float, ...]:
        """The largest map value of each of the first good samples, scored with the others: what good pictures reach.

        Nothing is encoded again, but for a large set that an earlier start encoded. Empty for zero-shot, for a single
        sample, and for a state that was taken.
        """
        good = self._good.get(class_key(category_name))
        return () if good is None else good.levels

    def _level(self, samples: Sequence[Sample], number: int, text: Array) -> float:
        others = self.method.fit([other.embeddings for other in samples if other is not samples[number]])
        sample, picture = samples[number].upright()
        found = self.method.score(sample, [picture], text=text, references=others)
        (scores,) = lowest_outside(found, sample, [picture], self.method.score_range[0])
        return 0.0 if scores.tile_maps is None else scores.upsampling.highest(scores.tile_maps, samples[number].size_wh)

    def references_of(self, category_name: str = DEFAULT_CLASS) -> tuple[Fingerprint, ...]:
        """Names and hashes of the good samples a class is scored with, in order; none for zero-shot."""
        good = self._good.get(class_key(category_name))
        return () if good is None else good.samples

    def forget(self, category_name: str = DEFAULT_CLASS) -> None:
        """Drop the references of a class: it is scored zero-shot again."""
        self._good.pop(class_key(category_name), None)

    def drop_class(self, category_name: str = DEFAULT_CLASS) -> None:
        """Drop all that is kept of a class, its text too: it is encoded again when it is next asked for."""
        self.forget(category_name)
        self._texts.pop(self._text_key(category_name), None)

    def state_of(self, category_name: str = DEFAULT_CLASS) -> ClassState:
        """What the class is scored with, for :meth:`take` of the same model elsewhere.

        The arrays may be the predictor's memory: do not write to them.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        text = to_numpy(self._class_text(category_name))
        good = self._good.get(class_key(category_name))
        return (
            ClassState(text)
            if good is None
            else ClassState(text, good.references.map(to_numpy), good.samples, good.alignment)
        )

    def take(self, category_name: str, state: ClassState) -> None:
        """Score a class from now on as the predictor does that the state is of; nothing is encoded.

        Args:
            category_name: the class; what was known of it is replaced.
            state: from a predictor of the same model, weights and recipe: the same :meth:`identity` but for engine and
                device. With the same engine and device, too, every score and map is bit for bit the same.

        Raises:
            SettingsError: the method needs other vectors of the good samples than the state has.
        """
        key = class_key(category_name)
        if state.references is not None:
            missing = sorted(self.method.kept - set(state.references.arrays))
            if missing:
                raise SettingsError(
                    f"the state of {category_name!r} has no {', '.join(missing)}, which recipe {self.method.name} "
                    "needs; take it from a predictor of the same recipe"
                )
        self.forget(key)
        self._texts[self._text_key(category_name)] = self._on_device(state.text)
        if state.references is not None:
            references = state.references.map(self._on_device)
            self._good[key] = GoodSamples(references, state.samples, alignment=state.alignment)

    def prepare_class(self, category_name: str = DEFAULT_CLASS) -> None:
        """Encode the prompts of a class now (or read them from the cache) instead of at its first picture.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
            ReferencesError: the method needs good samples, and the class has none.
        """
        self._class_text(category_name)
        self.method.check_good_samples(category_name, are_there=class_key(category_name) in self._good)

    def _class_text(self, category_name: str) -> Array:
        """(2, embedding), normal and anomalous, on the engine's device."""
        self._fork_guard.check()
        key = self._text_key(category_name)
        if key not in self._texts:
            read = self._encode_text if self.method.reads_text else self._no_text
            self._texts[key] = read(category_name)
        return self._texts[key]

    def _no_text(self, category_name: str) -> Array:
        return self._on_device(np.zeros((2, 0), np.float32))

    def _text_key(self, category_name: str) -> str:
        """Key of a class's text: names with the same prompts share it."""
        return class_key(category_name)


def _bytes_of(sample: Sample) -> int:
    return sum(patches.nbytes for patches in sample.embeddings.patches.values())
