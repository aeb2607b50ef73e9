"""Defects as one COCO JSON file, from the rows and masks of a finished run.

Categories, images and annotations as in the COCO data format: boxes are [x, y, width, height] in pixels, and
segmentations uncompressed run lengths, column by column, beginning with the pixels that are not part of the defect.
An image also has the row's ``anomaly_score``, ``verdict`` and ``p_value``, and its ``reason`` where rows have one.
Pictures that failed are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winspect.calibration.defects import label_regions, regions_of
from winspect.outputs.rows import COCO_FILE, ROWS_FILE
from winspect.system.files import write_json
from winspect.system.opening import open_file, open_text


def write_coco(folder: Path) -> Path:
    """Write ``defects.coco.json`` beside the ``predictions.jsonl`` of a run with masks.

    Raises:
        OutputError: the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    with open_text(folder / ROWS_FILE) as lines:
        for row in map(json.loads, lines):
            if row["mask"] is None:
                continue
            with open_file(folder / row["mask"]) as file, Image.open(file) as picture:
                mask = np.asarray(picture) > 0
            number = len(images) + 1
            category = categories.setdefault(row["class"], len(categories) + 1)
            images.append(
                {
                    "id": number,
                    "file_name": row["path"],
                    "width": mask.shape[1],
                    "height": mask.shape[0],
                    **{name: row.get(name) for name in ("anomaly_score", "verdict", "p_value")},
                    **({"reason": row["reason"]} if "reason" in row else {}),
                }
            )
            for region in _regions(mask):
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                annotations.append({**ids, **region, "iscrowd": 0})
    named = [{"id": number, "name": f"{name} defect", "supercategory": "defect"} for name, number in categories.items()]
    document = {"images": images, "annotations": annotations, "categories": named}
    write_json(folder / COCO_FILE, document, indent=None)
    return folder / COCO_FILE


def _regions(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    labels, _ = label_regions(mask)
    defects = regions_of(mask)
    for number, ((x0, y0, x1, y1), area) in enumerate(zip(defects.boxes, defects.areas, strict=True), start=1):
        counts = run_lengths(labels[:, x0:x1] == number, x0, mask.shape[1])
        yield {
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": area,
            "segmentation": {"size": list(mask.shape), "counts": counts},
        }


def run_lengths(columns: np.ndarray, x0: int, width: int) -> list[int]:
    """Run lengths of a region, column by column, as COCO has them.

    Args:
        columns: bool (height, n), the columns from ``x0`` on that hold the region; ``width`` is the whole mask's.

    >>> run_lengths(np.array([[True, False], [True, True]]), 1, 4)
    [2, 2, 1, 1, 2]
    """
    height = len(columns)
    flat = columns.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=0, append=0)) + x0 * height
    counts = np.diff(np.concatenate([[0], changes, [height * width]])).tolist()
    return counts if counts[-1] else counts[:-1]
