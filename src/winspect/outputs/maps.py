"""Files of maps: heat maps over pictures, raw maps, masks of defects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from winspect.calibration.judgement import Judgement
from winspect.errors import SourceError
from winspect.methods.result import shrunk, smaller_size
from winspect.pictures.heatmaps import UNIT_RANGE, ScoreRange, annotated_overlay, save_png
from winspect.system.files import MAPS_FOLDER, replacing

MASK_ENDING = "_mask.png"


def overlay_of(judgement: Judgement, score_range: ScoreRange | None = UNIT_RANGE) -> np.ndarray:
    """The heat map over the judgement's picture, at that picture's size, annotated with what was decided.

    Args:
        judgement: of a result with its picture, which may be a smaller version of the original, and its maps.
        score_range: of the colours; None takes the batch's, and where it has none stretches them to the picture, with
            nothing drawn.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: the result has no picture, or no maps.
    """
    result = judgement.result
    rgb = result.picture_rgb
    small = None if rgb is None else shrunk(result, (rgb.shape[1], rgb.shape[0]))
    if rgb is None or small is None or small.anomaly_map is None or small.size_wh is None or result.size_wh is None:
        raise ValueError(f"{result.path}: a result without its picture and its maps has no overlay")
    boxes = judgement.boxes
    if boxes and small.size_wh != result.size_wh:
        scale_xy = [new / old for new, old in zip(small.size_wh, result.size_wh, strict=True)]
        boxes = [[round(edge * scale) for edge, scale in zip(box, scale_xy * 2, strict=True)] for box in boxes]
    score, verdict, colours = result.anomaly_score, judgement.verdict, score_range or result.heat_range
    return annotated_overlay(rgb, small.anomaly_map, colours, score=score, verdict=verdict, boxes=boxes)


def smaller_picture(rgb: np.ndarray, longest: float) -> np.ndarray:
    """A picture uint8 (height, width, 3) scaled down to a longer side of at most ``longest`` pixels."""
    size_wh = rgb.shape[1], rgb.shape[0]
    size = smaller_size(size_wh, longest=longest)
    if size == size_wh:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


@dataclass(frozen=True)
class MapFiles:
    """Writes the maps of a run.

    Attributes:
        folder: of the run; names in rows are relative to it.
        overlays, raw_maps, masks: what is written: ``.png``, float32 ``.npz`` (``anomaly_map``: height x width),
            ``_mask.png``.
    """

    folder: Path
    overlays: bool = False
    raw_maps: bool = False
    masks: bool = False

    def map_name(self, judgement: Judgement, stem: str) -> str | None:
        """The file that a row names as its map; None for none."""
        result = judgement.result
        if result.tile_maps is None:
            return None
        has_overlay = self.overlays and result.picture_rgb is not None
        return f"{stem}.png" if has_overlay else f"{stem}.npz" if self.raw_maps else None

    def mask_name(self, judgement: Judgement, stem: str) -> str | None:
        """The file of the defects' mask; None for none."""
        return None if not self.masks or judgement.defects is None else stem + MASK_ENDING

    def write(self, judgement: Judgement, stem: str, score_range: ScoreRange | None = UNIT_RANGE) -> None:
        """Write the files atomically.

        Args:
            stem: of their names, below :attr:`folder`, whose folder is there.
            score_range: of the colours; None stretches them to each picture.

        Raises:
            OutputError: they cannot be written.
        """
        result = judgement.result
        if result.tile_maps is None:
            return
        if self.overlays and result.picture_rgb is not None:
            save_png(overlay_of(judgement, score_range), self.folder / f"{stem}.png")
        if self.raw_maps and result.anomaly_map is not None:
            with replacing(self.folder / f"{stem}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, anomaly_map=result.anomaly_map)
        if (mask := self.mask_name(judgement, stem)) is not None and judgement.defects is not None:
            save_png(judgement.defects.mask.astype(np.uint8) * 255, self.folder / mask)


def short_stem(path: str) -> str:
    """The name of a picture without its ending, short enough to be part of a file name on any system."""
    return Path(path).stem.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")


def without_own_maps(pictures: list[Path], folder: Path) -> list[Path]:
    """The pictures but for the heat maps of an earlier run, where the results lie in the folder that is searched.

    Raises:
        SourceError: nothing is left.
    """
    maps = (folder / MAPS_FOLDER).resolve()
    kept = [picture for picture in pictures if picture.parent.resolve() != maps]
    if not kept:
        raise SourceError(f"all {len(pictures)} pictures are heat maps in {maps}: name the pictures, or another --out")
    return kept
