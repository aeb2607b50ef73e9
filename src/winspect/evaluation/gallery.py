"""Pictures worth looking at after an evaluation: where the scores were most wrong, with map and ground truth."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from winspect.datasets import Item, load_mask
from winspect.errors import PictureError
from winspect.evaluation.category import results_of
from winspect.outputs.pages import THUMBNAIL_SIDE, data_uri
from winspect.pictures.decoding import read_rgb
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, annotated_overlay
from winspect.system.opening import open_file

if TYPE_CHECKING:
    from winspect.inspector.winclip import WinCLIP

_OUTLINE_RGB, _HALO_RGB = (0, 229, 255), (10, 30, 60)
_QUALITY = 80


@dataclass(frozen=True)
class Choice:
    """One scored picture: how it stands among the others of its category, and how it looks on a page.

    Attributes:
        row: of the category's scores: path, label, defect_type, score.
        rank: 1 for the highest score of all pictures. ``scored``: how many have a score.
        worse: pictures of the other kind that this one should have beaten but did not: normal ones that score as high
            or higher than a defective one, defective ones that score as low or lower than a normal one.
        others: how many pictures of the other kind there are.
        picture, overlay: data URIs, both with the ground truth's outline; None where there is nothing to show.
        outlined: whether there is an outline. ``problem``: what is missing, and why.
    """

    row: Mapping[str, Any]
    rank: int
    scored: int
    worse: int
    others: int
    picture: str | None = None
    overlay: str | None = None
    outlined: bool = False
    problem: str | None = None


def choose(rows: Iterable[Mapping[str, Any]], count: int) -> tuple[list[Choice], list[Choice]]:
    """The defective pictures with the lowest scores, lowest first, and the normal ones with the highest, highest first.

    Args:
        rows: path, label and score of each picture; those without a score are passed over.
        count: of each kind, at most.
    """
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda row: (row["score"], row["path"]))
    normal, defective = ([row for row in scored if row["label"] == label] for label in ("normal", "anomalous"))
    every, good, bad = (np.array([row["score"] for row in some]) for some in (scored, normal, defective))

    def choice(row: Mapping[str, Any], others: np.ndarray, worse: np.ndarray) -> Choice:
        return Choice(row, 1 + int((every > row["score"]).sum()), len(every), int(worse.sum()), len(others))

    misses = [choice(row, good, good >= row["score"]) for row in defective[:count]]
    return misses, [choice(row, bad, bad <= row["score"]) for row in normal[::-1][:count]]


class View(NamedTuple):
    """A picture, uint8 (height, width, 3), and its anomaly map, float (height, width); or why one is missing."""

    rgb: np.ndarray | None = None
    anomaly_map: np.ndarray | None = None
    problem: str | None = None


Viewer = Callable[[Sequence[Path]], Iterator[View]]
"""Gives a view per picture, in order."""


def score_again(model: WinCLIP, class_name: str, references: Sequence[Path]) -> Viewer:
    """Views by scoring pictures again, as the evaluation did: with the same references, or with none.

    Raises (when used):
        ReferencesError: a reference cannot be read.
    """

    def view(paths: Sequence[Path]) -> Iterator[View]:
        model.forget(class_name)
        if references:
            model.reference(list(references), class_name)
        try:
            with results_of(model, paths, class_name, keep_pictures=True) as results:
                for result in results:
                    yield View(result.picture_rgb, result.anomaly_map, str(result.error) if result.error else None)
        finally:
            model.forget(class_name)

    return view


def read_maps(files: Mapping[Path, Path | None]) -> Viewer:
    """Views from files: picture -> its raw map (.npz), or None for the picture alone."""
    return lambda paths: (_read_view(path, files[path]) for path in paths)


def _read_view(path: Path, map_file: Path | None) -> View:
    try:
        rgb = read_rgb(path)
    except PictureError as error:
        return View(problem=str(error))
    if map_file is None:
        return View(rgb)
    try:
        with open_file(map_file) as file, np.load(file) as arrays:
            anomaly_map = arrays["anomaly_map"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return View(rgb, problem=f"{map_file.name}: the raw map cannot be read ({error})")
    if anomaly_map.shape != rgb.shape[:2]:
        return View(rgb, problem=f"{map_file.name}: the raw map is of another size than its picture")
    return View(rgb, anomaly_map)


@dataclass(frozen=True)
class Gallery:
    """The pictures of one category; all its heat maps share ``score_range``, None where there is no map."""

    misses: Sequence[Choice]
    false_alarms: Sequence[Choice]
    score_range: ScoreRange | None


def make_gallery(
    misses: Sequence[Choice],
    false_alarms: Sequence[Choice],
    items: Mapping[str, Item],
    viewer: Viewer,
    score_range: ScoreRange | None = UNIT_RANGE,
) -> Gallery:
    """Make thumbnails of chosen pictures. Holds one picture at its own size at a time, beside the viewer's.

    Args:
        items: of the data set, by the path in a choice's row.
        viewer: where pictures and maps come from.
        score_range: of the colours, as of the category's other heat maps.
    """
    chosen = [*misses, *false_alarms]
    known = [(choice, items[choice.row["path"]]) for choice in chosen if choice.row["path"] in items]
    views = viewer([item.path for _, item in known]) if known else iter(())
    shown = {
        choice.row["path"]: _show(choice, item, view, score_range)
        for (choice, item), view in zip(known, views, strict=True)
    }
    lost = "the data set no longer has this picture"
    every = [shown.get(choice.row["path"]) or replace(choice, problem=lost) for choice in chosen]
    has_maps = any(choice.overlay is not None for choice in every)
    return Gallery(every[: len(misses)], every[len(misses) :], score_range if has_maps else None)


def _show(choice: Choice, item: Item, view: View, score_range: ScoreRange | None) -> Choice:
    """A choice with its view at a thumbnail's size."""
    if view.rgb is None:
        return replace(choice, problem=view.problem)
    image = Image.fromarray(view.rgb)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    truth, problem = None, view.problem
    if item.is_anomalous and item.mask is not None:
        try:
            truth = _shrink_mask(load_mask(item, (view.rgb.shape[1], view.rgb.shape[0])), image.size)
        except PictureError as error:
            problem = str(error)
    overlay, rgb = None, np.asarray(image)
    if view.anomaly_map is not None:
        heat = Image.fromarray(view.anomaly_map.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
        painted = annotated_overlay(rgb, np.asarray(heat), score_range, score=choice.row["score"])
        overlay = _to_uri(draw_outline(painted, truth))
    picture, outlined = _to_uri(draw_outline(rgb, truth)), truth is not None and bool(truth.any())
    return replace(choice, picture=picture, overlay=overlay, outlined=outlined, problem=problem)


def _shrink_mask(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """A mask at another size; a defect of a single pixel stays."""
    width, height = size_wh
    rows, columns = np.nonzero(mask)
    small = np.zeros((height, width), bool)
    small[rows * height // mask.shape[0], columns * width // mask.shape[1]] = True
    return small


def draw_outline(rgb: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """A picture with a light line, and a dark one outside it, round every defect: readable on any ground.

    The lines lie outside the defect, so that none is hidden; where it reaches the picture's edge, they lie on the edge.

    Args:
        rgb: uint8 (height, width, 3).
        truth: bool (height, width), True where defective; None for no outline.
    """
    if truth is None or not truth.any():
        return rgb
    square = np.ones((3, 3), bool)
    grown = binary_dilation(truth, square)
    halo = binary_dilation(grown, square) & ~grown
    painted = rgb.copy()
    painted[halo] = _HALO_RGB
    painted[grown & ~binary_erosion(grown, square, border_value=0)] = _OUTLINE_RGB
    return painted


def _to_uri(rgb: np.ndarray) -> str:
    return data_uri(Image.fromarray(rgb), quality=_QUALITY, fine_colour=True)
