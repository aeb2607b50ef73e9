"""Scoring pictures with what embeds them: shared by :class:`winspect.WinCLIP` and by edge bundles. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from functools import cache, partial
from itertools import repeat
from os import PathLike
from typing import Any

import numpy as np

from winspect.calibration import Calibration, DecisionRule
from winspect.calibration.judgement import check_threshold
from winspect.errors import SettingsError
from winspect.inspector.batch import Compared, compare, results_of
from winspect.inspector.calibrating import calibrate
from winspect.inspector.classes import DEFAULT_CLASS, Picture
from winspect.inspector.prediction import Prediction, decision_rule
from winspect.inspector.results import Results
from winspect.inspector.scoring import Scoring
from winspect.methods.batch_method import BatchMethod
from winspect.methods.result import Result
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.decoding import read_rgb
from winspect.pictures.fingerprints import Copies
from winspect.pictures.given import is_single, pictures_given
from winspect.pictures.pool import Pace
from winspect.pictures.suspicions import joined
from winspect.pictures.tiles import prepare
from winspect.system.terminal import progress_bar

__all__ = ["DEFAULT_CLASS", "Picture", "Predictor"]

_NONE = Copies(())


class Predictor(Scoring):
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

    def calibrate(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        max_false_alarms: float = 0.01,
        review: float | None = None,
        held_out: Iterable[Picture] | Picture = (),
        defective: Iterable[Picture] | Picture = (),
        maps: bool = True,
        progress: bool = False,
        bgr: bool = False,
    ) -> Calibration:
        """Thresholds from good pictures: see :func:`winspect.inspector.calibrating.calibrate`."""
        given: dict[str, Any] = {"held_out": held_out, "defective": defective, "maps": maps, "progress": progress}
        given |= {"max_false_alarms": max_false_alarms, "review": review, "bgr": bgr}
        return calibrate(self, pictures, category_name, **given)

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
        source: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        pixel_threshold: float | None = None,
        review: float | None = None,
        review_threshold: float | None = None,
        rules: str | PathLike[str] | None = None,
        keep_picture: bool = False,
        bgr: bool = False,
    ) -> Any:
        """Score a picture, or all pictures of a source, and hold the results.

        Args:
            source: a picture: a file, a Pillow image, a file's bytes, an array (height, width[, 3]) or a torch tensor
                ([3, ]height, width) in RGB order, uint8 or floating point from 0 to 1; or a pair (name, picture). Many
                pictures: a folder, a glob, a text file (.txt) of paths, a video file, whose frames are scored, a stack
                of arrays or tensors, or any iterable of pictures. Nothing is fetched: URLs are refused.
            category_name: what the part is called, as in ``"metal nut"``.
            threshold: scores from here on are anomalous; results then have a verdict, boxes and a mask.
            calibration: decides instead, made by :meth:`calibrate` with this model and class.
            pixel_threshold: a defect's region has a map value above it; see :meth:`Prediction.decide`.
            review: with a calibration: of good pictures at most this share is ``review`` or ``anomalous``.
            review_threshold: with a threshold: scores from here on are ``review``.
            rules: a TOML file of rules on defects; see :mod:`winspect.calibration.rules`.
            keep_picture: keep the decoded pictures in the results. Without it, :meth:`Prediction.plot` reads a file
                again and uses the caller's array, but cannot draw the frames of a video or a generator.
            bgr: the channels of an array or tensor are BGR, as OpenCV has them.

        Returns:
            Of a picture a :class:`Prediction`; of many :class:`Results`, a sequence of them, in order, also where the
            folder holds a single picture. All are held, with their maps: :meth:`predict_many` takes any number.

        Raises:
            PictureError: the only picture cannot be used. Among many, it has a result with an ``error`` instead; so has
                the end of a video that ends in mid-frame, behind the results of its whole frames.
            ClassNameError: the class name cannot be put into a prompt.
            SourceError: no pictures there, a URL, or a list or video that cannot be read.
            SettingsError: a threshold out of range, or a calibration made with something else.
        """
        scores = {"threshold": threshold, "pixel_threshold": pixel_threshold, "review_threshold": review_threshold}
        for name, value in scores.items():
            check_threshold(value, self.method.score_range, name)
        more: dict[str, Any] = {"review": review, "review_threshold": review_threshold, "rules": rules}
        more["roi"] = self.roi
        rule = decision_rule(threshold, calibration, pixel_threshold, **more)
        if calibration is not None:
            calibration.check_model(self, category_name)
        alone = is_single(source)
        self._scorable(category_name, alone=alone)  # refuses a name before a picture is read
        given = pictures_given(source, bgr=bgr)
        kept: Iterable[Any] = given if isinstance(given, Sized) else repeat(None)
        predict = self._predict_one if alone else self._predict_many
        results = predict(given, category_name, keep_picture)
        good = self._good.get(class_key(category_name))  # those of now: others may be learnt before a heat map is drawn
        colours = cache(lambda: rule.heat_range(lambda: () if good is None else good.levels, self.method.score_range))
        held = (
            Prediction.of(result, rule=rule, colours=colours, read_picture=self._reader(picture))
            for result, picture in zip(results, kept, strict=False)
        )
        return next(held) if alone else Results(held, model=self.describe())

    __call__ = predict

    def _reader(self, picture: Picture | None) -> Callable[[], np.ndarray] | None:
        return None if picture is None else partial(read_rgb, picture, bit_depth=self.bit_depth)

    def _predict_one(self, given: Iterable[Picture], category_name: str, keep_pictures: bool) -> Iterator[Result]:
        (picture,) = given
        cut = self.cut_of(category_name)
        item = prepare(picture, self.preprocess, cut, keep_rgb=keep_pictures)
        (result,) = self.predict_prepared([item], category_name)
        if result.error is not None:
            raise result.error
        return _with_warnings([result], deque([self._copies(category_name).warning(picture)]))

    def predict_many(
        self,
        pictures: Iterable[Picture] | Picture,
        category_name: str = DEFAULT_CLASS,
        *,
        keep_pictures: bool = False,
        maps: bool = True,
        bgr: bool = False,
    ) -> Iterator[Prediction]:
        """Score any number of pictures, in order, in constant memory: an iterator of what :meth:`predict` holds.

        Decoding and resizing of the next pictures overlap with the encoder. A picture that cannot be used gives a
        result with an ``error``; the others go on. Of a source that makes wait, such as a generator of a camera's
        frames, each result comes before the next picture is asked for; but a method that compares the pictures of a
        batch with each other reads all before the first result. Where too few of them can be used, all give an
        error.
        One of the class's good samples, or a copy of one, gives a result with a ``warning``: its score says nothing.

        Args:
            pictures: as the ``source`` of :meth:`predict`; a file is a source of a single result.
            maps: False for scores alone. Zero-shot scores of recipes ``paper`` and ``tiles`` need no windows, which
                are eleven twelfths of the work; other scores need the maps, and results then have them all the same.
            bgr: the channels of arrays and tensors are BGR, as OpenCV has them.

        Raises:
            ClassNameError: at once, before any picture is read.
            ReferencesError: at once, where the method needs good samples and the class has none.
            SourceError: at once, for a folder or glob without pictures, a URL, or a list or video that cannot be read.
        """
        self._scorable(category_name)
        results = self._predict_many(pictures_given(pictures, bgr=bgr), category_name, keep_pictures, maps)
        colours = DecisionRule().heat_range(tuple, self.method.score_range)
        return (Prediction.of(result, colours=colours) for result in results)

    def _predict_many(
        self, given: Iterable[Picture], category_name: str, keep_pictures: bool, maps: bool = True
    ) -> Iterator[Result]:
        text = self._class_text(category_name)
        if isinstance(self.method, BatchMethod):
            return results_of(self._comparing(list(given), category_name, self.method, keep_pictures=keep_pictures))
        pace = Pace(given)
        copies, seen = self._copies(category_name), deque[str | None]()
        cut = self.cut_of(category_name)
        prepared = self._prepare(_noting(given, copies, seen), cut, keep_rgb=keep_pictures, pace=pace)
        return _with_warnings(self._stream(prepared, category_name, text, maps, pace), seen)

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
        compared = self._comparing(given, category_name, self.method, progress=progress)()
        if compared.refusal is not None:
            raise compared.refusal
        return compared

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
        cut = self.cut_of(category_name)
        prepared = self._prepare(pictures, cut, keep_rgb=keep_pictures)
        return partial(
            compare,
            method.batch(len(pictures)),
            progress_bar(prepared, "pictures", len(pictures), shown=progress),
            category_name,
            lambda items: self._embed(items, needs),
            tiles_at_once=self.engine.tiles_per_pass(needs),
            precision=self.precision,
            score_range=method.score_range,
        )


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
