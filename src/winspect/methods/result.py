"""Result of a prediction: a score, a map, or the reason why there is neither."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from winspect.errors import PictureError
from winspect.methods.method import PictureScores
from winspect.methods.upsampling import BILINEAR, Upsampling
from winspect.pictures.alignment import IDENTITY, Aligned
from winspect.pictures.roi import Roi
from winspect.pictures.tiles import Prepared

CONSTANT_SPREAD = 1e-3
"""A map is constant when the log odds of its most and its least anomalous patch differ by less than this. Measured:
photographs give 0.07 and more, evenly coloured pictures 0.03 and more, windows that attend to each other 0. Log odds,
because differences between scores near 0 or 1 are tiny for sound maps too."""


def map_spread(tile_maps: np.ndarray, score_range: tuple[float, float] = (0.0, 1.0)) -> float:
    """How far a picture's patches differ: the largest difference of :func:`log_scores` within one of its tiles.

    Args:
        tile_maps: (tiles, rows, columns), in the score range.
        score_range: of the method.
    """
    flat = tile_maps.reshape(len(tile_maps), -1).astype(np.float64)
    logs = log_scores(flat, score_range, lowest=1e-30, highest=1 - 1e-8)
    return float(np.ptp(logs, axis=1).max())


def log_scores(scores: np.ndarray, score_range: tuple[float, float], *, lowest: float, highest: float) -> np.ndarray:
    """Log odds of scores that end at 1; logarithms of scores that may be larger, which are no probabilities.

    Args:
        scores: 0 or more; kept between ``lowest`` and, as probabilities, ``highest``.
        score_range: of the method: what these scores happen to be does not decide.
    """
    logs = np.log(np.maximum(scores, lowest))
    return logs if score_range[1] > 1 else logs - np.log1p(-np.clip(scores, lowest, highest))


@dataclass(frozen=True, eq=False)
class Result:
    """What the model says of a picture. Reads as an object or as a mapping: ``result["anomaly_score"]``.

    Attributes:
        path: the picture's name, as it was given.
        category_name: the class it was scored as.
        anomaly_score: more is more anomalous, in the method's range (0 to 1 for WinCLIP's recipes); None when the
            picture could not be scored.
        tile_maps: float32 (tiles, rows, columns), in the same range: the map of each tile on the patch grid, or finer.
        tile_boxes: (x0, y0, x1, y1) of each tile in pixels, x1 and y1 exclusive.
        size_wh: width and height of the picture in pixels, upright.
        picture_rgb: uint8 (height, width, 3), only when the prediction was asked to keep it.
        error: why the picture could not be scored, else None.
        warning: what is suspicious about the picture (damaged, black, a constant colour, ...), else None. Several are
            joined by ``"; "``.
        upsampling: how tile maps become ``anomaly_map``.
        heat_range: values of maps at which colour starts and is strongest, where the batch says it; None where what is
            usual is known otherwise, from good samples or a calibration, or not at all.
        parts: scores that were combined into ``anomaly_score``, by recipe, each in its own range; mostly empty.
        score_range: the lowest and the highest value that the method gives as a score, or in a map.
        statistics: brightness, sharpness, ... of the picture (:func:`winspect.pictures.statistics.picture_statistics`);
            None unless they were asked for.
        roi: the region of interest that it was scored with; None for the whole picture.
        alignment: how the picture was registered to the reference; maps are brought back by it, while ``tile_maps`` and
            ``tile_boxes`` lie as the reference does. None where it was not asked for.
    """

    path: str
    category_name: str
    anomaly_score: float | None = None
    tile_maps: np.ndarray | None = field(default=None, repr=False)
    tile_boxes: tuple[tuple[int, int, int, int], ...] = field(default=(), repr=False)
    size_wh: tuple[int, int] | None = None
    picture_rgb: np.ndarray | None = field(default=None, repr=False)
    error: PictureError | None = None
    warning: str | None = None
    upsampling: Upsampling = field(default=BILINEAR, repr=False)
    heat_range: tuple[float, float] | None = field(default=None, repr=False)
    parts: Mapping[str, float] = field(default_factory=dict, repr=False)
    score_range: tuple[float, float] = field(default=(0.0, 1.0), repr=False)
    statistics: Mapping[str, float] | None = field(default=None, repr=False)
    roi: Roi | None = field(default=None, repr=False)
    alignment: Aligned | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.error is None) == (self.anomaly_score is None):
            raise ValueError(
                f"{self.path}: a result has either a score or an error, got {self.anomaly_score!r}, {self.error!r}"
            )
        if self.anomaly_score is not None and not math.isfinite(self.anomaly_score):
            raise ValueError(f"{self.path}: got the score {self.anomaly_score!r}, need a number, or an error instead")
        if self.tile_maps is not None and len(self.tile_maps) != len(self.tile_boxes):
            raise ValueError(f"{self.path}: got {len(self.tile_maps)} maps for {len(self.tile_boxes)} tiles")

    @cached_property
    def anomaly_map(self) -> np.ndarray | None:
        """float32 (height, width) at the picture's own size, more is more anomalous.

        Each tile's map is upsampled to its tile; where tiles overlap their maps are averaged. Outside of the region of
        interest it has the method's lowest value. Made when first read, so that scores alone stay cheap. None when
        there is an error.
        """
        if self.tile_maps is None or self.size_wh is None:
            return None
        whole = self._whole_map(self.size_wh)
        if self.inside is None:
            return whole
        lowest = min(self.score_range[0], float(self.tile_maps.min()))  # of logarithms they are lower
        whole = whole if self.alignment is None else self.alignment.back(whole, outside=lowest)
        return np.where(self.inside, whole, np.float32(lowest))

    @property
    def inside(self) -> np.ndarray | None:
        """Pixels inside of the region of interest, on the reference: bool (height, width); None where all are."""
        if self.size_wh is None or (self.roi is None and (self.alignment is None or self.alignment.matrix == IDENTITY)):
            return None
        inside = np.ones(self.size_wh[::-1], bool) if self.roi is None else self.roi.at(self.size_wh)
        return inside if self.alignment is None else self.alignment.back(inside, outside=0)

    def _whole_map(self, size_wh: tuple[int, int]) -> np.ndarray:
        width, height = size_wh
        if self.tile_boxes == ((0, 0, width, height),):
            return self._tile_map(0)
        total = np.zeros((height, width), np.float32)
        count = np.zeros((height, width), np.float32)
        for number, (x0, y0, x1, y1) in enumerate(self.tile_boxes):
            total[y0:y1, x0:x1] += self._tile_map(number)
            count[y0:y1, x0:x1] += 1
        return total / np.maximum(count, 1)  # there are no tiles wholly outside of the region of interest

    def _tile_map(self, number: int) -> np.ndarray:
        assert self.tile_maps is not None  # narrowed by anomaly_map
        x0, y0, x1, y1 = self.tile_boxes[number]
        return self.upsampling(self.tile_maps[number : number + 1], (y1 - y0, x1 - x0))[0]

    def keys(self) -> tuple[str, ...]:
        """The names that ``result[name]`` knows."""
        return ("path", "category_name", "anomaly_score", "anomaly_map", "size_wh", "error", "warning")

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            hint = "" if isinstance(name, str) else "; a single picture has a single result: leave the index out"
            raise KeyError(f"{name}{hint}; known are {', '.join(self.keys())}")
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


def smaller_size(size_wh: tuple[int, int], *, longest: float = math.inf, pixels: float = math.inf) -> tuple[int, int]:
    """The size of a picture scaled down to a longer side, and a number of pixels, at most; no side below 1.

    >>> smaller_size((4000, 2000), longest=1000), smaller_size((40, 20), longest=1000)
    ((1000, 500), (40, 20))
    >>> smaller_size((1000, 600), pixels=6000)
    (100, 60)
    """
    scale = min(1.0, longest / max(size_wh), math.sqrt(pixels / math.prod(size_wh)))
    width, height = (max(1, int(side * scale + 1e-6)) for side in size_wh)
    return width, height


def shrunk(result: Result, size_wh: tuple[int, int]) -> Result:
    """The same result as of the picture scaled to another size, so that its ``anomaly_map`` is made at that size.

    It has the picture that ``result`` has. A result of that size already, with an error, or without maps is returned
    as it is.
    """
    if result.size_wh is None or result.size_wh == size_wh or result.tile_maps is None:
        return result
    scales = [new / old for new, old in zip(size_wh, result.size_wh, strict=True)]
    boxes = tuple(_scaled(box, (*scales, *scales)) for box in result.tile_boxes)
    upsampling = result.upsampling.of_scaled_picture(math.sqrt(math.prod(scales)))
    alignment = None if result.alignment is None else result.alignment.scaled(scales[0], scales[1])
    return replace(result, size_wh=size_wh, tile_boxes=boxes, upsampling=upsampling, alignment=alignment)


def _scaled(box: tuple[int, int, int, int], scales: tuple[float, ...]) -> tuple[int, int, int, int]:
    # Edges are rounded the same way in every tile: none comes to lie beside its neighbour's.
    x0, y0, x1, y1 = (round(edge * scale) for edge, scale in zip(box, scales, strict=True))
    return min(x0, x1 - 1), min(y0, y1 - 1), x1, y1


class ConstantMapWarning(UserWarning):
    """Every map of a batch is constant: the windows are broken, or the pictures are blank."""


def result_of(
    item: Prepared,
    category_name: str,
    scores: PictureScores,
    precision: str,
    score_range: tuple[float, float] = (0.0, 1.0),
) -> Result:
    """The result of a prepared picture; an error where its score, or its map, is not a number."""
    maps = scores.tile_maps
    if not math.isfinite(scores.score) or not (maps is None or np.isfinite(maps).all()):
        reason = f"the model's score in {precision} is not a number: use precision fp32 or bf16, or check the weights"
        return Result(item.name, category_name, error=PictureError(item.name, reason), warning=item.warning)
    return Result(
        path=item.name,
        category_name=category_name,
        anomaly_score=scores.score,
        tile_maps=maps,
        tile_boxes=tuple(item.boxes),
        size_wh=item.size_wh,
        picture_rgb=item.rgb,
        warning=item.warning,
        upsampling=scores.upsampling,
        parts=scores.parts,
        score_range=score_range,
        statistics=item.statistics,
        roi=item.roi,
        alignment=item.alignment,
    )


def warn_if_constant(results: Sequence[Result]) -> None:
    """Warn when not one map of a batch varies."""
    mapped = [(each.tile_maps, each.score_range) for each in results if each.tile_maps is not None]
    if mapped and all(map_spread(*each) < CONSTANT_SPREAD for each in mapped):
        warnings.warn(
            f"all anomaly maps of {len(mapped)} pictures from {results[0].path} on are constant: the pictures are "
            "blank, or the windows of this model are broken; do not trust these maps",
            ConstantMapWarning,
            stacklevel=3,
        )
