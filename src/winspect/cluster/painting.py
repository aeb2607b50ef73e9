"""Heat maps over pictures, where they are asked for: a stage of its own behind judging, on the workers' CPUs.

The picture is read a second time: at its own size it would be the largest thing to cross the object store.
"""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import fs

from winspect.cluster.filesystems import open_place, pictures_of
from winspect.cluster.inputs import OVERLAYS
from winspect.cluster.stages import JUDGED, boxes_of, worker_name
from winspect.errors import PictureError, WinspectError
from winspect.methods.result import Result
from winspect.outputs.maps import short_stem
from winspect.pictures.decoding import Source, read_rgb
from winspect.pictures.heatmaps import annotated_overlay, save_png
from winspect.system.files import make_folder

logger = logging.getLogger(__name__)


def paint(table: pa.Table, *, place: str, keep_arrays: bool) -> pa.Table:
    """Write a heat map over each picture of a table of :data:`JUDGED` into ``_maps``; gives the table with its name.

    The names follow from the inputs alone, so that what is painted twice is the same file. Where the place cannot be
    written the rows say so, as ``refusal``.
    """
    rows = table.to_pylist()
    for row, source in zip(rows, pictures_of(table), strict=True):
        began = time.perf_counter()
        if row["tile_maps"] is not None:
            try:
                row["map"] = _paint(row, source, place)
            except PictureError as error:  # it was there a moment ago, and has its score
                logger.warning("no heat map of %s", error)
            except (WinspectError, OSError) as error:
                row["refusal"] = f"{worker_name()}: cannot write heat maps: {error}"
        if not keep_arrays:
            row |= {"tile_maps": None, "map_shape": None}
        row |= {"paint_s": time.perf_counter() - began, "painter": worker_name()}
    return pa.Table.from_pylist(rows, schema=JUDGED)


def _paint(row: dict[str, Any], source: Source | PictureError, place: str) -> str:
    if isinstance(source, PictureError):
        raise source
    rgb = read_rgb(source)
    result = Result(
        path=row["path"] or row["id"],
        category_name=row["class"],
        anomaly_score=row["anomaly_score"],
        tile_maps=np.array(row["tile_maps"], np.float32).reshape(row["map_shape"]),
        tile_boxes=tuple(boxes_of(row)),
        size_wh=(row["width"], row["height"]),
        picture_rgb=rgb,
    )
    said = {"score": row["anomaly_score"], "verdict": row["verdict"], "boxes": row["boxes"]}
    assert result.anomaly_map is not None  # it has tile maps
    painted = annotated_overlay(rgb, result.anomaly_map, row["score_range"], **said)
    name = f"{OVERLAYS}/{row['ordinal']:08d}_{short_stem(result.path)}.png"
    filesystem, folder = open_place(place)
    if isinstance(filesystem, fs.LocalFileSystem):
        save_png(painted, make_folder(Path(folder) / OVERLAYS) / name.removeprefix(f"{OVERLAYS}/"))
        return name
    content = io.BytesIO()
    Image.fromarray(painted).save(content, format="PNG", compress_level=1)
    with filesystem.open_output_stream(f"{folder}/{name}") as file:  # what it holds appears whole, when it is closed
        file.write(content.getvalue())
    return name
