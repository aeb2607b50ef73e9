"""Data sets: where the pictures are, what they show, and where the defects are.

>>> " ".join(sorted(KINDS))
'btad dagm elpv folder ksdd2 manifest meta mpdd mvtec mvtec2 realiad textile visa'
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from winspect.datasets.items import LABELS, SPLITS, Dataset, Item
from winspect.datasets.layouts import LAYOUTS, open_layout
from winspect.datasets.lists import open_manifest, open_meta, open_realiad
from winspect.datasets.masks import load_mask
from winspect.datasets.packaged import PACKAGES, open_elpv, open_textile
from winspect.datasets.trees import left_out_by
from winspect.datasets.visa import open_visa
from winspect.errors import SettingsError
from winspect.pictures.formats import left_out_in_words

__all__ = ["KINDS", "LABELS", "SPLITS", "Dataset", "Item", "load_mask", "open_dataset"]

logger = logging.getLogger(__name__)

KINDS: dict[str, Callable[..., Dataset]] = {
    "visa": open_visa,
    **{kind: partial(open_layout, kind) for kind in LAYOUTS},
    "realiad": open_realiad,
    "meta": open_meta,
    "manifest": open_manifest,
    "elpv": open_elpv,
    "textile": open_textile,
}
"""Kind of data set -> what opens it. ``elpv`` and ``textile`` need no root: they install as packages."""


def open_dataset(
    kind: str, root: str | os.PathLike[str] | None = None, *, categories: Sequence[str] | None = None
) -> Dataset:
    """Open a data set. No picture is read; those named but not there are counted in the log.

    Args:
        kind: one of :data:`KINDS`; docs/data.md draws each one's layout.
        root: its folder, or the manifest's file. ``elpv`` and ``textile`` default to the installed package.
        categories: only these; default: all. A root that is itself one category takes its name from here.

    Raises:
        SettingsError: an unknown kind, or no root where one is needed.
        SourceError: no such data set there, or no such category (names those it has).
        MissingExtraError: the package with the pictures is not installed.
    """
    if kind not in KINDS:
        raise SettingsError(f"got the data set {kind!r}, need one of {', '.join(KINDS)}")
    if root is None and kind not in PACKAGES:
        raise SettingsError(f"the data set {kind} needs a root: the folder it is in (--root)")
    if isinstance(categories, str):
        categories = [categories]
    dataset = KINDS[kind](None if root is None else Path(root), categories)
    gone = dataset.missing()
    if gone:
        logger.warning("%s names %d files that are not there, as %s", dataset.root, len(gone), gone[0])
    if kind in ("visa", *LAYOUTS):
        pictures, others = left_out_by(dataset, categories)
        if pictures:
            plural = "s" * (len(pictures) > 1)
            logger.warning("%s: %d picture%s left out, as %s", dataset.root, len(pictures), plural, pictures[0])
        if others:
            logger.warning("%s: %s", dataset.root, left_out_in_words(others))
    return dataset
