"""The contract of a method: what it needs of a backbone, what it keeps of good samples, how it scores. Arrays only.

A method is a frozen value. The inspector cuts pictures as :attr:`Method.cut` says, lets an engine embed the tiles as
:meth:`Method.needs` says, keeps what :meth:`Method.fit` gives for the good samples of a class, and takes scores and
maps from :meth:`Method.score`. It knows nothing else of a method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from winspect.backbones.embeddings import Embeddings, Needs
from winspect.errors import ReferencesError
from winspect.methods.upsampling import BILINEAR, Upsampling
from winspect.pictures.tiles import WHOLE, Cut, Preprocess
from winspect.system.arrays import Array
from winspect.system.opening import open_file

__all__ = ["CutPicture", "Embeddings", "Method", "Needs", "PictureScores", "References", "split"]

_TILES = "tiles"


@dataclass(frozen=True, eq=False)
class References:
    """What a method keeps of the good samples of a class.

    Attributes:
        arrays: by name; of one kind, on one device.
        tiles: of each sample; None where they differ, or where it is not known.
    """

    arrays: Mapping[str, Array]
    tiles: int | None = None

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def map(self, function: Callable[[Array], Array]) -> References:
        """The same function on every array."""
        return References({name: function(array) for name, array in self.arrays.items()}, self.tiles)

    def save(self, path: Path) -> None:
        """Write NumPy arrays as .npz, under their names, and ``tiles`` beside them."""
        arrays: dict[str, Any] = (
            {**self.arrays} if self.tiles is None else {**self.arrays, _TILES: np.array(self.tiles)}
        )
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what :meth:`save` wrote; no pickled code is run.

        Raises:
            ValueError, OSError, BadZipFile: damaged.
        """
        with open_file(path) as opened, np.load(opened, allow_pickle=False) as file:
            if any(entry.compress_type for entry in file.zip.infolist()):  # asks for more memory than the file has
                raise ValueError(f"{path}: compressed, which references never are")
            arrays = {name: file[name] for name in file.files}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"{path}: holds numbers that are not finite")
        tiles = arrays.pop(_TILES, None)
        return cls(arrays, None if tiles is None else int(tiles))


@dataclass(frozen=True)
class CutPicture:
    """One picture of a batch.

    Attributes:
        tiles: how many consecutive tiles of the batch are its own.
        size_wh: in pixels; None where it does not matter, as for good samples.
    """

    tiles: int
    size_wh: tuple[int, int] | None = None


@dataclass(frozen=True)
class PictureScores:
    """Score and maps of one picture; more is more anomalous, in the method's own range.

    Attributes:
        score: of the picture.
        tile_maps: float32 (tiles, rows, columns), on the patch grid or finer; None where they were not asked for.
        upsampling: how maps are brought to the tiles' sizes.
        parts: scores that were combined, by the recipe of each in its own range; empty where there is but one.
    """

    score: float
    tile_maps: np.ndarray | None
    upsampling: Upsampling = BILINEAR
    parts: Mapping[str, float] = field(default_factory=dict)


class Method(ABC):
    """How embeddings become scores. Subclasses are frozen dataclasses; their fields are their settings.

    Attributes:
        name: in results, calibrations and bundles, and on the command line once it is in
            :data:`winspect.methods.registry.METHODS`.
        cut: how pictures are cut; a camera's bit depth comes on top.
        score_range: the lowest and the highest score and value of a map; infinity where there is no highest.
        text_average: ``raw`` averages prompt embeddings as they are; ``normalised`` L2-normalises before and after.
        underscores: of class names in prompts: ``space`` or ``keep``.
        reads_text: whether scores depend on the class name's prompts; a backbone without text serves where not.
        zero_shot: whether it scores without good samples.
        joins: whether :meth:`join` puts together what was kept of parts of the good samples, so that many are never in
            memory at once.
    """

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    reads_text: ClassVar[bool] = True
    zero_shot: ClassVar[bool] = True
    joins: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def cut(self) -> Cut:
        """The whole picture."""
        return WHOLE

    def preprocess(self, preprocess: Preprocess, patch: int) -> Preprocess:
        """How pictures become the backbone's input: as the model has it, or at a size of the method's own.

        Args:
            preprocess: the model's.
            patch: side of a patch in pixels.

        Raises:
            SettingsError: the size is no multiple of the patch, and is not to be rounded.
        """
        return preprocess

    def angles(self, sample: int) -> Sequence[float]:
        """Degrees by which a good sample, counted from 0, is also rotated, beside its upright view."""
        return ()

    @property
    def text_average(self) -> str:
        """Prompt embeddings as they are."""
        return "raw"

    @property
    def underscores(self) -> str:
        """Blanks in their place."""
        return "space"

    @abstractmethod
    def needs(self, *, few_shot: bool, maps: bool) -> Needs:
        """What a backbone must give for tiles to be scored.

        Args:
            few_shot: with references; also what :meth:`fit` needs of good samples.
            maps: False for scores alone.
        """

    @abstractmethod
    def fit(self, samples: Sequence[Embeddings]) -> References:
        """What is kept of good samples, one or more, each with all its tiles in all its views.

        Raises:
            ReferencesError: the samples do not fit together.
        """

    def learn(self, samples: Sequence[Embeddings]) -> tuple[References, list[float]]:
        """:meth:`fit`, and how far each good sample is from the others, more is farther; none where it does not say.

        A method that joins is asked by :mod:`winspect.inspector.standing_apart` itself. NaN for a sample that was not
        compared.
        """
        return self.fit(samples), []

    def join(self, parts: Sequence[References]) -> References:
        """What is kept of the good samples of several calls of :meth:`fit`, in order; where :attr:`joins` alone.

        Raises:
            ReferencesError: it is more than the method allows.
        """
        raise NotImplementedError(f"recipe {self.name} keeps good samples of one call alone")

    def samples_refusal(self, count: int, sample: Embeddings) -> str | None:
        """Why so many good samples like this one are too many, asked before the others are encoded; None if not."""
        return None

    @abstractmethod
    def score(
        self,
        embeddings: Embeddings,
        pictures: Sequence[CutPicture],
        *,
        text: Array,
        references: References | None = None,
        maps: bool = True,
    ) -> list[PictureScores]:
        """Scores and maps of pictures.

        Args:
            embeddings: of all tiles, in order.
            pictures: which tiles are whose.
            text: (2, embedding), normal and anomalous; (2, 0) where :attr:`reads_text` is false.
            references: good samples of the class; None for zero-shot.
            maps: False where scores are enough; a method that needs the maps for its scores gives them all the same.
        """

    def check_good_samples(self, category_name: str, *, are_there: bool) -> None:
        """Refuse to score a class with, or without, good samples, where the method cannot.

        Raises:
            ReferencesError: it compares with good samples, and the class has none.
            SettingsError: it takes none.
        """
        if not (self.zero_shot or are_there):
            raise ReferencesError(
                f"recipe {self.name} compares with good samples, and {category_name!r} has none: show it some "
                "(--reference, reference(), POST /v1/references), or choose a recipe that works from the name alone"
            )

    def check_alone(self, place: str) -> None:  # noqa: B027  most methods refuse nothing
        """Refuse to score pictures one by one, where the method compares those of a batch.

        Args:
            place: where they are scored so, as in ``a service``.

        Raises:
            SettingsError: it does; says what fits.
        """

    @property
    def kept(self) -> frozenset[str]:
        """Names of the arrays of references that :meth:`score` reads."""
        return frozenset()

    def refusal(self, picture: CutPicture, references: References) -> str | None:
        """Why a picture cannot be compared with these references; None where it can."""
        return None

    def for_model(
        self, scoring: Mapping[str, Any], model: str, *, depth: int | None = None, patch: int | None = None
    ) -> Method:
        """The method for a model: with what its checkpoint says of its scoring, and settings that depend on its tower.

        Args:
            scoring: numbers that were fitted for the model, by name; most have none.
            model: its name, for messages.
            depth: blocks of its tower; None where the settings were chosen before, as in a bundle.
            patch: side of a patch in pixels; None likewise.

        Raises:
            SettingsError: the method cannot be used with the model.
        """
        return self

    @property
    def scoring(self) -> Mapping[str, Any]:
        """What :meth:`for_model` took, for a bundle."""
        return {}

    def document(self) -> dict[str, Any]:
        """The ``recipe`` of results, calibrations and bundles: the name and every setting."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]  # subclasses are dataclasses


def split(pictures: Sequence[CutPicture], *arrays: Array) -> Iterator[tuple[Any, ...]]:
    """Each picture with its rows of every array."""
    start = 0
    for picture in pictures:
        rows = slice(start, start + picture.tiles)
        yield picture, *(array[rows] for array in arrays)
        start = rows.stop
