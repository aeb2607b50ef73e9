"""Scores of prepared pictures of a class. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from winspect.errors import PictureError, ReferencesError
from winspect.inspector.classes import DEFAULT_CLASS, Classes
from winspect.methods.dropping import lowest_outside
from winspect.methods.method import CutPicture, PictureScores, References
from winspect.methods.result import Result, result_of, warn_if_constant
from winspect.methods.winclip.prompts import class_key
from winspect.pictures.pool import Pace
from winspect.pictures.tiles import Prepared
from winspect.system.arrays import Array


class Scoring(Classes):
    """Scores prepared pictures of the classes that are known.

    Attributes: those of :class:`~winspect.inspector.classes.Classes`.
    """

    @property
    def engine_name(self) -> str:
        """What runs the image tower."""
        return self.engine.name

    @property
    def precision(self) -> str:
        """What the image tower runs in."""
        return self.engine.precision

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
        if alone:
            self.method.check_alone("a single picture")
        text = self._class_text(category_name)
        are_there = not zero_shot and class_key(category_name) in self._good
        self.method.check_good_samples(category_name, are_there=are_there)
        if self.alignment is not None and not are_there:
            raise ReferencesError(
                f"alignment registers pictures to the first good sample, and {category_name!r} has none: show it some "
                "(--reference, reference(), POST /v1/references), or leave alignment out"
            )
        return text

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
            else result_of(item, category_name, next(scores), self.precision, self.method.score_range)
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
            embeddings = self._embed([items[place] for place in alike], needs)
            pictures = [_as_cut(items[place]) for place in alike]
            found = self.method.score(embeddings, pictures, text=text, references=references, maps=maps)
            found = lowest_outside(found, embeddings, pictures, self.method.score_range[0])
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
    # Without the last tile, outside of the region of interest, none is repeated: the size does not matter.
    has_last = item.boxes[-1][2:] == item.size_wh
    return CutPicture(len(item.tiles), item.size_wh if has_last else None)
