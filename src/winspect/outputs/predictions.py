"""Page of predictions: the most anomalous pictures with their heat maps, and a table of scores."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from winspect.errors import PictureError
from winspect.outputs.maps import smaller_picture
from winspect.outputs.pages import data_uri, write_page
from winspect.outputs.rows import REPORT_FILE, ROWS_FILE, Counts, read_rows
from winspect.pictures.decoding import read_rgb
from winspect.system.installation import need

THUMBNAIL = 320
"""Pixels of a picture's longer side, at most."""

MOST_PICTURES, MOST_ROWS, MOST_FAILED = 100, 1000, 100
"""What a page holds at most, so that a browser still opens it; the others are counted."""


class View(NamedTuple):
    """A picture and its heat map, at a thumbnail's size; or why one is missing."""

    picture: Image.Image | None = None
    overlay: Image.Image | None = None
    problem: str | None = None


Entry = tuple[Mapping[str, Any], Callable[[], View]]
"""A row, and what gives its view, which is asked of those alone that are on the page with a picture."""


@dataclass(frozen=True)
class Shown:
    """A row with its pictures as data URIs."""

    row: Mapping[str, Any]
    picture: str | None
    overlay: str | None
    problem: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any], view: View) -> Shown:
        """The row with its view."""
        picture, overlay = (
            None if image is None else data_uri(image, fine_colour=True) for image in (view.picture, view.overlay)
        )
        return cls(row, picture, overlay, view.problem)


def check_report() -> None:
    """Refuse a report where what writes it is not installed.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    need("jinja2", "full", job="a report")


def write_predictions(
    path: Path, entries: Iterable[Entry], *, title: str, model: Mapping[str, Any] | None = None
) -> Path:
    """Write the page; the entries are read once, and few of them are held.

    Args:
        model: what scored them, as ``describe`` of a model says it; None where that is not known.

    Raises:
        OutputError: the file cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    check_report()
    counts = Counts()
    failed: list[Mapping[str, Any]] = []
    highest: list[tuple[float, int, Entry]] = []
    for number, entry in enumerate(entries):
        row = entry[0]
        counts.add(row)
        if row["error"] is not None:
            failed += [row] * (len(failed) < MOST_FAILED)
            continue
        # The number keeps the order of equal scores, and entries from being compared.
        push = heapq.heappush if len(highest) < MOST_ROWS else heapq.heappushpop
        push(highest, (row["anomaly_score"], -number, entry))
    ordered = [entry for _, _, entry in sorted(highest, key=lambda found: found[:2], reverse=True)]
    return write_page(
        path,
        "predictions.html",
        title=title,
        model=model,
        counts=counts,
        shown=(Shown.of(row, look()) for row, look in ordered[:MOST_PICTURES]),
        pictures=min(len(ordered), MOST_PICTURES),
        rows=[row for row, _ in ordered],
        failed=failed,
    )


def report_run(folder: Path, *, model: Mapping[str, Any], bit_depth: int | None = None) -> Path:
    """Write ``report.html`` of a finished run, from its ``predictions.jsonl`` and its heat maps; returns its path.

    Args:
        model: see :func:`write_predictions`.
        bit_depth: of the camera; see :func:`winspect.pictures.decoding.read_rgb`.

    Raises:
        OutputError, MissingExtraError: as of :func:`write_predictions`.
    """

    def view(row: Mapping[str, Any]) -> View:
        try:
            picture = _thumbnail(read_rgb(row["path"], bit_depth=bit_depth))
            has_overlay = row["map"] is not None and row["map"].endswith(".png")
            return View(picture, _thumbnail(read_rgb(folder / row["map"])) if has_overlay else None)
        except PictureError as error:
            return View(problem=str(error))

    rows = (row for row, _ in read_rows(folder / ROWS_FILE))
    entries = ((row, lambda row=row: view(row)) for row in rows)
    return write_predictions(folder / REPORT_FILE, entries, title="Predictions", model=model)


def _thumbnail(rgb: np.ndarray) -> Image.Image:
    return Image.fromarray(smaller_picture(rgb, THUMBNAIL))
