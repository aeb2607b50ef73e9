"""One picture of a data set, and a data set as a list of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from winspect.errors import SettingsError, SourceError

SPLITS = ("train", "test")
LABELS = ("normal", "anomalous")
GOOD = "good"
"""The ``defect_type`` of normal pictures."""
DEFECT = "defect"
"""The ``defect_type`` of defects that a data set does not name."""
GOOD_WORDS = ("normal", "good", "ok", "pass", "passed", "non_defective", "defect_free", "no_defect")
BAD_WORDS = ("anomalous", "anomaly", "abnormal", "defective", "defect", "bad", "ko", "ng", "nok", "not_ok", "fail")
"""What people call the two labels, in tables and as folders; in either case, with ``_``, ``-``, a blank or nothing
between words."""


@dataclass(frozen=True)
class Item:
    """One picture and what is known about it.

    Attributes:
        path: the picture. Whether it is there and readable shows when it is read.
        category: the product, as in ``"candle"``; underscores become spaces in prompts.
        split: ``"train"`` (references may be drawn from it) or ``"test"`` (scored).
        label: ``"normal"`` or ``"anomalous"``.
        defect_type: ``"good"`` for normal pictures, else what the data set calls the defect.
        mask: where the defect is, or None: see :func:`winspect.datasets.load_mask`. None for normal pictures.

    Raises:
        SettingsError: an unknown split or label, or a normal picture with a defect or a mask.
    """

    path: Path
    category: str
    split: str
    label: str
    defect_type: str = GOOD
    mask: Path | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise SettingsError(f"{self.path}: got split {self.split!r}, need one of {', '.join(SPLITS)}")
        if self.label not in LABELS:
            raise SettingsError(f"{self.path}: got label {self.label!r}, need one of {', '.join(LABELS)}")
        if not self.is_anomalous and (self.defect_type != GOOD or self.mask is not None):
            extra = f"the defect {self.defect_type!r}" if self.mask is None else f"the mask {self.mask}"
            raise SettingsError(f"{self.path}: labelled normal, but has {extra}: label it anomalous, or drop that")

    @property
    def is_anomalous(self) -> bool:
        """Whether the picture shows a defect."""
        return self.label == "anomalous"


def item_of(
    path: str, category: str, split: str, label: str, defect_type: str = DEFECT, mask: str | None = None
) -> Item:
    """An item of a list, which may name a type and a mask for normal pictures, too: there they mean nothing."""
    if label == "normal":
        return Item(Path(path), category, split, label)
    return Item(Path(path), category, split, label, defect_type or DEFECT, Path(mask) if mask else None)


@dataclass(frozen=True)
class Dataset:
    """Pictures of one or several categories.

    Attributes:
        name: the kind it was opened as, as in ``"visa"``.
        root: the folder or file it was read from.
        categories: in the data set's order. A category that has no pictures stays in the list.
        items: every picture, category after category.
    """

    name: str
    root: Path
    categories: tuple[str, ...]
    items: tuple[Item, ...]

    def select(
        self, *, category: str | None = None, split: str | None = None, label: str | None = None
    ) -> tuple[Item, ...]:
        """The pictures that match everything given, in order.

        Raises:
            SourceError: the data set has no such category; names those it has.
            SettingsError: an unknown split or label.
        """
        if category is not None:
            choose_categories(self.categories, [category], self.root)
        for value, known in ((split, SPLITS), (label, LABELS)):
            if value is not None and value not in known:
                raise SettingsError(f"got {value!r}, need one of {', '.join(known)}")
        return tuple(
            item
            for item in self.items
            if (category is None or item.category == category)
            and (split is None or item.split == split)
            and (label is None or item.label == label)
        )

    def reference_pool(self, category: str) -> tuple[Item, ...]:
        """The normal pictures that few-shot references may be drawn from.

        Those of the train split. A data set without one (a plain folder) offers its normal test pictures; those
        drawn must then not be scored as well.
        """
        normals = self.select(category=category, label="normal")
        return tuple(item for item in normals if item.split == "train") or normals

    @property
    def paths(self) -> Iterator[Path]:
        """Every picture and mask that the data set names, in order."""
        return (path for item in self.items for path in (item.path, item.mask) if path is not None)

    def missing(self) -> tuple[Path, ...]:
        """Pictures and masks that the data set names but that are not there, in order."""
        return tuple(path for path in self.paths if not os.path.isfile(path))  # false whatever is wrong with a name


def choose_categories(exist: Sequence[str], chosen: Sequence[str] | None, root: Path) -> tuple[str, ...]:
    """The chosen categories in the data set's order; all of them when None.

    Raises:
        SourceError: one does not exist; names those that do.
    """
    if chosen is None:
        return tuple(exist)
    unknown = [name for name in chosen if name not in exist]
    if unknown or not chosen:
        got = ", ".join(repr(name) for name in unknown) or "an empty list"
        raise SourceError(f"{root}: got category {got}, but it has: {', '.join(exist)}")
    return tuple(name for name in exist if name in chosen)


def dataset_of(name: str, root: Path, items: Sequence[Item], categories: Sequence[str] | None) -> Dataset:
    """The chosen categories of a list of pictures, category after category in the order of the list.

    Raises:
        SourceError: a category does not exist.
    """
    chosen = choose_categories(list(dict.fromkeys(item.category for item in items)), categories, root)
    return Dataset(
        name, root, chosen, tuple(item for category in chosen for item in items if item.category == category)
    )


def check_some_there(dataset: Dataset) -> Dataset:
    """The data set, if any of its pictures is there; a broken link counts: reading it names it.

    Raises:
        SourceError: none is.
    """
    if not any(os.path.lexists(item.path) for item in dataset.items):
        example = f", as {dataset.items[0].path}" if dataset.items else ""
        raise SourceError(
            f"{dataset.root}: none of the {len(dataset.items)} pictures that it lists is there{example}: check the "
            "root, or extract the archive there"
        )
    return dataset


def means_good(name: str) -> bool:
    """Whether a folder of this name holds normal pictures; every other name is a type of defect."""
    return _plain(name) in map(_plain, GOOD_WORDS)


def label_of(word: str) -> str | None:
    """The label that a table's word or number means: ``"normal"`` or ``"anomalous"``; None for neither.

    >>> label_of("OK"), label_of("0.0"), label_of("Abnormal"), label_of("1"), label_of("maybe")
    ('normal', 'normal', 'anomalous', 'anomalous', None)
    """
    plain = _plain(word)
    if means_good(word) or plain == "false":
        return "normal"
    if plain in map(_plain, BAD_WORDS) or plain == "true":
        return "anomalous"
    try:
        return {0.0: "normal", 1.0: "anomalous"}.get(float(word))
    except ValueError:
        return None


def _plain(word: str) -> str:
    return word.strip().casefold().replace("_", "").replace("-", "").replace(" ", "")
