"""Judging pictures with what embeds them: shared by :class:`winspect.WinCLIP` and by edge bundles. No torch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from winspect.backbones.embeddings import Embeddings
from winspect.calibration import Calibration
from winspect.errors import PictureError, ReferencesError, SettingsError
from winspect.inspector.calibrating import calibrate
from winspect.inspector.outcome import result_of, warn_if_constant
from winspect.inspector.references import Learned
from winspect.inspector.state import ClassState
from winspect.methods.identity import Identity
from winspect.methods.result import Result
from winspect.methods.winclip.fusion import FusionSettings
from winspect.methods.winclip.judge import PictureScores, References, judge
from winspect.methods.winclip.prompts import class_key
from winspect.methods.winclip.recipes import Recipe
from winspect.pictures.depth import check_bit_depth
from winspect.pictures.fingerprints import Copies, Fingerprint, fingerprint
from winspect.pictures.given import picture_given, pictures_given
from winspect.pictures.pool import Pace, prepare_many
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Cut, Prepared, Preprocess, last_tile_count, prepare
from winspect.system.arrays import Array, to_numpy
from winspect.system.forks import ForkGuard
from winspect.system.progress import progress_bar

logger = logging.getLogger(__name__)

DEFAULT_CLASS = "object"
_LEVEL_SAMPLES = 8

Picture = str | PathLike[str] | np.ndarray | Any
"""A file, an array, a torch tensor, a Pillow image, or a pair (name, picture): see :mod:`winspect.pictures.given`."""


class Predictor(ABC):
    """Zero-shot and few-shot anomaly detection, whatever embeds the pictures.

    Attributes:
        engine: what runs the image tower.
        preprocess: pictures to tiles.
        recipe: embeddings to scores.
        grid_hw: rows and columns of the patch grid.
        bit_depth: of the camera, where its values stand unscaled in 16 bits; None for values of the whole range.
    """

    engine: Any
    preprocess: Preprocess
    recipe: Recipe
    grid_hw: tuple[int, int]

    def __init__(self, *, plan: str = "auto", workers: int | None = None, bit_depth: int | None = None) -> None:
        self._fork_guard = ForkGuard()
        self.plan, self.workers, self.bit_depth = plan, workers, check_bit_depth(bit_depth)
        self._fusion: FusionSettings | None = None
        self._texts: dict[str, Array] = {}
        self._references: dict[str, References] = {}
        self._samples: dict[str, Callable[[], Sequence[Embeddings]]] = {}
        self._levels: dict[str, tuple[float, ...]] = {}
        self._shown: dict[str, tuple[Fingerprint, ...]] = {}
        self._copies: tuple[tuple[Fingerprint, ...], Copies] = (), Copies(())

    @abstractmethod
    def _identity(self) -> Identity:
        """What decides the scores, whatever the class."""

    @abstractmethod
    def _encode_text(self, category_name: str) -> Array:
        """The text of a class not met yet: (2, embedding), normal and anomalous, on the engine's device."""

    @abstractmethod
    def _encode(self, tiles: np.ndarray, *, patches: bool, maps: bool = True) -> Embeddings:
        """Embeddings of normalised tiles, float32 (tiles, 3, height, width)."""

    def _on_device(self, array: np.ndarray) -> Array:
        """An array as what the embeddings are, where the embeddings are."""
        return array

    def identity(self, category_name: str | None = None) -> Identity:
        """What decides the scores: of a class, with its good samples; of the model as such for None.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        if category_name is None:
            return self._identity()
        return self._identity().of_class(category_name, self.references_of(category_name))

    def describe(self) -> dict[str, Any]:
        """What decides the scores, for results files: model, weights, recipe, engine, precision, prompts."""
        return self.identity().document()

    def __repr__(self) -> str:
        identity, few = self.identity(), len(self._shown)
        samples = f", good samples of {few} class{'es' * (few > 1)}" if few else ""
        return (
            f"{type(self).__name__}({identity.model}, weights {identity.weights}, recipe {identity.recipe.name}, "
            f"{identity.precision} in {identity.engine} on {identity.device}{samples})"
        )

    @property
    def engine_name(self) -> str:
        """What runs the image tower."""
        return self.engine.name

    @property
    def precision(self) -> str:
        """What the image tower runs in."""
        return self.engine.precision

    @property
    def cut(self) -> Cut:
        """How pictures are read and cut into tiles."""
        return Cut(self.recipe.tiling, self.recipe.tile_stride, self.bit_depth)

    def reference(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        shots: int | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> int:
        """Show good samples of a class, in place of those shown before: it is judged few-shot from now on.

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
            SourceError: a folder or glob without pictures.
        """
        self._fork_guard.check()
        key = class_key(category_name)
        pictures = list(pictures_given(pictures, bgr=bgr))
        wanted = 1 if shots is None else shots
        if wanted < 1 or len(pictures) < wanted:
            raise ReferencesError(
                f"asked for {wanted} reference pictures of {category_name!r}, found {len(pictures)}; need at least one "
                "good sample, and as many as asked for"
            )
        used = pictures[:shots]
        shown = tuple(fingerprint(picture) for picture in used)
        learned = self._learn(used, shown, category_name, progress)
        for warning in learned.warnings:
            logger.warning("reference picture %s", warning)
        self.forget(category_name)
        self._references[key], self._shown[key] = learned.references, shown
        first = used[:_LEVEL_SAMPLES]
        self._samples[key] = lambda: learned.samples or self._encode_samples(first, progress=False)[0]
        return len(used)

    def _learn(
        self, pictures: Sequence[Picture], shown: Sequence[Fingerprint], category_name: str, progress: bool
    ) -> Learned:
        """Encode good samples; ``shown`` are their fingerprints."""
        parts, warnings = self._encode_samples(pictures, progress=progress)
        references = References.collect(parts)
        if self.recipe.tile_references == "same" and references.tiles is None:
            counts = ", ".join(str(len(part.image)) for part in parts)
            raise ReferencesError(
                f"the reference pictures of {category_name!r} have {counts} tiles, and tile_references is same: use "
                "pictures of one shape, or tile_references=pooled"
            )
        return Learned(references, tuple(warnings), tuple(parts[:_LEVEL_SAMPLES]))

    def _encode_samples(self, pictures: Sequence[Picture], *, progress: bool) -> tuple[list[Embeddings], list[str]]:
        """Each sample's embeddings, and a line for each that decoding warned of."""
        parts, warnings = [], []
        for item in progress_bar(self._prepare(pictures), "references", len(pictures), shown=progress):
            if isinstance(item, PictureError):
                raise ReferencesError(f"cannot use a reference picture: {item}") from item
            if item.warning is not None:
                warnings.append(f"{item.name}: {item.warning}")
            parts.append(self._encode(item.tiles, patches=True))
        return parts, warnings

    def good_levels(self, category_name: str = DEFAULT_CLASS) -> tuple[float, ...]:
        """The largest map value of each of the first good samples, judged with the others: what good pictures reach.

        Nothing is encoded again, but for a large set that an earlier start encoded. Empty for zero-shot, for a single
        sample, and for a state that was taken.
        """
        key = class_key(category_name)
        if key not in self._samples or len(self.references_of(category_name)) < 2:
            return ()
        if key not in self._levels:
            samples = self._samples[key]()
            text = self._class_text(category_name)
            self._levels[key] = tuple(self._level(samples, number, text) for number in range(len(samples)))
        return self._levels[key]

    def _level(self, samples: Sequence[Embeddings], number: int, text: Array) -> float:
        others = References.collect([*samples[:number], *samples[number + 1 :]])
        tiles = [len(samples[number].image)]
        (scores,) = judge(samples[number], text, others, self.recipe, self.grid_hw, tiles, self._fusion)
        return float(scores.tile_maps.max())

    def references_of(self, category_name: str = DEFAULT_CLASS) -> tuple[Fingerprint, ...]:
        """Names and hashes of the good samples a class is judged with, in the order shown; none for zero-shot."""
        return self._shown.get(class_key(category_name), ())

    def _copies_of(self, category_name: str) -> Copies:
        """Finds the class's good samples among pictures; kept while they stay the same."""
        shown = self.references_of(category_name)
        if self._copies[0] is not shown:
            self._copies = shown, Copies(shown)
        return self._copies[1]

    def forget(self, category_name: str = DEFAULT_CLASS) -> None:
        """Drop the references of a class: it is judged zero-shot again."""
        key = class_key(category_name)
        self._references.pop(key, None)
        self._samples.pop(key, None)
        self._levels.pop(key, None)
        self._shown.pop(key, None)

    def drop_class(self, category_name: str = DEFAULT_CLASS) -> None:
        """Drop all that is kept of a class, its text too: it is encoded again when it is next asked for."""
        self.forget(category_name)
        self._texts.pop(self._text_key(category_name), None)

    def state_of(self, category_name: str = DEFAULT_CLASS) -> ClassState:
        """What the class is judged with, for :meth:`take` of the same model elsewhere.

        Its arrays may be the predictor's own memory: not to be written to.

        Raises:
            ClassNameError: the name cannot be put into a prompt.
        """
        text = to_numpy(self._class_text(category_name))
        references = self._references.get(class_key(category_name))
        shown = self.references_of(category_name)
        return ClassState(text, None if references is None else references.map(to_numpy), shown)

    def take(self, category_name: str, state: ClassState) -> None:
        """Judge a class from now on as the predictor does that the state is of; nothing is encoded.

        Args:
            category_name: the class; what was known of it is replaced.
            state: from a predictor of the same model, weights and recipe: the same :meth:`describe` but for engine and
                device. With the same engine and device, too, every score and map is bit for bit the same.

        Raises:
            SettingsError: the good samples have windows of other scales than this recipe.
        """
        key = class_key(category_name)
        references = None
        if state.references is not None:
            scales = sorted(state.references.windows)
            if scales != sorted(self.recipe.scales):
                raise SettingsError(
                    f"the state of {category_name!r} has windows of scales {scales}, this predictor's recipe "
                    f"{sorted(self.recipe.scales)}; take it from a predictor of the same recipe"
                )
            references = state.references.map(self._on_device)
        self.forget(key)
        self._texts[self._text_key(category_name)] = self._on_device(state.text)
        if references is not None:
            self._references[key], self._shown[key] = references, state.shown

    def calibrate(self, pictures: Iterable[Picture], category_name: str = DEFAULT_CLASS, **options: Any) -> Calibration:
        """Thresholds from good pictures: see :func:`winspect.calibration.calibrate`, whose options these are."""
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
        self._fork_guard.check()
        patches = class_key(category_name) in self._references
        scales = self.recipe.scales if maps or self._scores_need_maps(category_name) else ()
        self.engine.prepare(scales=scales, stride=self.recipe.stride, patches=patches)

    def predict(
        self,
        picture: Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        keep_picture: bool = False,
        bgr: bool = False,
    ) -> Result:
        """Judge one picture.

        Args:
            picture: a file, a Pillow image, an array (height, width[, 3]) or a torch tensor ([3, ]height, width) in RGB
                order; or a pair (name, picture).
            category_name: what the part is called, as in ``"metal nut"``.
            keep_picture: keep the decoded picture in the result.
            bgr: the channels of an array or tensor are BGR, as OpenCV has them.

        Raises:
            PictureError: the picture cannot be used.
            ClassNameError: the class name cannot be put into a prompt.
        """
        self._class_text(category_name)  # refuses a name before the picture is read
        picture = picture_given(picture, bgr=bgr)
        item = prepare(picture, self.preprocess, self.cut, keep_rgb=keep_picture)
        (result,) = self.predict_prepared([item], category_name)
        if result.error is not None:
            raise result.error
        (marked,) = _marked([result], deque([self._copies_of(category_name).warning(picture)]))
        return marked

    def predict_many(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        keep_pictures: bool = False,
        maps: bool = True,
        bgr: bool = False,
    ) -> Iterator[Result]:
        """Judge any number of pictures, in order, in constant memory.

        Decoding and resizing of the next pictures overlap with the encoder. A picture that cannot be used gives a
        result with an ``error``; the others go on. Of a source that makes wait, such as a generator of a camera's
        frames, each result comes before the next picture is asked for.
        One of the class's good samples, or a copy of one, gives a result with a ``warning``: its score says nothing.

        Args:
            pictures: a folder, file or glob, or any number of pictures, also a generator.
            maps: False for scores alone. Zero-shot scores of recipes ``paper`` and ``tiles`` need no windows, which
                are eleven twelfths of the work; other scores need the maps, and results then have them all the same.
            bgr: the channels of arrays and tensors are BGR, as OpenCV has them.

        Raises:
            ClassNameError: at once, before any picture is read.
            SourceError: at once, for a folder or glob without pictures.
        """
        text = self._class_text(category_name)
        given = pictures_given(pictures, bgr=bgr)
        pace = Pace(given)
        copies, seen = self._copies_of(category_name), deque[str | None]()
        prepared = self._prepare(_noting(given, copies, seen), keep_rgb=keep_pictures, pace=pace)
        return _marked(self._stream(prepared, category_name, text, maps, pace), seen)

    def predict_prepared(
        self,
        items: Sequence[Prepared | PictureError],
        category_name: str = DEFAULT_CLASS,
        *,
        maps: bool = True,
        zero_shot: bool = False,
    ) -> list[Result]:
        """Judge pictures that :func:`winspect.pictures.tiles.prepare` has cut with :attr:`preprocess` and :attr:`cut`.

        Args:
            items: in any number; their tiles share the encoder's batches. An error becomes the result of its picture.
            maps: as in :meth:`predict_many`.
            zero_shot: judge without the class's good samples.

        Returns:
            One result an item, in order.
        """
        return self._judge(items, category_name, self._class_text(category_name), maps=maps, zero_shot=zero_shot)

    def _class_text(self, category_name: str) -> Array:
        """(2, embedding), normal and anomalous, on the engine's device."""
        self._fork_guard.check()
        key = self._text_key(category_name)
        if key not in self._texts:
            self._texts[key] = self._encode_text(category_name)
        return self._texts[key]

    def _text_key(self, category_name: str) -> str:
        """What a class's text is kept under: names with the same prompts share it."""
        return class_key(category_name)

    def predict_stream(
        self, items: Iterable[Prepared | PictureError], category_name: str = DEFAULT_CLASS, *, maps: bool = True
    ) -> Iterator[Result]:
        """As :meth:`predict_many`, of pictures that were cut elsewhere, as those of :meth:`predict_prepared`."""
        return self._stream(items, category_name, self._class_text(category_name), maps, Pace(()))

    def _stream(
        self, items: Iterable[Prepared | PictureError], category_name: str, text: Array, maps: bool, pace: Pace
    ) -> Iterator[Result]:
        waiting: list[Prepared | PictureError] = []
        tiles = 0
        maps = maps or self._scores_need_maps(category_name)
        enough = self.engine.tiles_per_pass(self.recipe.scales if maps else ())
        for item in items:
            waiting.append(item)
            tiles += 1 if isinstance(item, PictureError) else len(item.tiles)  # so that errors never pile up
            if tiles >= enough or pace.makes_wait:
                yield from self._judge(waiting, category_name, text, maps=maps)
                waiting, tiles = [], 0
        yield from self._judge(waiting, category_name, text, maps=maps)

    def _scores_need_maps(self, category_name: str) -> bool:
        return self.recipe.fusion != "sum" or class_key(category_name) in self._references

    def _prepare(
        self, pictures: Iterable[Picture], *, keep_rgb: bool = False, pace: Pace | None = None
    ) -> Iterator[Prepared | PictureError]:
        threads = {"workers": 1, "ahead": 1} if self.plan == "serial" else {"workers": self.workers}
        return prepare_many(pictures, self.preprocess, self.cut, keep_rgb=keep_rgb, pace=pace, **threads)

    def _judge(
        self,
        items: Sequence[Prepared | PictureError],
        category_name: str,
        text: Array,
        *,
        maps: bool,
        zero_shot: bool = False,
    ) -> list[Result]:
        references = None if zero_shot else self._references.get(class_key(category_name))
        items = [self._with_same_tiles(item, references) for item in items]
        usable = [item for item in items if isinstance(item, Prepared)]
        maps = maps or self._scores_need_maps(category_name)
        scores = iter(self._score(usable, references, text, maps) if usable else ())
        results = [
            Result(item.path, category_name, error=item)
            if isinstance(item, PictureError)
            else result_of(item, category_name, next(scores), self.precision, maps=maps)
            for item in items
        ]
        warn_if_constant(results)
        return results

    def _score(
        self, items: Sequence[Prepared], references: References | None, text: Array, maps: bool
    ) -> list[PictureScores]:
        self._fork_guard.check()  # a generator may have been made before
        tiles = np.concatenate([item.tiles for item in items])
        embeddings = self._encode(tiles, patches=references is not None, maps=maps)
        counts = [len(item.tiles) for item in items]
        lasts = [self._last_count(item) for item in items]
        return judge(embeddings, text, references, self.recipe, self.grid_hw, counts, self._fusion, last_counts=lasts)

    def _last_count(self, item: Prepared) -> int:
        if not (self.recipe.tiling and self.recipe.repeat_last):
            return 1
        return last_tile_count(*item.size_wh, stride_fraction=self.recipe.tile_stride)

    def _with_same_tiles(self, item: Prepared | PictureError, references: References | None) -> Prepared | PictureError:
        """The picture, or an error where its tiles have no counterpart in the references."""
        if references is None or self.recipe.tile_references == "pooled" or isinstance(item, PictureError):
            return item
        if len(item.tiles) == references.tiles:
            return item
        reason = (
            f"it has {len(item.tiles)} tiles, each reference {references.tiles}, and tile_references is same: use "
            "pictures of one shape, or tile_references=pooled"
        )
        return PictureError(item.name, reason)


def _noting(pictures: Iterable[Picture], copies: Copies, seen: deque[str | None]) -> Generator[Picture, None, None]:
    """The pictures, as they are asked for; of each that is a good sample, or a copy of one, the warning is noted."""
    for picture in pictures:
        seen.append(copies.warning(picture))
        yield picture


def _marked(results: Iterable[Result], seen: deque[str | None]) -> Generator[Result, None, None]:
    for result in results:
        warning = seen.popleft()
        is_marked = warning is not None and result.error is None
        yield replace(result, warning=joined(result.warning, warning)) if is_marked else result
