"""Scoring pictures with what embeds them: shared by :class:`winspect.WinCLIP` and by edge bundles. No torch."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from winspect.calibration import Calibration
from winspect.errors import PictureError, SettingsError
from winspect.inspector.batch import Compared, compare, results_of
from winspect.inspector.calibrating import calibrate
from winspect.inspector.classes import DEFAULT_CLASS, Classes, Picture
from winspect.methods.batch_method import BatchMethod
from winspect.methods.method import CutPicture, PictureScores, References
from winspect.methods.result import Result, result_of, warn_if_constant
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.fingerprints import Copies
from winspect.pictures.given import picture_given, pictures_given
from winspect.pictures.pool import Pace
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import Prepared, prepare
from winspect.system.arrays import Array
from winspect.system.terminal import progress_bar

__all__ = ["DEFAULT_CLASS", "Picture", "Predictor"]

_NONE = Copies(())


class Predictor(Classes):
    """Zero-shot and few-shot anomaly detection, whatever embeds the pictures.

    Attributes: those of :class:`~winspect.inspector.classes.Classes`.
    """

    def __repr__(self) -> str:
        identity, few = self.identity(), len(self._good)
        samples = f", good samples of {few} class{'es' * (few > 1)}" if few else ""
        return (
            f"{type(self).__name__}({identity.model}, weights {identity.weights}, recipe {self.method.name}, "
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

    def calibrate(self, pictures: Iterable[Picture], category_name: str = DEFAULT_CLASS, **options: Any) -> Calibration:
        """Thresholds from good pictures: see :func:`winspect.calibration.calibrate`, whose options these are."""
        return calibrate(self, pictures, category_name, **options)

    def prepare_engine(self, category_name: str = DEFAULT_CLASS, *, maps: bool = True) -> None:
        """Build what the engine needs for a class now instead of at its first picture; ``maps`` as in `predict_many`.

        From then on :meth:`describe` says what runs, also where the engine had to be replaced.

        Raises:
            EngineBuildError: the engine was asked for by name and cannot be built.
        """
        self._fork_guard.check()
        few_shot = class_key(category_name) in self._good
        self.engine.prepare(self.method.needs(few_shot=few_shot, maps=maps))

    def predict(
        self,
        picture: Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        keep_picture: bool = False,
        bgr: bool = False,
    ) -> Result:
        """Score one picture.

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
        self._scorable(category_name, alone=True)  # refuses a name before the picture is read
        picture = picture_given(picture, bgr=bgr)
        item = prepare(picture, self.preprocess, self.cut, keep_rgb=keep_picture)
        (result,) = self.predict_prepared([item], category_name)
        if result.error is not None:
            raise result.error
        (result,) = _with_warnings([result], deque([self._copies(category_name).warning(picture)]))
        return result

    def predict_many(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        keep_pictures: bool = False,
        maps: bool = True,
        bgr: bool = False,
    ) -> Iterator[Result]:
        """Score any number of pictures, in order, in constant memory.

        Decoding and resizing of the next pictures overlap with the encoder. A picture that cannot be used gives a
        result with an ``error``; the others go on. Of a source that makes wait, such as a generator of a camera's
        frames, each result comes before the next picture is asked for; but a method that compares the pictures of a
        batch with each other reads all before the first result.
        One of the class's good samples, or a copy of one, gives a result with a ``warning``: its score says nothing.

        Args:
            pictures: a folder, file or glob, or any number of pictures, also a generator.
            maps: False for scores alone. Zero-shot scores of recipes ``paper`` and ``tiles`` need no windows, which
                are eleven twelfths of the work; other scores need the maps, and results then have them all the same.
            bgr: the channels of arrays and tensors are BGR, as OpenCV has them.

        Raises:
            ClassNameError: at once, before any picture is read.
            ReferencesError: at once, where the method needs good samples and the class has none.
            SourceError: at once, for a folder or glob without pictures.
        """
        text = self._scorable(category_name)
        given = pictures_given(pictures, bgr=bgr)
        if isinstance(self.method, BatchMethod):
            return results_of(self._comparing(list(given), category_name, self.method, keep_pictures=keep_pictures))
        pace = Pace(given)
        copies, seen = self._copies(category_name), deque[str | None]()
        prepared = self._prepare(_noting(given, copies, seen), keep_rgb=keep_pictures, pace=pace)
        return _with_warnings(self._stream(prepared, category_name, text, maps, pace), seen)

    def predict_prepared(
        self,
        items: Sequence[Prepared | PictureError],
        category_name: str = DEFAULT_CLASS,
        *,
        maps: bool = True,
        zero_shot: bool = False,
    ) -> list[Result]:
        """Score pictures that :func:`winspect.pictures.tiles.prepare` has cut with :attr:`preprocess` and :attr:`cut`.

        Args:
            items: in any number; their tiles share the encoder's batches. An error becomes the result of its picture.
            maps: as in :meth:`predict_many`.
            zero_shot: score without the class's good samples.

        Returns:
            One result an item, in order.
        """
        text = self._scorable(category_name, zero_shot=zero_shot, alone=True)
        return self._inspect(items, category_name, text, maps=maps, zero_shot=zero_shot)

    def _scorable(self, category_name: str, *, zero_shot: bool = False, alone: bool = False) -> Array:
        """The class's text, once it is known that the class can be scored.

        Args:
            alone: pictures are not all of a batch.
        """
        if alone and isinstance(self.method, BatchMethod):
            self.method.score()  # refuses
        text = self._class_text(category_name)
        are_there = not zero_shot and class_key(category_name) in self._good
        self.method.check_good_samples(category_name, are_there=are_there)
        return text

    def _copies(self, category_name: str) -> Copies:
        """Finds the class's good samples among pictures."""
        good = self._good.get(class_key(category_name))
        return _NONE if good is None else good.copies

    def compare(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        bgr: bool = False,
        progress: bool = False,
    ) -> Compared:
        """Score the pictures of a batch beside each other, and say how far each two are apart.

        Args:
            pictures: as in :meth:`predict_many`.
            progress: show it on stderr, where that is a terminal.

        Raises:
            SettingsError: the method scores each picture alone.
            SourceError: a folder or glob without pictures, or too few that can be used.
        """
        if not isinstance(self.method, BatchMethod):
            raise SettingsError(
                f"recipe {self.method.name} scores each picture alone; recipe mutual compares the pictures of a batch"
            )
        self._scorable(category_name)
        given = list(pictures_given(pictures, bgr=bgr))
        return self._comparing(given, category_name, self.method, progress=progress)()

    def _comparing(
        self,
        pictures: Sequence[Picture],
        category_name: str,
        method: BatchMethod,
        *,
        keep_pictures: bool = False,
        progress: bool = False,
    ) -> Callable[[], Compared]:
        """What compares the pictures, once it is known that they are enough."""
        needs = method.needs(few_shot=False, maps=True)
        prepared = self._prepare(pictures, keep_rgb=keep_pictures)
        return partial(
            compare,
            method.batch(len(pictures)),
            progress_bar(prepared, "pictures", len(pictures), shown=progress),
            category_name,
            lambda tiles: self._encode(tiles, needs),
            tiles_at_once=self.engine.tiles_per_pass(needs),
            precision=self.precision,
            score_range=method.score_range,
        )

    def _stream(
        self, items: Iterable[Prepared | PictureError], category_name: str, text: Array, maps: bool, pace: Pace
    ) -> Iterator[Result]:
        waiting: list[Prepared | PictureError] = []
        tiles = 0
        few_shot = class_key(category_name) in self._good
        enough = self.engine.tiles_per_pass(self.method.needs(few_shot=few_shot, maps=maps))
        for item in items:
            waiting.append(item)
            tiles += 1 if isinstance(item, PictureError) else len(item.tiles)  # so that errors never pile up
            if tiles >= enough or pace.makes_wait:
                yield from self._inspect(waiting, category_name, text, maps=maps)
                waiting, tiles = [], 0
        yield from self._inspect(waiting, category_name, text, maps=maps)

    def _inspect(
        self,
        items: Sequence[Prepared | PictureError],
        category_name: str,
        text: Array,
        *,
        maps: bool,
        zero_shot: bool = False,
    ) -> list[Result]:
        good = None if zero_shot else self._good.get(class_key(category_name))
        references = None if good is None else good.references
        items = [self._comparable(item, references) for item in items]
        usable = [item for item in items if isinstance(item, Prepared)]
        scores = iter(self._score(usable, references, text, maps) if usable else ())
        results = [
            Result(item.path, category_name, error=item)
            if isinstance(item, PictureError)
            else result_of(item, category_name, next(scores), self.precision)
            for item in items
        ]
        warn_if_constant(results)
        return results

    def _score(
        self, items: Sequence[Prepared], references: References | None, text: Array, maps: bool
    ) -> list[PictureScores]:
        self._fork_guard.check()  # a generator may have been made before
        needs = self.method.needs(few_shot=references is not None, maps=maps)
        scores: dict[int, PictureScores] = {}
        for alike in _by_size(items):
            embeddings = self._encode(np.concatenate([items[place].tiles for place in alike]), needs)
            pictures = [_as_cut(items[place]) for place in alike]
            found = self.method.score(embeddings, pictures, text=text, references=references, maps=maps)
            scores.update(zip(alike, found, strict=True))
        return [scores[place] for place in range(len(items))]

    def _comparable(self, item: Prepared | PictureError, references: References | None) -> Prepared | PictureError:
        """The picture, or an error where the method cannot compare it with the references."""
        if references is None or isinstance(item, PictureError):
            return item
        reason = self.method.refusal(_as_cut(item), references)
        return item if reason is None else PictureError(item.name, reason)


def _by_size(items: Sequence[Prepared]) -> Iterable[list[int]]:
    """Places of the pictures whose tiles are of one size, and so can be embedded together."""
    places = defaultdict[tuple[int, ...], list[int]](list)
    for place, item in enumerate(items):
        places[item.tiles.shape[1:]].append(place)
    return places.values()


def _as_cut(item: Prepared) -> CutPicture:
    return CutPicture(len(item.tiles), item.size_wh)


def _noting(pictures: Iterable[Picture], copies: Copies, seen: deque[str | None]) -> Generator[Picture, None, None]:
    """The pictures, as they are asked for; of each that is a good sample, or a copy of one, the warning is noted."""
    for picture in pictures:
        seen.append(copies.warning(picture))
        yield picture


def _with_warnings(results: Iterable[Result], seen: deque[str | None]) -> Generator[Result, None, None]:
    for result in results:
        warning = seen.popleft()
        is_marked = warning is not None and result.error is None
        yield replace(result, warning=joined(result.warning, warning)) if is_marked else result
